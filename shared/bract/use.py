"""What a consent still allows of the things that were made from the data. Pure.

The rule:
    1. Consent for a purpose covers that purpose, judging what it made, and use of it where the study itself takes place
       (`COVERED`). Nothing else is guessed: a further use counts only if the notice to the persons named it and the data
       set's terms declare it.
    2. A model that was trained on a person's records may itself be personal data [EDPB Opinion 28/2024], and a privacy
       bound is not anonymity. So fine-tuning or distilling an encoder is a further use of the data that are in it
       [GDPR art. 5(1)(b)], not of the encoder alone: it asks for a declared use.
    3. A modifier of the data takes uses away (`TAKES`), or goes along with everything made from them until a release
       says that it is honoured. An unknown modifier goes along too.
    4. Along lineage uses only narrow and modifiers only grow: what is made from several things allows what all of them
       allow. Averaging is no exception.
    5. Silence is no: what has no known source allows nothing.
    6. Terms of a data set can also forbid what its people consented to (`check_terms`); without terms their consents decide.
"""

from collections.abc import Iterable
from datetime import datetime

from bract.errors import OFF_PURPOSE, BractError
from bract.vocabulary.modifiers import TIME_LIMIT, Modifier, limit
from bract.vocabulary.purposes import Purpose

Uses = frozenset[Purpose]

EVERY: Uses = frozenset(Purpose)
NONE: Uses = frozenset()

_STUDY = frozenset({Purpose.EVALUATION, Purpose.RELEASE_INTERNAL})

COVERED: dict[str, Uses] = {
    Purpose.PRETRAINING: frozenset({Purpose.PRETRAINING}) | _STUDY,
    Purpose.FINETUNING: frozenset({Purpose.FINETUNING}) | _STUDY,
    Purpose.DISTILLATION: frozenset({Purpose.DISTILLATION}) | _STUDY,
    Purpose.EVALUATION: frozenset({Purpose.EVALUATION}),
}
"""Of each purpose that consent is asked for, the uses that it covers without a further word (rule 1)."""

NO_METHODS = "DUO:0000015"
NOT_FOR_PROFIT_NON_COMMERCIAL = "DUO:0000018"
NOT_FOR_PROFIT = "DUO:0000045"
NON_COMMERCIAL = "DUO:0000046"

TAKES: dict[str, Uses] = {
    # in DUO's words, no use for methods development research, such as software or algorithms
    NO_METHODS: frozenset({Purpose.PRETRAINING, Purpose.DISTILLATION}),
    # whoever publishes to anybody publishes to businesses too
    NOT_FOR_PROFIT_NON_COMMERCIAL: frozenset({Purpose.RELEASE_PUBLIC}),
    NOT_FOR_PROFIT: frozenset({Purpose.RELEASE_PUBLIC}),
    NON_COMMERCIAL: frozenset({Purpose.RELEASE_PUBLIC}),
}
"""Of DUO's modifiers [Lawson et al. 2021, Cell Genomics 1(2)], those that take uses away by themselves (rule 3)."""


def allowed(consented: Iterable[str], declared: Iterable[Purpose] = (), modifiers: Iterable[Modifier] = ()) -> Uses:
    """What a snapshot allows (rules 1 to 3).

    Args:
        consented: the purposes for which its site cleared it; without one, nothing is allowed.
        declared: further uses that the data set's terms declare.
        modifiers: of the data set.
    """
    purposes = set(consented)
    if not purposes:
        return NONE
    covered = NONE.union(*(COVERED.get(purpose, NONE) for purpose in purposes), declared)
    return without(covered, modifiers)


def check_terms(purpose: Purpose, modifiers: Iterable[Modifier], at: datetime) -> None:
    """That a data set's terms leave the purpose of a round now (rule 6).

    Args:
        purpose: the campaign's.
        modifiers: of the data set's terms.
        at: now; a time limit among them may be over.

    Raises:
        BractError: `off-purpose`, naming the modifiers that take it away.
    """
    conditions = tuple(modifiers)
    end = limit(conditions)
    over = {TIME_LIMIT} if end is not None and end <= at else set()
    taking = [shown(one) for one in conditions if one.code in over or purpose in TAKES.get(one.code, NONE)]
    if taking:
        raise BractError(OFF_PURPOSE, f"the data set's terms ({', '.join(taking)}) take {purpose} away")


def without(uses: Uses, modifiers: Iterable[Modifier]) -> Uses:
    """The uses that the modifiers leave (rule 3)."""
    return uses.difference(*(TAKES.get(modifier.code, NONE) for modifier in modifiers))


def shown(modifier: Modifier) -> str:
    """A modifier as one word: `DUO:0000022=CH,DE`."""
    return f"{modifier.code}={','.join(modifier.values)}" if modifier.values else modifier.code


def narrowed(parents: Iterable[Uses]) -> Uses:
    """What a thing made from these allows (rules 4 and 5)."""
    found = list(parents)
    return frozenset.intersection(*found) if found else NONE
