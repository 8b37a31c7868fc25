"""Who must keep or delete what, since when and for how long; and who forbade deletion meanwhile."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from bract.errors import MALFORMED, SAME_PERSON, BractError
from bract.plan import Name
from bract.retention.period import Period, PeriodText
from bract.value import strict

Person = Annotated[str, Field(min_length=1, max_length=100)]
"""A named person of the organisation; never a data subject."""

Words = Annotated[str, Field(min_length=1, max_length=500)]


class ObjectKind(StrEnum):
    """What can be kept too long. Most legal floors are on documents about data, not on the data: kinds keep them apart."""

    RECORD = "record"
    CACHE = "cache"
    EMBEDDING = "embedding"
    ARRAYS = "arrays"
    UPDATE = "update"
    CHECKPOINT = "checkpoint"
    SERVER_STATE = "server-state"
    EXPORT = "export"
    SCRATCH = "scratch"
    FLOWER_STATE = "flower-state"
    LOG = "log"
    DOCUMENT = "document"
    LEFTOVER = "leftover"


ABSENT = frozenset({ObjectKind.CACHE, ObjectKind.EMBEDDING})
"""Kinds that this version never stores: a policy on one is kept and finds nothing."""


class Trigger(StrEnum):
    """What starts a period."""

    COLLECTION = "collection"
    STUDY_END = "study-end"
    LAST_USE = "last-use"
    WITHDRAWAL = "withdrawal"
    RELEASE = "release"
    MARKET_PLACEMENT = "market-placement"


CERTAIN = frozenset({Trigger.COLLECTION, Trigger.STUDY_END, Trigger.LAST_USE})
"""Triggers that come sooner or later: a floor counted from one binds already while it is awaited. The others may never
come, and bind once they did."""


class Action(StrEnum):
    """What is due at a ceiling. This version deletes by itself; the others are for a person to do."""

    DELETE = "delete"
    ANONYMISE = "anonymise"
    ARCHIVE = "archive"
    REVIEW = "review"


@strict
@dataclass(frozen=True)
class RetentionRule:
    """A ceiling in days counted from collection; None keeps without end. A data set's shorthand for a policy."""

    ceiling_days: int | None = None

    def ends(self, collected_at: datetime) -> datetime | None:
        """When a record collected then may no longer be used."""
        return None if self.ceiling_days is None else collected_at + timedelta(days=self.ceiling_days)

    def over(self, collected_at: datetime, at: datetime) -> bool:
        """Whether the record's time is over."""
        end = self.ends(collected_at)
        return end is not None and end <= at

    def policy(self, dataset: str) -> "RetentionPolicy | None":
        """The same as a policy on the data set's records, None without a ceiling."""
        if self.ceiling_days is None:
            return None
        return RetentionPolicy(
            name=dataset,
            version=1,
            applies_to=ObjectKind.RECORD,
            legal_basis="the data set's own retention",
            trigger=Trigger.COLLECTION,
            floor=None,
            ceiling=Period(0, self.ceiling_days),
            action=Action.DELETE,
            approved_by="steward",
        )


@strict
@dataclass(frozen=True)
class RetentionPolicy:
    """A floor, a ceiling or both, on objects of one kind.

    Attributes:
        name: of the policy; versions of it replace each other.
        version: from 1 on.
        applies_to: the kind of objects.
        legal_basis: why, in words or by article.
        trigger: what the periods are counted from.
        floor: how long it must be kept; None does not ask for that.
        ceiling: how long it may be kept; None has no end.
        action: what is due at the ceiling.
        approved_by: who approved this version.
    """

    name: Name
    version: Annotated[int, Field(ge=1)]
    applies_to: ObjectKind
    legal_basis: Words
    trigger: Trigger
    floor: PeriodText | None
    ceiling: PeriodText | None
    action: Action
    approved_by: Person


def check_policy(policy: RetentionPolicy) -> None:
    """That a policy says something, and does not contradict itself.

    Raises:
        BractError: `malformed`.
    """
    if policy.floor is None and policy.ceiling is None:
        raise BractError(MALFORMED, "policy: give a floor, a ceiling or both")
    if policy.floor is not None and policy.ceiling is not None and policy.floor.least_days > policy.ceiling.most_days:
        raise BractError(MALFORMED, "policy: its floor is above its ceiling")


@strict
@dataclass(frozen=True)
class Selector:
    """What a hold is about: what all the given parts match; an empty part matches everything.

    Attributes:
        kinds: kinds of objects.
        scopes: data sets or campaigns.
        objects: single objects: a record's number, a file's digest or name.
        subjects: numbers of subjects at a site; they stay there.
    """

    kinds: tuple[ObjectKind, ...] = ()
    scopes: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    subjects: tuple[int, ...] = ()


@strict
@dataclass(frozen=True)
class LegalHold:
    """Nothing that it selects is deleted while it is in force. It does not let anybody use what is over its time.

    Attributes:
        name: of the hold, given once.
        selector: what it is about.
        matter: the proceeding or inquiry, in words that name no person.
        placed_by: who placed it.
        approved_by: who approved it: somebody else.
        from_at: since when.
        to_at: until when; None until it is lifted.
    """

    name: Name
    selector: Selector
    matter: Words
    placed_by: Person
    approved_by: Person
    from_at: datetime
    to_at: datetime | None = None

    def in_force(self, at: datetime) -> bool:
        """Whether it holds then."""
        return self.from_at <= at and (self.to_at is None or at < self.to_at)


def check_hold(hold: LegalHold) -> None:
    """That two persons stand for a hold, and that it ends after it begins.

    Raises:
        BractError: `same-person`; `malformed`.
    """
    check_two(hold.placed_by, hold.approved_by)
    if hold.to_at is not None and hold.to_at <= hold.from_at:
        raise BractError(MALFORMED, "hold: it ends after it begins")


def check_two(one: str, other: str) -> None:
    """That two names are of two persons, however they are written.

    Raises:
        BractError: `same-person`.
    """
    if _folded(one) == _folded(other):
        raise BractError(SAME_PERSON, "another person approves")


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
