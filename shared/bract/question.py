"""The fifteen questions that an auditor asks, and the form of an answer. Pure: who answers, and from what, is each side's.

An answer says of which two times it speaks: `valid_at`, the time that is asked about, and `known_at`, what had been
recorded by then. It names the log's checkpoint and the entries that its rows come from, so that each can be proved.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.plan import Name
from bract.value import strict, utc


class Where(StrEnum):
    """Who can answer."""

    HUB = "hub"
    SITE = "site"
    BOTH = "both"


@dataclass(frozen=True)
class Question:
    """One of the fifteen.

    Attributes:
        definition: how the answer is computed.
        where: who can answer; of `both` each side answers for what it holds.
        about_persons: whether the site's answer comes from single persons' data, so that every reading is recorded.
    """

    number: int
    title: str
    definition: str
    where: Where
    about_persons: bool = False


def _all(*questions: Question) -> dict[int, Question]:
    return {question.number: question for question in questions}


QUESTIONS: dict[int, Question] = _all(
    Question(
        1,
        "Models that ever touched a person",
        "The site finds the snapshots that held a record of the person; the hub lists every model that descends from "
        "them along lineage.",
        Where.BOTH,
        about_persons=True,
    ),
    Question(
        2,
        "Consents in force when a round ran, as believed then and as known now",
        "The records of the round's snapshot are resolved by the consent rule twice: with what was recorded when it was "
        "frozen, and with all that is recorded now about the same moment.",
        Where.BOTH,
        about_persons=True,
    ),
    Question(
        3,
        "The log was not rewritten",
        "Every entry, body and checkpoint is recomputed; the tree of an earlier checkpoint's size must have its root.",
        Where.BOTH,
    ),
    Question(
        4,
        "What is due for deletion, and what blocks it",
        "Every object under a retention policy whose end is not after the asked time and that has no deletion receipt, "
        "with the holds and conflicts on it.",
        Where.BOTH,
    ),
    Question(
        5,
        "Privacy spent on each data set in each year",
        "ε by privacy loss distributions over every mechanism reserved in the year alone, and over all up to its end; "
        "a reservation counts as spent whatever came of it. Unit: subject; add or remove one.",
        Where.BOTH,
    ),
    Question(
        6,
        "Where a model comes from",
        "Every node from which the model can be reached along lineage, up to snapshots, with plans and approvals.",
        Where.HUB,
    ),
    Question(
        7,
        "Rounds whose data were lawful then and are not now",
        "Each round's snapshot is resolved again: at its own moment with what is known now (corrections), and at the "
        "asked time (withdrawn, refused or expired since).",
        Where.BOTH,
    ),
    Question(
        8,
        "Clearances refused or revoked",
        "Signed refusals by their code, and clearances that a withdrawal ended, counted by site, purpose and reason.",
        Where.HUB,
    ),
    Question(
        9,
        "Withdrawals that are not yet through",
        "Notices that took longer than the service level from the site's word to the hub, or that touch a model for "
        "which nobody has decided what to do; at a site, those that are still queued.",
        Where.BOTH,
    ),
    Question(
        10,
        "Approvals by the author, and gates that were overridden",
        "Each approval whose approver is also the author, and each release that passed a closed gate.",
        Where.HUB,
    ),
    Question(
        11,
        "Record of processing: data set by purpose, basis, recipients and period",
        "Each data set and purpose that was cleared or decided on, with its legal bases, who received what was learnt, "
        "and how long it is kept (GDPR article 30; GA4GH DUO terms of the purposes).",
        Where.BOTH,
    ),
    Question(
        12,
        "Evaluation sets that overlap training data",
        "Each evaluation's data set against the snapshots that its model descends from, with the check that tells.",
        Where.HUB,
    ),
    Question(
        13,
        "Contributions that are not what the plan says",
        "Each accepted contribution's σ, q and steps against the plan's, and its digest against those in the version.",
        Where.HUB,
    ),
    Question(
        14,
        "Who read data about persons, when and why",
        "The access log: one row for every reading, kept for good.",
        Where.BOTH,
    ),
    Question(
        15,
        "What the documents of each model still lack",
        "The fields that a model card, the EU AI Act's Annex IV and the training-content summary of its article 53 ask "
        "for, each with where the registry has it, or that it is missing.",
        Where.HUB,
    ),
)
"""By number."""


@strict
@dataclass(frozen=True)
class ProofReference:
    """Where the rows stand in the log.

    Attributes:
        size, root: of the newest checkpoint by `known_at`; 0 and None before there was one.
        entries: the numbers of the entries that the rows come from; each can be proved against the root.
    """

    origin: str
    size: int
    root: Digest | None
    entries: tuple[int, ...]


@strict
@dataclass(frozen=True)
class Answer:
    """What one side answers; `rows` have the fields of `columns`, and may have more."""

    number: int
    title: str
    answered_by: str
    valid_at: datetime
    known_at: datetime
    definition: str
    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    proof: ProofReference


@strict
@dataclass(frozen=True)
class SnapshotAnswer:
    """What a site says to the hub about question 1, 2 or 7: snapshots, and nothing of whom or how many.

    The hub expands it to models. `log_size` and `log_root` are of the site's log when it answered.
    """

    site: Name
    question: Literal[1, 2, 7]
    snapshots: tuple[Digest, ...]
    valid_at: datetime
    known_at: datetime
    answered_at: datetime
    log_size: Annotated[int, Field(ge=0)]
    log_root: Digest | None


@dataclass(frozen=True)
class Moment:
    """The two times of a question: about when, and by what was known when."""

    valid: datetime
    known: datetime


Cite = tuple[str, str]
"""A log entry by its kind and what it is about; the kind `*` is any."""


@dataclass(frozen=True)
class Draft:
    """An answer before it is proved. In rows, `entry` is a `Cite` and `entries` a list of them: `finish` puts numbers there."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def cites(self) -> set[Cite]:
        """Every entry that a row comes from."""
        found: set[Cite] = {row["entry"] for row in self.rows if row.get("entry") is not None}
        for row in self.rows:
            found.update(row.get("entries", ()))
        return found


