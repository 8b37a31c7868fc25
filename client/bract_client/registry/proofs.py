"""Proofs about a snapshot's members, made on demand from what the site knew when it was taken."""

from collections.abc import Iterable

from sqlalchemy.orm import Session

from bract.consent import Verdict
from bract.digest import Digest
from bract.errors import LOG, BractError
from bract.membership import Absence, Membership, SubjectMembership, Tree
from bract_client.registry import snapshots
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import Record

_IN = Verdict.ADMITTED.value


def prove(session: Session, keys: SiteKeys, snapshot: Digest, record_id: str) -> Membership | None:
    """The proof that a record is in a snapshot, None if it is not.

    Raises:
        BractError: `stale-clearance` when there is no such snapshot; `log-inconsistent` when the site's tables no longer
            give its root.
    """
    row = snapshots.row_of(session, snapshot)
    salt, mine = snapshots.salt_of(keys, row), list[bytes]()
    digests: list[bytes] = []
    for name, digest, verdict in snapshots.then(session, row, Record.record_id, Record.record_digest):
        if verdict == _IN:
            digests.append(digest)
            if name == record_id:
                mine.append(digest)
    if not mine:
        return None
    return _tree(snapshot, salt, digests).present(snapshots.leaves(salt, mine)[0])


def prove_subject(session: Session, keys: SiteKeys, snapshot: Digest, subject_no: int) -> SubjectMembership:
    """For every record that the data set then had of a subject, the proof that it is in the snapshot or that it is not.

    Raises:
        BractError: as `prove`.
    """
    row = snapshots.row_of(session, snapshot)
    salt = snapshots.salt_of(keys, row)
    digests: list[bytes] = []
    mine: list[bytes] = []
    for number, digest, verdict in snapshots.then(session, row, Record.subject_no, Record.record_digest):
        if verdict == _IN:
            digests.append(digest)
        if number == subject_no:
            mine.append(digest)
    tree = _tree(snapshot, salt, digests)
    present: list[Membership] = []
    absent: list[Absence] = []
    for leaf in snapshots.leaves(salt, mine):
        inside = tree.present(leaf)
        outside = tree.absent(leaf)
        present += [inside] if inside is not None else []
        absent += [outside] if outside is not None else []
    return SubjectMembership(snapshot, tuple(present), tuple(absent))


def _tree(snapshot: Digest, salt: bytes, digests: Iterable[bytes]) -> Tree:
    tree = Tree(snapshots.leaves(salt, digests))
    if tree.root != snapshot:
        raise BractError(LOG, "the site's tables no longer give the snapshot's root")
    return tree
