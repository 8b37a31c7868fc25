"""The proof that a log has an entry: the entry, its path to the root, and the log's word on that root. Pure."""

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bract.errors import LOG, BractError
from bract.log.checkpoint import Checkpoint
from bract.log.entry import LogEntry
from bract.log.merkle import verify_inclusion
from bract.signing import Envelope, unseal
from bract.value import plain


@dataclass(frozen=True)
class Proof:
    """What an auditor needs to be sure of one entry without trusting whoever shows it.

    Attributes:
        entry: its leaf is `entry.leaf`, its place in the tree `entry.seq - 1`.
        path: hashes from the leaf to the root (RFC 9162 §2.1.3.1), 32 bytes each.
        checkpoint: the log's signed `Checkpoint` of a tree that has the entry.
        note: the same as a C2SP note, with the cosignatures of that size.
    """

    entry: LogEntry
    path: tuple[bytes, ...]
    checkpoint: Envelope
    note: str

    def verify(self, key: Ed25519PublicKey) -> Checkpoint:
        """The checkpoint, once its signature and the path hold.

        Raises:
            BractError: `untrusted`; `log-inconsistent`.
        """
        point = unseal(Checkpoint, self.checkpoint, key)
        if self.entry.seq > point.size:
            raise BractError(LOG, "the checkpoint is older than the entry")
        root = bytes.fromhex(point.root.removeprefix("sha256:"))
        verify_inclusion(self.entry.leaf, self.entry.seq - 1, point.size, self.path, root)
        return point

    def to_plain(self) -> dict[str, Any]:
        """As JSON data: hashes in hexadecimal, the checkpoint as its envelope's text and as a note."""
        return {
            "entry": plain(self.entry),
            "path": [part.hex() for part in self.path],
            "checkpoint": self.checkpoint.to_json().decode(),
            "note": self.note,
        }
