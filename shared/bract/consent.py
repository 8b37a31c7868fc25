"""Consent: what people decided, and the one rule that resolves it.

The rule (its digest, over this text and the vocabulary, is in every clearance):
    1. An event that a later recorded event of the same subject supersedes does not count, once that one is known; nothing
       brings it back. A correction says nothing else.
    2. Only decisions whose `valid_from` is not after the asked time count, about the asked purpose or one that covers it,
       for the asked data set or for all of them.
    3. Per purpose and scope the permit or refusal with the latest `valid_from` stands; of several with the same time a
       refusal beats a permit, and a permit that was recorded later an earlier one.
    4. A standing refusal refuses, whatever the others say and under whatever conditions it was given.
    5. A standing permit lasts until its `valid_to`, a time limit among its conditions, or the first `expire` event of its
       purpose and scope that is not before it, whichever comes first.
    6. It counts only if all its conditions are known to hold for the use, and the use is known to be of the permit's kind.
    7. Silence is no.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

from bract.digest import Digest, canonical, digest
from bract.errors import MALFORMED, BractError
from bract.vocabulary.legal import legal_basis
from bract.vocabulary.modifiers import MODIFIERS, Modifier, UseContext, limit, modifier, satisfied
from bract.vocabulary.purposes import TERMS, Purpose, ancestors, closure, term

__all__ = [
    "REFUSALS",
    "RULE_DIGEST",
    "Capacity",
    "ConsentEvent",
    "Decision",
    "Evidence",
    "Modifier",
    "Purpose",
    "Resolution",
    "UseContext",
    "Verdict",
    "ends",
    "resolve",
    "sound",
    "uncorrected",
]

_NOTICE, _ACTOR = 128, 64


class Decision(StrEnum):
    """What an event says."""

    PERMIT = "permit"
    DENY = "deny"
    WITHDRAW = "withdraw"
    OBJECT = "object"
    EXPIRE = "expire"
    CORRECT = "correct"


class Verdict(StrEnum):
    """Whether a record may be used, or why not."""

    ADMITTED = "admitted"
    NO_CONSENT = "no-consent"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    CONDITION = "condition-unmet"
    RETENTION = "retention-over"
    UNREADABLE = "unreadable"


class Capacity(StrEnum):
    """In what capacity somebody decided."""

    SELF = "self"
    GUARDIAN = "guardian"
    PROXY = "proxy"


@dataclass(frozen=True)
class Evidence:
    """What shows that an event is so; None where that is not known. The rule does not read it.

    Attributes:
        legal_basis: a code of `bract.vocabulary.legal`.
        digest: of the signed form, letter or message.
        notice: reference of the notice or form that the person saw, at most 128 characters.
        capacity: in which the decision was made.
        actor: who recorded it at the site, at most 64 characters; never the subject.
    """

    legal_basis: str | None = None
    digest: Digest | None = None
    notice: str | None = None
    capacity: Capacity | None = None
    actor: str | None = None


@dataclass(frozen=True)
class ConsentEvent:
    """One statement about one subject's consent.

    Attributes:
        purpose: a code of `bract.vocabulary.purposes`; a `Purpose` is one.
        decision: what it says.
        valid_from: from when on.
        valid_to: until when a permit counts, None for no end.
        dataset: None means all of the site's data sets.
        modifiers: conditions of a permit.
        supersedes: number of an earlier event of the same subject that was recorded in error.
        evidence: what shows it.
    """

    purpose: str
    decision: Decision
    valid_from: datetime
    valid_to: datetime | None = None
    dataset: str | None = None
    modifiers: tuple[Modifier, ...] = ()
    supersedes: int | None = None
    evidence: Evidence = field(default=Evidence())


@dataclass(frozen=True)
class Resolution:
    """The verdict, and until when it stands if nobody decides anew (None: no end)."""

    verdict: Verdict
    until: datetime | None = None


REFUSALS = MappingProxyType(
    {
        Decision.DENY: Verdict.DENIED,
        Decision.OBJECT: Verdict.DENIED,
        Decision.WITHDRAW: Verdict.WITHDRAWN,
    }
)
"""The decisions that refuse, and how."""


def sound(event: ConsentEvent) -> None:
    """Returns if the event is well-formed by itself.

    Raises:
        BractError: `malformed` for a purpose, condition or legal basis that the vocabulary does not have; an event that ends
            before it begins; conditions on anything but a permit; a correction that names no event; evidence that is too
            long.
    """
    term(event.purpose)
    if event.valid_to is not None and event.valid_to <= event.valid_from:
        raise BractError(MALFORMED, "valid_to: a decision ends after it begins")
    for one in event.modifiers:
        if modifier(one.code, one.values) != one:
            raise BractError(MALFORMED, "modifiers: values are sorted and distinct")
    if event.modifiers and event.decision is not Decision.PERMIT:
        raise BractError(MALFORMED, "modifiers: only a permit has conditions")
    until = limit(event.modifiers)
    if until is not None and until <= event.valid_from:
        raise BractError(MALFORMED, "modifiers: the time limit is over before the permit begins")
    if event.decision is Decision.CORRECT and event.supersedes is None:
        raise BractError(MALFORMED, "supersedes: a correction names what it corrects")
    about = event.evidence
    if about.legal_basis is not None:
        legal_basis(about.legal_basis)
    if len(about.notice or "") > _NOTICE or len(about.actor or "") > _ACTOR:
        raise BractError(MALFORMED, "evidence: a notice or actor is too long")


def uncorrected(known: Iterable[tuple[int, ConsentEvent]]) -> tuple[ConsentEvent, ...]:
    """What is left of one subject's numbered events by point 1 of the rule, in their order."""
    numbered = tuple(known)
    superseded = {event.supersedes for _, event in numbered}
    return tuple(event for seq, event in numbered if seq not in superseded)


