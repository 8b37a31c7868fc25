"""Processes that race for a site's last budget. Usage: see `tests.racing.main`; WHICH is `sound` or `broken`."""

import sys
from collections.abc import Callable

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from bract.database import reading
from bract.digest import digest
from bract.privacy.accounting import rdp_curve
from bract.privacy.budget import charge
from bract.privacy.spec import Mechanism
from bract.value import plain
from bract_client.registry.models import PrivacyAccount, ReservationRow
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import HOUR, KEY, SIGNING, T0
from tests.racing import main

C, BIG, CAP, DELTA = digest(b"campaign"), Mechanism(2.0, 0.1, 60), 4.0, 1e-6


def sound(engine: Engine, number: int, _: Callable[[], object]) -> None:
    SiteRegistry(engine, KEY, SIGNING, "ward").reserve(C, number, "adult", BIG, T0, HOUR)


def broken(engine: Engine, number: int, meet: Callable[[], object]) -> None:
    """A ledger that looks before it locks: everybody sees the same budget."""
    account = PrivacyAccount
    with Session(reading(engine)) as session:
        curve = session.scalars(select(account.curve).where(account.dataset == "adult")).one()
    total = charge(tuple(curve), BIG, CAP, DELTA)
    meet()
    with Session(engine) as session, session.begin():
        session.execute(update(account).where(account.dataset == "adult").values(curve=list(total)))
        values = {"campaign": C, "number": number, "name": digest(b"%d" % number), "dataset": "adult"}
        values |= {"mechanism": plain(BIG), "curve": list(rdp_curve(BIG)), "envelope": b"", "state": "reserved"}
        session.execute(insert(ReservationRow), {**values, "expires_at": T0 + HOUR})


if __name__ == "__main__":
    main({"sound": sound, "broken": broken}, sys.argv[1:])
