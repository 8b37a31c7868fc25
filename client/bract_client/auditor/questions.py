"""Asking a site: who may, the record that they did, the answer, its place in the log, and what is signed for the hub."""

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.errors import MALFORMED, BractError
from bract.question import QUESTIONS, Answer, Draft, Moment, SnapshotAnswer, finish, question
from bract.roles import Verb, check
from bract.signing import Envelope, sign
from bract_client.auditor import accounts, consents, duties
from bract_client.auditor.sight import Arguments, SiteSight, prove
from bract_client.registry.access import Reader
from bract_client.registry.store import SiteRegistry

ANSWERS: dict[int, Callable[[SiteSight, Moment, Arguments], Draft]] = {
    1: consents.person_in_snapshots,
    2: consents.consents_of_rounds,
    3: duties.log_not_rewritten,
    4: duties.due,
    5: accounts.spending,
    7: consents.unlawful_now,
    9: duties.untold,
    11: accounts.processing,
    14: duties.readings,
}
"""The site's part of each question that it can answer."""


def ask(
    sight: SiteSight,
    registry: SiteRegistry,
    who: Reader,
    number: int,
    when: Moment,
    at: datetime,
    *,
    arguments: Arguments | None = None,
) -> Answer:
    """The site's answer to a question.

    Args:
        sight: reads.
        registry: records the reading, before it happens.
        who: the asker.
        number: 1 to 15.
        when: about when, and by what was known when.
        at: now.
        arguments: what narrows the question.

    Raises:
        BractError: `forbidden`; `malformed`, also for what the hub answers; `unknown-subject`; `log-inconsistent` from
            question 3 when the answer is no; `disk` or `concurrent` when the reading cannot be recorded.
    """
    asked, given = question(number), arguments or Arguments()
    answers = ANSWERS.get(number)
    if answers is None:
        raise BractError(MALFORMED, f"the hub answers question {number}: `bract audit ask {number}`")
    check(who.role, number, at_site=True)
    if given.listed:
        check(who.role, Verb.PERSON, at_site=True)
    if asked.about_persons or given.listed or given.person is not None:
        registry.accessed(who, f"question {number}", at, given.person)
    registry.checkpoint(at)  # so that whatever is cited is covered
    draft = answers(sight, when, given)
    proof, found = prove(sight, when.known, draft.cites)
    return finish(asked, draft, sight.site, when, proof, found)


def signed(sight: SiteSight, answer: Answer, key: Ed25519PrivateKey, arguments: Arguments, at: datetime) -> Envelope:
    """What the hub may hear of an answer to question 1, 2 or 7: the names of snapshots.

    Raises:
        BractError: `malformed` for another question.
    """
    number: Literal[1, 2, 7]
    match answer.number:
        case 1 | 2 | 7 as number:
            pass
        case _:
            raise BractError(MALFORMED, "the hub expands questions 1, 2 and 7 alone")
    when = Moment(answer.valid_at, answer.known_at)
    value = SnapshotAnswer(
        site=sight.site,
        question=number,
        snapshots=consents.differing_snapshots(sight, when, arguments, number),
        valid_at=answer.valid_at,
        known_at=answer.known_at,
        answered_at=at,
        log_size=answer.proof.size,
        log_root=answer.proof.root,
    )
    return sign(value, key)


def answered_here() -> tuple[int, ...]:
    """The numbers of the questions that a site answers."""
    return tuple(number for number in QUESTIONS if number in ANSWERS)
