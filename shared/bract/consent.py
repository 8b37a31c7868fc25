"""Consent: purposes, decisions and the one rule that resolves them.

The rule (its digest is in every clearance):
    1. Only decisions whose `valid_from` is not after the asked time count.
    2. Per scope (one data set, or all of them) the decision with the latest `valid_from` counts; of several with the same
       time, a refusal beats a permit.
    3. A refusal in any scope wins.
    4. A permit counts until its `valid_to`.
    5. Silence is no.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bract.digest import digest


class Purpose(StrEnum):
    """What data may be used for. Local terms; GA4GH DUO and W3C DPV terms map onto them."""

    PRETRAINING = "ssl-pretraining"
    FINETUNING = "supervised-finetuning"
    DISTILLATION = "distillation"
    EVALUATION = "evaluation"


class Decision(StrEnum):
    """What a subject decided."""

    PERMIT = "permit"
    DENY = "deny"
    WITHDRAW = "withdraw"
    OBJECT = "object"


class Verdict(StrEnum):
    """Whether a record may be used, or why not."""

    ADMITTED = "admitted"
    NO_CONSENT = "no-consent"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    EXPIRED = "expired"
    RETENTION = "retention-over"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class ConsentEvent:
    """One decision of one subject about one purpose. `dataset` None means all of the site's data sets."""

    purpose: Purpose
    decision: Decision
    valid_from: datetime
    valid_to: datetime | None = None
    dataset: str | None = None


@dataclass(frozen=True)
class Resolution:
    """The verdict, and until when it stands if nobody decides anew (None: no end)."""

    verdict: Verdict
    until: datetime | None = None


_REFUSALS = {
    Decision.DENY: Verdict.DENIED,
    Decision.OBJECT: Verdict.DENIED,
    Decision.WITHDRAW: Verdict.WITHDRAWN,
}


def resolve(events: Iterable[ConsentEvent], purpose: Purpose, dataset: str, at: datetime) -> Resolution:
    """What one subject's decisions mean for one purpose and data set at one time (see the module's rule)."""
    latest: dict[str | None, ConsentEvent] = {}
    for event in events:
        if event.purpose is not purpose or event.dataset not in (None, dataset) or event.valid_from > at:
            continue
        before = latest.get(event.dataset)
        if before is None or _rank(event) >= _rank(before):
            latest[event.dataset] = event
    refusals = [_REFUSALS[e.decision] for e in latest.values() if e.decision in _REFUSALS]
    if refusals:
        return Resolution(Verdict.WITHDRAWN if Verdict.WITHDRAWN in refusals else Verdict.DENIED)
    if not latest:
        return Resolution(Verdict.NO_CONSENT)
    ends = [e.valid_to for e in latest.values()]
    if all(end is not None and end <= at for end in ends):
        return Resolution(Verdict.EXPIRED)
    live = [end for end in ends if end is None or end > at]
    return Resolution(Verdict.ADMITTED, None if None in live else max(end for end in live if end is not None))


def _rank(event: ConsentEvent) -> tuple[datetime, bool]:
    return event.valid_from, event.decision in _REFUSALS


RULE_DIGEST = digest((__doc__ or "").encode())
"""Names the rule as stated above; it changes when the statement does."""