def ends(event: ConsentEvent) -> datetime | None:
    """When the event itself says that its permit ends, None for never."""
    return min((end for end in (event.valid_to, limit(event.modifiers)) if end is not None), default=None)


def resolve(
    events: Iterable[ConsentEvent],
    purpose: Purpose,
    dataset: str,
    at: datetime,
    use: UseContext = UseContext(),  # noqa: B008 - a frozen value
) -> Resolution:
    """What one subject's decisions mean for one use of one data set at one time (see the module's rule).

    Args:
        events: what counts of what is known (`uncorrected`), in the order in which it was recorded.
        purpose: what the data are to be used for.
        dataset: the data set.
        at: the asked time.
        use: what is known of the use.

    Raises:
        BractError: `malformed` for a condition that the vocabulary does not have.
    """
    wide = ancestors(purpose)
    about = [one for one in events if one.purpose in wide and one.dataset in (None, dataset)]
    standing: dict[tuple[str, str | None], ConsentEvent] = {}
    for event in about:
        if event.valid_from > at or event.decision in (Decision.EXPIRE, Decision.CORRECT):
            continue
        key = (str(event.purpose), event.dataset)
        before = standing.get(key)
        if before is None or _rank(event) >= _rank(before):
            standing[key] = event
    refusals = [REFUSALS[e.decision] for e in standing.values() if e.decision in REFUSALS]
    if refusals:
        return Resolution(Verdict.WITHDRAWN if Verdict.WITHDRAWN in refusals else Verdict.DENIED)
    if not standing:
        return Resolution(Verdict.NO_CONSENT)
    live = [(event, end) for event in standing.values() if (end := _end(event, about)) is None or end > at]
    if not live:
        return Resolution(Verdict.EXPIRED)
    good = [end for event, end in live if satisfied(event.purpose, event.modifiers, use)]
    if not good:
        return Resolution(Verdict.CONDITION)
    return Resolution(Verdict.ADMITTED, None if None in good else max(end for end in good if end is not None))


def _rank(event: ConsentEvent) -> tuple[datetime, bool]:
    return event.valid_from, event.decision in REFUSALS


def _end(permit: ConsentEvent, about: Iterable[ConsentEvent]) -> datetime | None:
    """Point 5 of the rule."""
    found = [
        one.valid_from
        for one in about
        if one.decision is Decision.EXPIRE
        and (one.purpose, one.dataset) == (permit.purpose, permit.dataset)
        and one.valid_from >= permit.valid_from
    ]
    own = ends(permit)
    return min((*found, *([] if own is None else [own])), default=None)


_SPOKEN = [
    [list(pair) for pair in closure()],
    [[one.code, one.stated] for one in TERMS],
    [[one.code, one.label] for one in MODIFIERS],
]
RULE_TEXT = (__doc__ or "").encode() + canonical(_SPOKEN)
RULE_DIGEST = digest(RULE_TEXT)
"""Names the rule as stated above and the vocabulary that it is about; it changes when either does."""
