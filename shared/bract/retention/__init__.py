"""Retention: how long things must and may be kept, and what is to happen with each (pure rules, no I/O)."""

from bract.retention.disposition import (
    Blocker,
    Disposition,
    Kept,
    Obstacle,
    State,
    Terms,
    Way,
    disposition,
    selects,
    terms_of,
)
from bract.retention.period import Period, parse_period
from bract.retention.policy import (
    Action,
    LegalHold,
    ObjectKind,
    RetentionPolicy,
    RetentionRule,
    Selector,
    Trigger,
    check_hold,
    check_policy,
    check_two,
)
from bract.retention.receipt import DisposalReceipt, Method

__all__ = [
    "Action",
    "Blocker",
    "DisposalReceipt",
    "Disposition",
    "Kept",
    "LegalHold",
    "Method",
    "ObjectKind",
    "Obstacle",
    "Period",
    "RetentionPolicy",
    "RetentionRule",
    "Selector",
    "State",
    "Terms",
    "Trigger",
    "Way",
    "check_hold",
    "check_policy",
    "check_two",
    "disposition",
    "parse_period",
    "selects",
    "terms_of",
]
