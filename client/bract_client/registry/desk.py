"""What every verb of the registry shares: one transaction, the log's lock, and the entry in the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from bract.consent import Decision, Purpose
from bract.database import reading
from bract.digest import Digest
from bract.log import book
from bract_client.registry import decisions, notices, snapshots
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import LOG, SnapshotRow


class Desk:
    """A registry's database and keys."""

    def __init__(self, engine: Engine, subject_key: bytes, signing_key: Ed25519PrivateKey, site: str) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._keys = SiteKeys(site, subject_key, signing_key)

    @property
    def site(self) -> str:
        """The site's name."""
        return self._keys.site

    @contextmanager
    def _write(self) -> Iterator[Session]:
        """A transaction that no other writer overtakes; it is on disk when the block ends."""
        with Session(self._engine) as session, session.begin():
            book.hold(session, LOG)
            yield session

    @contextmanager
    def _read(self) -> Iterator[Session]:
        """A transaction that sees one state and changes nothing."""
        with Session(self._reader) as session:
            yield session

    def _log(self, session: Session, kind: str, about: str, body: dict[str, Any], at: datetime) -> None:
        book.append(session, LOG, kind=kind, actor=self._keys.site, about=about, body=body, at=at)

    def _decided(self, session: Session, recorded: decisions.Recorded, at: datetime) -> tuple[Digest, ...]:
        """Logs new decisions and queues a notice for the snapshots that someone left by them."""
        body = {"first": recorded.first, "last": recorded.last, "rows": recorded.digest}
        self._log(session, "consent.record", recorded.events[0].source, body, at)
        if session.scalar(select(SnapshotRow.root).limit(1)) is None:
            return ()
        left: dict[tuple[int, str | None], set[Purpose]] = {}
        for new in recorded.events:
            if new.event.decision is not Decision.PERMIT:
                left.setdefault((new.subject_no, new.event.dataset), set()).add(new.event.purpose)
        roots: set[Digest] = set()
        for (number, only), purposes in left.items():
            roots |= snapshots.holding(session, number, purposes, only)
        notices.queue(session, roots, at)
        return tuple(sorted(roots))
