"""The signed word that something was deleted: what of, how, by whom, under which policy, and what remains."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from bract.digest import Digest
from bract.log.checkpoint import root_digest
from bract.log.merkle import leaf_hash, root
from bract.plan import Name
from bract.retention.policy import ObjectKind, Person
from bract.value import strict


class Method(StrEnum):
    """How it was deleted.

    Overwriting is for disks that write in place. An SSD's wear levelling, a copy-on-write or journaling file system, a
    snapshot or a backup may still hold the old blocks; against who can read those, only encrypting the disk helps.
    """

    OVERWRITE = "overwrite-and-unlink"
    UNLINK = "unlink"
    BLANK = "overwrite-in-place"
    ERASE_ROWS = "erase-rows"
    ABSENT = "found-absent"


REMAINS: dict[str, str] = {
    "old-blocks": "on an SSD, a copy-on-write disk, in snapshots and backups: blocks from before the overwriting",
    "membership": "a record's number, times and keyed digest: other people's proofs and the hub's roots rest on them",
    "spend": "the privacy ledger: what was spent stays spent, whoever left",
    "consent": "what the subject decided, under a number without a name",
    "refusal": "the handle of a subject who refused, so that the refusal counts when its data come again",
    "handle": "the handle of a subject of whom other records or decisions are kept",
    "source": "the source's own files, which belong to whoever supplied them",
    "row-versions": "in PostgreSQL's files: old row versions until it is vacuumed, and its write-ahead log",
    "lineage": "digests, lineage and receipts of the model in the registry",
    "models": "what trained models learnt from it, within their (ε, δ)",
}
"""What a disposal leaves behind, and why, by the words that receipts use."""


@strict
@dataclass(frozen=True)
class DisposalReceipt:
    """Objects of one kind are gone; it was looked for afterwards.

    Counts stay where the objects were: roots are over salted or keyed digests, in the order of these.

    Attributes:
        by: the site or hub.
        ordered_by: a named person, or `schedule`.
        kind: of object.
        scope: the data set or campaign; empty when there is none or several.
        disposed: Merkle root over what was deleted.
        before: Merkle root over everything of this kind and scope before.
        after: the same afterwards.
        named: digests by which the objects were publicly known; empty where even their number is nobody's business.
        method: how.
        remains: keys of `REMAINS`.
        policies: digests of the policies that it fulfils.
        due_at: since when it was due.
        at: when it was looked for and not found.
    """

    by: Name
    ordered_by: Person
    kind: ObjectKind
    scope: str
    disposed: Digest
    before: Digest
    after: Digest
    named: tuple[Digest, ...]
    method: Method
    remains: tuple[str, ...]
    policies: Annotated[tuple[Digest, ...], Field(max_length=1000)]
    due_at: datetime
    at: datetime


def objects_root(salt: bytes, objects: Iterable[bytes]) -> Digest:
    """Merkle root (RFC 9162) over salted objects in the order of their leaves' hashes, which tells no number of them."""
    return root_digest(root(sorted(leaf_hash(salt + one) for one in objects)))


EPOCH = timedelta(days=1)
"""Deletions come in batches on a public grid, so that none tells when somebody left."""


def epoch(at: datetime, every: timedelta = EPOCH) -> int:
    """The number of the grid's interval in which a moment lies."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // every


def is_time(last: datetime | None, at: datetime, every: timedelta = EPOCH) -> bool:
    """Whether the job is to run: it has not yet since the grid's last point. A clock that went back changes nothing."""
    return last is None or epoch(at, every) > epoch(last, every)
