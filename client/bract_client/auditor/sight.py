"""The site's registry as an auditor sees it: read only."""

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.database import open_engine
from bract.digest import Digest
from bract.errors import MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.log.checkpoint import Checkpoint
from bract.log.citing import cited
from bract.privacy.spec import Mechanism
from bract.question import Cite, ProofReference
from bract.value import decode
from bract.vocabulary.modifiers import UseContext
from bract_client.home import SiteHome
from bract_client.registry.access import numbered
from bract_client.registry.models import LOG, ClearanceRow, ReservationRow, SnapshotRow
from bract_client.registry.questions import Part
from bract_client.registry.store import SiteRegistry

_DIGITS = 12


@dataclass(frozen=True)
class Arguments:
    """What a question may be narrowed by.

    Attributes:
        person: an identifier or a handle; never kept.
        campaign: the digest of a campaign's plan, or its beginning: a site knows campaigns by that alone.
        number: a round's.
        checkpoint: of the site's log, kept elsewhere.
        listed: name persons by their number, for the steward's eyes.
    """

    person: str | None = None
    campaign: str | None = None
    number: int | None = None
    checkpoint: Checkpoint | None = None
    listed: bool = False


@dataclass(frozen=True)
class ClearedRound:
    """A round that the site cleared; `begun_at` is None when it never trained."""

    campaign: Digest
    number: int
    clearance: Digest
    issued_at: datetime
    begun_at: datetime | None
    snapshot: SnapshotRow


class SiteSight(SiteRegistry):
    """Every read verb of the site's registry, over connections that cannot write."""

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key with which everything that the site signs verifies."""
        return self._keys.signing.public_key()

    @contextmanager
    def seeing(self) -> Iterator[Session]:
        """A transaction that sees one state."""
        with self._read() as session:
            yield session

    @property
    def use(self) -> UseContext:
        """What the site knows of the use that its data are put to."""
        return self._use

    def part(self, one: "ClearedRound", held: bool, mechanism: dict[str, Any] | None) -> Part:
        """A round's part in one person's spending."""
        snapshot = one.snapshot
        spent = None if mechanism is None else decode(Mechanism, mechanism)
        return Part(one.campaign, one.number, Digest(snapshot.root), held, snapshot.dataset, spent)

    def person(self, session: Session, person: str | None) -> int:
        """The number of a person, by identifier or handle.

        Raises:
            BractError: `malformed` when nobody is named; `unknown-subject`.
        """
        if person is None:
            raise BractError(MALFORMED, "name the person: an identifier or a handle")
        number = numbered(session, self._keys, person)
        if number is None:
            raise BractError(UNKNOWN_SUBJECT)
        return number

    def cleared_rounds(self, session: Session, arguments: Arguments, known: datetime) -> list[ClearedRound]:
        """The rounds that the site had cleared by then, oldest first; of several clearances of a round the last one."""
        row, kept, reserved = ClearanceRow, SnapshotRow, ReservationRow
        wanted = (
            select(row, kept, reserved.begun_at)
            .join(kept, kept.root == row.snapshot)
            .outerjoin(reserved, (reserved.campaign == row.campaign) & (reserved.number == row.number))
            .where(row.issued_at <= known)
            .order_by(row.issued_at, row.number)
        )
        if arguments.campaign is not None:
            begin = arguments.campaign.removeprefix("sha256:")
            if len(begin) < _DIGITS:
                raise BractError(MALFORMED, f"campaign: its plan's digest, {_DIGITS} digits or more")
            wanted = wanted.where(func.substr(row.campaign, 8, len(begin)) == begin)
        if arguments.number is not None:
            wanted = wanted.where(row.number == arguments.number)
        found: dict[tuple[str, int], ClearedRound] = {}
        for clearance, snapshot, begun_at in session.execute(wanted):
            begun = begun_at if begun_at is not None and begun_at <= known else None
            found[clearance.campaign, clearance.number] = ClearedRound(
                Digest(clearance.campaign),
                clearance.number,
                Digest(clearance.name),
                clearance.issued_at,
                begun,
                snapshot,
            )
        return list(found.values())


def open_sight(home: SiteHome) -> SiteSight:
    """What may be seen of a site. Its registry must be at the newest schema.

    Raises:
        BractError: `key-permissions`, `disk`, `unreachable`.
    """
    engine = open_engine(home.database_url(), read_only=True)
    return SiteSight(engine, home.subject_key(), home.signing_key(), home.settings().name)


def prove(sight: SiteSight, known: datetime, cites: Set[Cite]) -> tuple[ProofReference, dict[Cite, int]]:
    """Where these entries stand in the site's log (`bract.log.citing`)."""
    with sight.seeing() as session:
        return cited(session.connection(), LOG, sight.public_key, sight.site, known, cites)
