"""One transaction a verb: what it changes and its log entries are kept together, under a checkpoint, or not at all.

Writers take the log's lock first, so that they run one after the other on both databases: what a verb has checked still
holds when it commits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from bract.database import reading
from bract.errors import LOG as LOG_CODE
from bract.errors import BractError
from bract.log import book
from bract.log.checkpoint import Checkpoint
from bract.signing import Envelope, sign
from bract_server.registry import evidence
from bract_server.registry.lease import Lease, check_lease
from bract_server.registry.models import LOG

HUB = "hub"
"""The actor of what the hub itself does."""


@dataclass(frozen=True)
class Unit:
    """A write transaction at a moment."""

    session: Session
    at: datetime
    key: Ed25519PrivateKey

    def log(self, kind: str, about: str, actor: str = HUB, **body: Any) -> None:
        """Tell what happened. The body is plain JSON data and names no person."""
        book.append(self.session, LOG, kind=kind, actor=actor, about=about, body=body, at=self.at)

    def sign(self, value: Any) -> Envelope:
        """The value under the hub's signature."""
        return sign(value, self.key)


class Store:
    """The registry's database and the hub's key.

    Args:
        engine: a database at the head of this package's migrations.
        key: signs campaigns, proposals, round plans, receipts and the log.
        origin: the hub's name in the log's checkpoints.
        lease: of the one run for whose process this is; without one, writes are not fenced.
    """

    def __init__(self, engine: Engine, key: Ed25519PrivateKey, origin: str = HUB, lease: Lease | None = None) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._key = key
        self._origin = origin
        self._lease = lease

    @property
    def verify_key(self) -> Ed25519PublicKey:
        """The key with which everything that the hub signs verifies."""
        return self._key.public_key()

    @contextmanager
    def writing(self, at: datetime) -> Iterator[Unit]:
        """A write transaction: committed at the end, rolled back by any error.

        Raises:
            BractError: `superseded` when this is a run's registry and another run was opened since.
        """
        with Session(self._engine) as session, session.begin():
            book.hold(session, LOG)
            if self._lease is not None:
                check_lease(session, self._lease)
            yield Unit(session, at, self._key)
            session.flush()
            book.checkpoint(session, LOG, self._key, self._origin, at)

    @contextmanager
    def seeing(self) -> Iterator[Session]:
        """A transaction that reads one state."""
        with Session(self._reader) as session:
            yield session

    def verify_log(self, known: Checkpoint | None = None) -> book.LogReport:
        """Recompute the whole log (`bract.log.book.verify`) and compare it with what the tables hold.

        Args:
            known: a checkpoint that was kept elsewhere.

        Raises:
            BractError: `log-inconsistent`, naming the first bad entry.
        """
        with self.seeing() as session:
            report = book.verify(session, LOG, self.verify_key, known)
            evidence.check(session)
        # Every write signs the log, so that an entry beyond the last signature was not made by the hub.
        if report.checkpoint_size != report.entries:
            raise BractError(LOG_CODE, f"log entry {report.checkpoint_size + 1} was never signed")
        return report
