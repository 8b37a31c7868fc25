"""What every verb of the registry shares: one transaction, the log's lock, and the entry in the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from bract.consent import REFUSALS, Decision, Purpose, UseContext
from bract.database import reading
from bract.digest import Digest
from bract.log import book
from bract.vocabulary.purposes import uses
from bract_client.registry import decisions, leavers, notices, upkeep
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import LOG, SnapshotRow


class Desk:
    """A registry's database and keys, and what the site knows of the use that data are put to."""

    def __init__(
        self,
        engine: Engine,
        subject_key: bytes,
        signing_key: Ed25519PrivateKey,
        site: str,
        use: UseContext = UseContext(),  # noqa: B008 - a frozen value
    ) -> None:
        self._engine = engine
        self._reader = reading(engine)
        self._keys = SiteKeys(site, subject_key, signing_key)
        self._use = use

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
        body = {"first": recorded.first, "last": recorded.last, "rows": recorded.digest, "form": decisions.FORM}
        self._log(session, upkeep.RECORDED, recorded.events[0].source, body, at)
        if session.scalar(select(SnapshotRow.root).limit(1)) is None:
            return ()
        roots = leavers.leaving(session, _left(session, recorded))
        notices.queue(session, roots, at)
        return tuple(sorted(roots))


def _left(session: Session, recorded: decisions.Recorded) -> dict[tuple[int, str | None, bool], set[Purpose]]:
    """(subject, data set, only where it was held wrongly) to the uses that new decisions end for it.

    Whoever refuses leaves every snapshot. An end or a correction that comes late leaves only those that should not have
    held the subject, by what is known now.
    """
    left: dict[tuple[int, str | None, bool], set[Purpose]] = {}
    for new in recorded.events:
        event = new.event
        if event.decision in REFUSALS:
            left.setdefault((new.subject_no, event.dataset, False), set()).update(uses(event.purpose))
        if event.decision is Decision.EXPIRE:
            left.setdefault((new.subject_no, event.dataset, True), set()).update(uses(event.purpose))
        if event.supersedes is not None and (before := decisions.event(session, event.supersedes)) is not None:
            said = before[1].event
            left.setdefault((new.subject_no, said.dataset, True), set()).update(uses(said.purpose))
    return left