def question(number: int) -> Question:
    """The question of that number.

    Raises:
        BractError: `malformed` when there is none.
    """
    if number not in QUESTIONS:
        raise BractError(MALFORMED, f"questions are numbered 1 to {len(QUESTIONS)}")
    return QUESTIONS[number]


def moment(valid: datetime | None, known: datetime | None, at: datetime) -> Moment:
    """The asked times; what is not named is now, and nothing can be known of the future.

    Raises:
        BractError: `malformed` for a `known` after `at`.
    """
    if known is not None and known > at:
        raise BractError(MALFORMED, "known: that time is still to come")
    return Moment(valid or at, known or at)


def finish(
    asked: Question, draft: Draft, answered_by: str, when: Moment, proof: ProofReference, found: Mapping[Cite, int]
) -> Answer:
    """The draft with its proof: `found` are the numbers of the cited entries, as far as the checkpoint covers them."""
    rows = []
    for row in draft.rows:
        told = dict(row)
        if "entry" in row:
            told["entry"] = found.get(row["entry"])
        if "entries" in row:
            told["entries"] = sorted({found[cite] for cite in row["entries"] if cite in found})
        rows.append(told)
    return Answer(
        asked.number,
        asked.title,
        answered_by,
        when.valid,
        when.known,
        asked.definition,
        draft.columns,
        tuple(rows),
        draft.notes,
        ProofReference(proof.origin, proof.size, proof.root, tuple(sorted(set(found.values())))),
    )


def stamp(at: datetime | None) -> str | None:
    """A time as rows have it: ISO 8601 in UTC."""
    return None if at is None else at.astimezone(UTC).isoformat()


def when(text: str) -> datetime:
    """A time as people type it: ISO 8601 with its zone, or a date, which is that day's first moment in UTC.

    Raises:
        BractError: `malformed`.
    """
    return utc(f"{text}T00:00:00+00:00" if len(text) == len("2026-11-22") else text)
