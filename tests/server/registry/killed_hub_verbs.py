"""The verbs of the hub's registry, each killed at its statements. Usage: see `tests.killing.main`."""

import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from bract.database import open_engine
from bract.digest import Digest
from bract.errors import REPLAY, STATE
from bract.migrations import migrate
from bract.value import digest_value
from bract_server.registry import MIGRATIONS
from bract_server.registry.models import Base
from bract_server.registry.store import HubRegistry
from tests.killing import Stage, Step, main
from tests.server.registry.world import AT, SITES, World, campaign_plan, named

HOUR = timedelta(hours=1)
PLAN = campaign_plan()
C = digest_value(PLAN)


def key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


def world(engine: Engine) -> World:
    """The hub and its sites, each with the same key in every process."""
    return World(engine, HubRegistry(engine, key(9)), {site: key(place) for place, site in enumerate(SITES)})


def prepare(url: str) -> None:
    engine = open_engine(url)
    migrate(engine, MIGRATIONS)
    made = world(engine)
    for site in SITES:
        made.enrol(site)
    made.start(PLAN)
    engine.dispose()


def reservation(w: World, site: str, number: int) -> Digest:
    """The digest of what the site reserved, whatever became of it since."""
    return w.reservation(site, C, number).name


def opened(w: World) -> Digest:
    sealed = w.registry.round_plan(C, 1)
    assert sealed is not None
    return sealed.name


def places(w: World) -> Callable[[], object]:
    return partial(w.registry.open_round, w.round_plan(C, 1, w.registry.answers(C, 1, AT).places), AT)


def accept(w: World, site: str) -> Callable[[], object]:
    return partial(w.registry.accept, w.contribution(site, C, 1, opened(w)), site, AT)


def relinquish(w: World) -> Callable[[], object]:
    said = w.relinquishment("cedar", C, 2, reservation(w, "cedar", 2))
    return partial(w.registry.relinquish, "cedar", said, AT)


def answered(w: World) -> None:
    w.answer(C, 1, "birch")


def commit(w: World) -> Callable[[], object]:
    """The same version also when it is made again."""
    newest = w.registry.latest_version(C)
    version = newest.value if newest.value.number == 1 else w.version(C, 1)
    shares, state = dict.fromkeys(("alder", "birch"), 0.5), named("state")
    return partial(w.registry.commit_round, C, 1, version, state, shares, {}, 4000, AT)


def run_opened(w: World) -> None:
    """The first run, unless it is there."""
    if w.registry.newest_run(C) is None:
        w.registry.open_run(PLAN.name, None, failed=False, at=AT)


STORY: list[Step[World]] = [
    Step("open_run", lambda w: partial(run_opened, w)),
    Step("take_run", lambda w: partial(w.registry.take_run, PLAN.name, 1, "11", AT)),
    Step("propose", lambda w: partial(w.registry.propose, C, AT), STATE),
    Step("clear", lambda w: partial(w.registry.clear, "alder", w.clearance("alder", C, 1), AT)),
    Step("reserve", lambda w: partial(w.registry.reserve, "alder", w.reservation("alder", C, 1), AT)),
    Step("refuse", lambda w: partial(w.registry.refuse, "cedar", w.refusal("cedar", C, 1, STATE), AT)),
    Step("birch answers", lambda w: partial(answered, w), killed=False),
    Step("open_round", places, STATE),
    Step("accept", partial(accept, site="alder"), REPLAY),
    Step("birch sends", partial(accept, site="birch"), REPLAY, killed=False),
    Step("commit_round", commit, STATE),
    Step("withdraw", lambda w: partial(w.registry.withdraw, "alder", w.notice("alder", named("snapshot alder")), AT)),
    Step("propose again", lambda w: partial(w.registry.propose, C, AT), STATE, killed=False),
    Step(
        "cedar reserves", lambda w: partial(w.registry.reserve, "cedar", w.reservation("cedar", C, 2), AT), killed=False
    ),
    Step(
        "birch reserves", lambda w: partial(w.registry.reserve, "birch", w.reservation("birch", C, 2), AT), killed=False
    ),
    Step("relinquish", relinquish),
    Step("expire", lambda w: partial(w.registry.expire_reservations, AT + HOUR)),
    Step("abort_round", lambda w: partial(w.registry.abort_round, C, 2, {}, AT + HOUR), STATE),
]


def check(w: World) -> None:
    w.registry.verify_log()


STAGE = Stage(world, check, Base.metadata)

if __name__ == "__main__":
    main(STAGE, prepare, STORY, sys.argv[1:])
