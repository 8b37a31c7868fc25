"""The verbs of a site's registry, each killed at its statements. Usage: see `tests.killing.main`."""

import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import make_url

from bract.consent import Decision
from bract.digest import digest
from bract.errors import DONE_BEFORE
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, sign
from bract.update import Contribution
from bract.value import digest_value
from bract_client.registry.models import Base
from bract_client.registry.snapshots import Snapshot
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import (
    HOUR,
    KEY,
    PRETRAINING,
    SIGNING,
    T0,
    add_table,
    campaign,
    open_registry,
    persons,
    write_table,
)
from tests.killing import Stage, Step, main

PLAN = campaign()
CAMPAIGN = digest_value(PLAN)
DAY = timedelta(days=1)
M = Mechanism(2.0, 0.1, 20)
LINES = "subject_id,purpose,decision,valid_from,valid_to\n" + "".join(
    f"P-{n},ssl-pretraining,{'deny' if n % 2 else 'permit'},2026-03-01T00:30:00Z,\n" for n in range(6)
)


class Files:
    """Where the table and the decisions lie: beside the script's first database."""

    folder = Path()


def prepare(url: str) -> None:
    if make_url(url).get_backend_name() == "sqlite":
        Files.folder = Path(str(make_url(url).database)).parent
    table = write_table(Files.folder / "t.parquet", persons(12))
    (Files.folder / "c.csv").write_text(LINES)
    engine, registry = open_registry(url)
    add_table(registry, table)
    engine.dispose()


def snapshot(registry: SiteRegistry) -> Snapshot:
    return registry.freeze("adult", PRETRAINING, T0 + HOUR)


def reserve(registry: SiteRegistry, number: int) -> Envelope:
    return registry.reserve(CAMPAIGN, number, "adult", M, T0 + HOUR, 5 * HOUR)


def contribution(registry: SiteRegistry) -> Envelope:
    spent = Mechanism(2.0, 0.1, 7)
    value = Contribution("ward", digest(b"p"), digest(b"c"), reserve(registry, 1).name, spent, digest(b"u"), 10)
    return sign(value, SIGNING)


STORY: list[Step[SiteRegistry]] = [
    Step("ingest", lambda r: partial(r.ingest, "adult", T0)),
    Step("import_consent", lambda r: partial(r.import_consent, Files.folder / "c.csv", T0 + HOUR / 2)),
    Step("freeze", lambda r: partial(snapshot, r)),
    Step("clearance", lambda r: partial(r.clearance, PLAN, 1, snapshot(r), DAY, 1, T0 + HOUR)),
    Step("reserve", lambda r: partial(reserve, r, 1)),
    Step("begin", lambda r: partial(r.begin_training, CAMPAIGN, 1, T0 + HOUR), DONE_BEFORE),
    Step("keep_contribution", lambda r: partial(r.keep_contribution, CAMPAIGN, 1, contribution(r), T0 + HOUR)),
    Step("reserve another", lambda r: partial(reserve, r, 2), killed=False),
    Step("relinquish", lambda r: partial(r.relinquish, CAMPAIGN, 2, T0 + HOUR)),
    Step("reserve a third", lambda r: partial(reserve, r, 3), killed=False),
    Step("expire", lambda r: partial(r.expire_reservations, T0 + 9 * HOUR)),
    Step("decide", lambda r: partial(r.decide, "P-2", PRETRAINING, Decision.OBJECT, T0 + 9 * HOUR)),
    Step("withdraw", lambda r: partial(r.withdraw, "P-4", T0 + 9 * HOUR)),
]


def check(registry: SiteRegistry) -> None:
    registry.check()
    registry.verify_log()


STAGE = Stage(lambda engine: SiteRegistry(engine, KEY, SIGNING, "ward"), check, Base.metadata)

if __name__ == "__main__":
    main(STAGE, prepare, STORY, sys.argv[1:])
