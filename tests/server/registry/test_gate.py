"""Whatever sites say, in any order, a round opens exactly for those whose clearance and reservation hold then."""

import tempfile
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import text

from bract.database import open_engine
from bract.errors import DISK, BractError
from bract.plan import Place
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.migrated import migrated
from tests.server.registry.world import AT, SITES, World, campaign_plan, named

SITE = st.sampled_from(SITES)
UNGATED = """
    SELECT count(*) FROM participant p
    LEFT JOIN clearance c ON c.id = p.clearance_id AND c.round_id = p.round_id AND c.site = p.site
    LEFT JOIN reservation r ON r.id = p.reservation_id AND r.round_id = p.round_id AND r.site = p.site
    WHERE c.id IS NULL OR r.id IS NULL
"""


class Gate(RuleBasedStateMachine):
    """The model keeps, of the present round, what each site gave and until when it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        engine = open_engine(f"sqlite:///{self.folder.name}/registry.db")
        migrated(engine, MIGRATIONS)
        self.world = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
        for site in SITES:
            self.world.enrol(site)
        self.campaign = self.world.start(campaign_plan())
        self.now, self.notices = AT, 0
        self.noticed: dict[str, datetime] = {}
        self.propose()

    def propose(self) -> None:
        self.number = self.world.registry.propose(self.campaign, self.now).number
        self.cleared: dict[str, Place] = {}
        self.places: dict[str, Place] = {}
        self.until: dict[str, list[float]] = {site: [] for site in SITES}
        self.refused, self.out = set[str](), set[str]()
        self.opened = False

    def _minutes(self) -> float:
        return (self.now - AT) / timedelta(minutes=1)

    @precondition(lambda self: not self.opened)
    @rule(site=SITE, kind=st.sampled_from(["clear", "reserve"]), minutes=st.integers(1, 8))
    def give(self, site: str, kind: str, minutes: int) -> None:
        make = self.world.clearance if kind == "clear" else self.world.reservation
        made = {"issued_at" if kind == "clear" else "reserved_at": self.now}
        envelope = make(site, self.campaign, self.number, expires_at=self.now + timedelta(minutes=minutes), **made)
        known = self.cleared if kind == "clear" else self.places
        deliver = self.world.registry.clear if kind == "clear" else self.world.registry.reserve
        given = known.get(site)
        if given and (given.clearance if kind == "clear" else given.reservation) == envelope.name:
            deliver(site, envelope, self.now)
            return
        if given or site in self.refused or (kind == "clear" and self.noticed.get(site) == self.now):
            with pytest.raises(BractError):
                deliver(site, envelope, self.now)
            return
        deliver(site, envelope, self.now)
        known[site] = Place(site, envelope.name, envelope.name)
        self.until[site].append(self._minutes() + minutes)

    @precondition(lambda self: not self.opened)
    @rule(site=SITE, first=st.integers(1, 8), second=st.integers(1, 8))
    def give_both(self, site: str, first: int, second: int) -> None:
        self.give(site, "clear", first)
        self.give(site, "reserve", second)

    @precondition(lambda self: not self.opened)
    @rule(site=SITE)
    def refuse(self, site: str) -> None:
        self.world.registry.refuse(site, self.world.refusal(site, self.campaign, self.number, DISK), self.now)
        self.refused.add(site)
        self.out.add(site)

    @rule(site=SITE)
    def withdraw(self, site: str) -> None:
        self.notices += 1
        notice = self.world.notice(site, named(f"snapshot {site}"), notice=f"n-{self.notices}", at=self.now)
        self.noticed[site] = self.now
        self.world.registry.withdraw(site, notice, self.now)
        if site in self.cleared:
            self.out.add(site)

    @rule(minutes=st.integers(1, 4))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @precondition(lambda self: not self.opened)
    @rule(sites=st.lists(SITE, min_size=2, max_size=3, unique=True))
    def open(self, sites: list[str]) -> None:
        nothing = named("nothing")
        cohort = tuple(
            Place(
                site,
                self.cleared[site].clearance if site in self.cleared else nothing,
                self.places[site].reservation if site in self.places else nothing,
            )
            for site in sites
        )
        plan = self.world.round_plan(self.campaign, self.number, cohort)
        plan = type(plan)(**{**vars(plan), "deadline": self.now + timedelta(hours=1)})
        if set(sites) <= self.holding():
            self.world.registry.open_round(plan, self.now)
            self.opened = True
        else:
            with pytest.raises(BractError):
                self.world.registry.open_round(plan, self.now)

    def holding(self) -> set[str]:
        """The sites whose two answers hold now."""
        both = set(self.cleared) & set(self.places)
        return {site for site in both - self.out if min(self.until[site]) > self._minutes()}

    @precondition(lambda self: self.opened or len(self.out) > 1 or len(self.cleared) > 2)
    @rule()
    def abort(self) -> None:
        self.world.registry.abort_round(self.campaign, self.number, {}, self.now)
        self.propose()

    @invariant()
    def answers_are_the_models(self) -> None:
        answers = self.world.registry.answers(self.campaign, self.number, self.now)
        assert {place.site for place in answers.places} == self.holding()

    @invariant()
    def nobody_is_past_the_gate(self) -> None:
        with self.world.engine.connect() as connection:
            assert connection.scalar(text(UNGATED)) == 0

    def teardown(self) -> None:
        assert self.world.registry.verify_log().verified
        self.world.engine.dispose()
        self.folder.cleanup()


TestGate = pytest.mark.slow(Gate.TestCase)
TestGate.settings = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
