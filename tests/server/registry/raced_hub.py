"""Processes that race for a site's last budget at the hub. Usage: see `tests.racing.main`; WHICH is `sound` or `broken`."""

import sys
from collections.abc import Callable

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from bract.database import reading
from bract.digest import Digest
from bract.privacy.accounting import epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add, charge
from bract.signing import Envelope
from bract.value import digest_value
from bract_server.registry.models import AccountRow, EntryRow, ReservationRow
from tests.racing import main
from tests.server.registry.killed_hub_verbs import world
from tests.server.registry.world import AT, MECHANISM, World, campaign_plan

DELTA = 1e-5
FITS = 3


def cap() -> float:
    """What `FITS` such rounds cost, and no more."""
    total = NOTHING
    for _ in range(FITS):
        total = add(total, rdp_curve(MECHANISM))
    return epsilon_of_curve(total, DELTA)


def campaign(number: int) -> Digest:
    """A campaign for each racer, since a campaign has one round open at a time; all are of one data set."""
    return digest_value(campaign_plan(f"c{number}"))


def asked(made: World, number: int) -> Envelope:
    return made.reservation("alder", campaign(number), 1, epsilon=0.1, epsilon_cap=cap())


def sound(engine: Engine, number: int, _: Callable[[], object]) -> None:
    made = world(engine)
    made.registry.reserve("alder", asked(made, number), AT)


def broken(engine: Engine, number: int, meet: Callable[[], object]) -> None:
    """A ledger that looks before it locks: everybody sees the same account."""
    mine = (AccountRow.site == "alder", AccountRow.dataset == "adult")
    with Session(reading(engine)) as session:
        curve = session.scalars(select(AccountRow.curve).where(*mine)).one()
        row = session.scalars(select(EntryRow).limit(1)).one()
        taken = session.get_one(ReservationRow, row.reservation_id)
    total = charge(tuple(curve), MECHANISM, cap(), DELTA)
    meet()
    with Session(engine) as session, session.begin():
        session.execute(update(AccountRow).where(*mine).values(curve=list(total)))
        values = {
            column.name: getattr(taken, column.name)
            for column in ReservationRow.__table__.columns
            if column.name != "id"
        }
        session.execute(insert(ReservationRow), {**values, "round_id": number + 1, "digest": campaign(number)})


if __name__ == "__main__":
    main({"sound": sound, "broken": broken}, sys.argv[1:])
