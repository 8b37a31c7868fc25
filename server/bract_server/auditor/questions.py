"""Asking: who may, the record that they did, the answer, and its place in the log."""

from collections.abc import Callable
from datetime import datetime

from bract.errors import FORBIDDEN, MALFORMED, BractError
from bract.question import Answer, Draft, Moment, Where, finish, question
from bract.roles import check
from bract_server.auditor.answers import clearances, duties, models, persons, privacy, records
from bract_server.auditor.sight import Arguments, Sight, prove
from bract_server.registry.access import Access, Principal

ANSWERS: dict[int, Callable[[Sight, Moment, Arguments], Draft]] = {
    1: persons.models_of_a_person,
    2: persons.consents_of_a_round,
    3: records.log_not_rewritten,
    4: duties.due,
    5: privacy.spending,
    6: models.ancestry,
    7: persons.rounds_unlawful_now,
    8: clearances.refusals,
    9: duties.withdrawals_open,
    10: duties.against_the_rules,
    11: clearances.processing,
    12: models.leakage,
    13: privacy.odd_contributions,
    14: records.readings,
    15: models.completeness,
}
"""The hub's part of each question."""


def ask(
    sight: Sight,
    book: Access,
    who: Principal,
    number: int,
    when: Moment,
    at: datetime,
    *,
    arguments: Arguments | None = None,
    purpose: str = "not stated",
) -> Answer:
    """The hub's answer to a question.

    Args:
        sight: everything that the asker may see.
        book: where the reading is recorded, before anything is read.
        who: the asker.
        number: 1 to 15.
        when: about when, and by what was known when.
        at: now.
        arguments: what narrows the question.
        purpose: why, in the asker's words.

    Raises:
        BractError: `forbidden`; `malformed`; `log-inconsistent` from question 3 when the answer is no; `disk` or
            `concurrent` when the reading cannot be recorded.
    """
    asked, given = question(number), arguments or Arguments()
    check(who.role, number)
    if who.questions and number not in who.questions:
        raise BractError(FORBIDDEN, f"the token is not for question {number}")
    if asked.where is Where.SITE:
        raise BractError(MALFORMED, f"a site answers question {number}")
    if who.site != sight.site_asking:
        raise BractError(FORBIDDEN, "a site sees what is its own")
    about_persons = given.answer is not None
    book.accessed(who, f"question {number}", given.plain(), purpose, at, about_persons=about_persons)
    draft = ANSWERS[number](sight, when, given)
    proof, found = prove(sight.whole(), when.known, draft.cites)
    return finish(asked, draft, sight.origin, when, proof, found)
