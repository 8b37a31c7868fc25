"""How far a campaign's first round is, read from what stands on disk: the hub's registry, the victim's, the hub's arrays."""

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from bract.database import open_engine, reading
from bract.digest import Digest
from bract.errors import BractError
from bract.signing import parse_envelope
from bract.update import Contribution
from bract.value import decode
from bract_client.registry import models as site
from bract_server.hub import open_store
from bract_server.registry import models as hub
from tests.faults.processes import NAMES, World
from tests.faults.scenario import VICTIM, Phase


class Watch:
    """Reads, and never writes; a database that is away is one that tells nothing new."""

    def __init__(self, world: World) -> None:
        self._hub = open_engine(world.hub.database_url(), read_only=True)
        self._site = open_engine(world.sites[VICTIM].database_url(), read_only=True)
        self._store = open_store(world.hub)

    def close(self) -> None:
        self._hub.dispose()
        self._site.dispose()

    def reached(self, campaign: Digest, phase: Phase) -> bool:
        """Whether the campaign's first round has come so far."""
        try:
            if phase in (Phase.TRAINING, Phase.UPLOADED):
                with _session(self._site) as session:
                    return self._began(session, campaign) if phase is Phase.TRAINING else self._sent(session, campaign)
            with _session(self._hub) as session:
                return _at_hub(session, campaign, phase)
        except BractError:
            return False

    @staticmethod
    def _began(session: Session, campaign: Digest) -> bool:
        begun = select(site.ReservationRow.begun_at).where(
            site.ReservationRow.campaign == campaign, site.ReservationRow.number == 1
        )
        return session.scalar(begun) is not None

    def _sent(self, session: Session, campaign: Digest) -> bool:
        row = session.get(site.ContributionRow, (campaign, 1))
        if row is None:
            return False
        update = decode(Contribution, parse_envelope(row.envelope).payload).update
        return self._store.path(update).exists()


def _session(engine: Engine) -> Session:
    return Session(reading(engine))


def _at_hub(session: Session, campaign: Digest, phase: Phase) -> bool:
    row = session.execute(
        select(hub.RoundRow.id, hub.RoundRow.state).where(hub.RoundRow.campaign == campaign, hub.RoundRow.number == 1)
    ).first()
    if row is None or phase is Phase.PROPOSED:
        return row is not None
    if phase in (Phase.CLEARED, Phase.RESERVED):
        model = hub.ClearanceRow if phase is Phase.CLEARED else hub.ReservationRow
        wanted = select(func.count()).where(model.round_id == row.id, model.site == VICTIM)
        return session.scalar(wanted) == 1
    if phase is Phase.CLOSING:
        wanted = select(func.count()).where(hub.ContributionRow.round_id == row.id, hub.ContributionRow.accepted)
        return session.scalar(wanted) == len(NAMES)
    return bool(row.state != "planned" if phase is Phase.OPENED else row.state == "committed")
