"""One scenario tried on a running federation: let it happen, wait for the end, look at everything that was promised."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.database import open_engine, reading
from bract.digest import Digest
from bract.errors import DISK, BractError
from bract.plan import CampaignPlan
from bract.privacy.spec import PrivacySpec
from bract.secure.spec import SecureSpec
from bract.signing import verify_key
from bract_client.registry import models as site_models
from bract_server import campaigns
from bract_server.accounts import ABORTED
from bract_server.hub import open_store
from bract_server.reconcile import ONLY_HUB, OTHER_MECHANISM, differences, read_export
from bract_server.registry.views import Campaign, RoundReport
from tests.faults.network import FAIR, Weather
from tests.faults.processes import NAMES, World, eventually, now
from tests.faults.replay import Replay
from tests.faults.scenario import VICTIM, FullDisk, Kill, Line, Lock, Outcome, Phase, Process, Scenario
from tests.faults.watch import Watch
from tests.federation import small_plan

SEED = 11
STEPS = 40
ROUNDS = 2
_STARTS = 3
_STRIKES = 3
_POLL_S = 0.01
_ENDED = ("completed", "failed", "stopped")


@dataclass(frozen=True)
class Tried:
    """What came of a scenario.

    Attributes:
        hit: whether the phase was still the round's when the fault struck.
        recovered_s: from the fault to the next version that was committed.
        campaign_s: from the campaign's start to its end.
        redone: rounds that were opened and had to be given up.
        without: versions that lack the victim.
    """

    hit: bool
    recovered_s: float
    campaign_s: float
    redone: int
    without: int


def plan(name: str, outcome: Outcome, *, secure: bool = False) -> CampaignPlan:
    """Two rounds of a second's training. Where the victim must be in, the others wait for it; else they soon go on."""
    patient = outcome is Outcome.SAME
    return small_plan(
        name=name,
        privacy=PrivacySpec(clip=1.0, noise_multiplier=100.0, sampling_rate=0.1, steps=STEPS, delta=1e-6),
        rounds=ROUNDS,
        quorum=len(NAMES) - 1,
        deadline_s=150.0,
        grace_s=90.0 if patient else 6.0,
        seeded_test=SEED,
        secure=SecureSpec(threshold=len(NAMES) - 1, clip=50.0) if secure else None,
    )


class Bench:
    """A federation, what its unfaulted run ended in, and what is needed to judge the faulted ones."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.replay = Replay(world, folder)
        self._references = dict[bool, Digest]()
        self.reference(secure=False)

    def reference(self, *, secure: bool) -> Digest:
        """The model that the unfaulted run ends in."""
        if secure not in self._references:
            name = f"unfaulted-{'secure' if secure else 'plain'}"
            self.run(plan(name, Outcome.SAME, secure=secure))
            campaign = self.world.registry.campaign(name)
            reports = self._committed(campaign)
            assert [report.participants for report in reports] == [tuple(sorted(NAMES))] * ROUNDS
            self._references[secure] = self._final(campaign)
        return self._references[secure]

    def run(self, wanted: CampaignPlan) -> list[float]:
        """Run a campaign to its end; the seconds of each of its rounds."""
        campaign = self._begin(wanted)
        self._ended(campaign, 60.0 + 60.0 * wanted.rounds)
        return [report.seconds or 0.0 for report in self._committed(campaign)]

    def attempt(self, scenario: Scenario) -> Tried:
        """Try it, again where the fault struck too late; also such a try must hold.

        Raises:
            AssertionError: what was promised does not hold.
        """
        for number in range(_STRIKES):
            tried = self._attempt(scenario, f"{scenario}"[:50] + f"-{number}")
            if tried.hit:
                break
        return tried

    def _attempt(self, scenario: Scenario, name: str) -> Tried:
        world = self.world
        self._mend()
        self.reference(secure=scenario.secure)
        with self._stage(scenario):
            watch = Watch(world)
            try:
                campaign, started = self._arrived(watch, scenario, name)
                with self._fault(scenario):
                    struck = time.monotonic()
                    later = scenario.phase < Phase.BETWEEN and watch.reached(campaign.digest, Phase(scenario.phase + 1))
                    done = 1 if scenario.phase is Phase.BETWEEN else 0
                    self._until_committed(campaign, done + 1, 150)
                    recovered = time.monotonic() - struck
                self._ended(campaign, 150)
                seconds = time.monotonic() - started
            finally:
                watch.close()
        world.settle()
        self._check(campaign, scenario)
        if VICTIM not in self._committed(campaign)[-1].participants:
            self._is_back(name)
        reports = world.registry.rounds(campaign.digest)
        return Tried(
            not later,
            recovered,
            seconds,
            sum(report.state == "aborted" for report in reports),
            sum(VICTIM not in report.participants for report in self._committed(campaign)),
        )

    def _arrived(self, watch: Watch, scenario: Scenario, name: str) -> tuple[Campaign, float]:
        """A campaign whose first round has come to the phase; another one where the victim was too slow for its round."""
        for number in range(_STARTS):
            campaign = self._begin(plan(f"{name}-{number}", scenario.outcome, secure=scenario.secure))
            started = time.monotonic()
            until = started + 120
            while not watch.reached(campaign.digest, scenario.phase):
                assert time.monotonic() < until, f"{scenario.phase.name} was not reached"
                if self._state(campaign) in _ENDED:
                    break
                time.sleep(_POLL_S)
            else:
                return campaign, started
        raise AssertionError(f"{scenario.phase.name} was not reached in {_STARTS} campaigns")

    def _is_back(self, name: str) -> None:
        """The victim was too slow for the faulted campaign's last round: it is in the next campaign's first."""
        self.run(replace(plan(f"{name}-back", Outcome.SAME), rounds=1))
        (report,) = self._committed(self.world.registry.campaign(f"{name}-back"))
        assert VICTIM in report.participants, report

    # --- the campaign -------------------------------------------------------------------------------------------------

    def _begin(self, wanted: CampaignPlan) -> Campaign:
        world = self.world
        campaigns.create(world.registry, open_store(world.hub), wanted, now())
        with campaigns.operator(world.hub) as door:
            campaigns.start(world.registry, door, wanted.name, now())
        return world.registry.campaign(wanted.name)

    def _state(self, campaign: Campaign) -> str:
        with suppress(BractError):
            return self.world.registry.campaign(campaign.plan.name).state
        return "unknown"

    def _ended(self, campaign: Campaign, seconds: float) -> None:
        eventually(lambda: self._state(campaign) in _ENDED, seconds, f"{campaign.plan.name} ends")
        assert self._state(campaign) == "completed", self.world.registry.campaign(campaign.plan.name).reason

    def _committed(self, campaign: Campaign) -> list[RoundReport]:
        with suppress(BractError):
            return [one for one in self.world.registry.rounds(campaign.digest) if one.state == "committed"]
        return []

    def _until_committed(self, campaign: Campaign, count: int, seconds: float) -> None:
        eventually(
            lambda: len(self._committed(campaign)) >= count or self._state(campaign) in _ENDED,
            seconds,
            f"{count} versions of {campaign.plan.name}",
            every_s=0.05,
        )

    def _final(self, campaign: Campaign) -> Digest:
        return self.world.registry.latest_version(campaign.digest).value.arrays

    # --- the fault ----------------------------------------------------------------------------------------------------

    def _mend(self) -> None:
        """Start again whatever a failed attempt has left dead."""
        for name in ("hub", *NAMES):
            process = self.world.running.get(name)
            if process is None or process.poll() is not None:
                self.world.start(name)
        self.world.settle()
        eventually(lambda: self.world.online() == len(NAMES), 60, "every node is online", every_s=0.5)

    @contextmanager
    def _stage(self, scenario: Scenario) -> Iterator[None]:
        """A victim whose disk can be filled, where that is the fault."""
        if not isinstance(scenario.action, FullDisk) or scenario.action.whose == "hub":
            yield
            return
        self._again(self.world.on_small_disk)
        try:
            yield
        finally:
            self._again(self.world.start)

    def _again(self, start: Callable[[str], None]) -> None:
        self.world.stop(VICTIM)
        start(VICTIM)
        eventually(lambda: self.world.whole() and self.world.online() == len(NAMES), 60, "the victim is back")

    @contextmanager
    def _fault(self, scenario: Scenario) -> Iterator[None]:
        """Let it happen; it is over when its time is, and the rest of the test goes on beside it."""
        match scenario.action:
            case Kill() as action:
                self.world.kill(action.process)
                back = threading.Timer(action.back_s, self._back, [action.process])
            case Line() as action:
                self._weather(action.weather)
                back = threading.Timer(action.seconds, self._weather, [FAIR])
            case Lock() as action:
                back = threading.Timer(action.seconds, _locked(self._database(action.whose)))
            case FullDisk() as action:
                back = threading.Timer(action.seconds, self._filled() if action.whose == "site" else self._used_up())
        back.start()
        try:
            yield
        finally:
            back.join()

    def _weather(self, weather: Weather) -> None:
        for line in self.world.lines[VICTIM]:
            line.set(weather)

    def _back(self, process: Process) -> None:
        if process is Process.POSTGRES:
            self.world.postgres.start()
        elif process in (Process.HUB, Process.SITE):
            self.world.start("hub" if process is Process.HUB else VICTIM)

    def _database(self, whose: str) -> Path:
        return self.world.hub.registry_db if whose == "hub" else self.world.sites[VICTIM].registry_db

    def _filled(self) -> Callable[[], None]:
        """Fill the victim's outbox, as its own processes see it."""
        seen = self.world.processes(Process.EXECUTOR, VICTIM)[0].pid
        filler = Path(f"/proc/{seen}/root{self.world.sites[VICTIM].outbox}/filler")
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        assert os.statvfs(filler.parent).f_bavail < 16
        return lambda: filler.unlink(missing_ok=True)

    def _used_up(self) -> Callable[[], None]:
        """Use up the hub's quota of arrays with a file that takes no room; what gives it back, once something was refused."""
        hub, said = self.world.hub, f"refused: {DISK}"
        log, filler = hub.logs / "gateway.log", hub.arrays / f"{'0' * 64}.safetensors"
        before = log.read_text().count(said)
        with filler.open("wb") as file:
            file.truncate(hub.settings().array_quota_bytes)

        def give_back() -> None:
            try:
                eventually(lambda: log.read_text().count(said) > before, 60, "the hub refuses an update", every_s=0.02)
            finally:
                filler.unlink(missing_ok=True)

        return give_back

    # --- what was promised --------------------------------------------------------------------------------------------

    def _check(self, campaign: Campaign, scenario: Scenario) -> None:
        reports = self._committed(campaign)
        assert len(reports) == ROUNDS
        everybody = tuple(sorted(NAMES))
        if isinstance(scenario.action, FullDisk) and scenario.action.whose == "hub":
            given_up = [one for one in self.world.registry.rounds(campaign.digest) if one.state == "aborted"]
            assert given_up and all(DISK in one.missing.values() for one in given_up), given_up
        for report in reports:
            assert {*NAMES} - {VICTIM} <= {*report.participants}, "nobody else is left out"
        if scenario.outcome is Outcome.SAME:
            assert [report.participants for report in reports] == [everybody] * ROUNDS, reports
            assert self._final(campaign) == self.reference(secure=scenario.secure), (
                "the unfaulted run's model, bit for bit"
            )
        if not scenario.secure:  # what is rounded and added in a ring, the replay does not know
            assert self._final(campaign) == self.replay.final(campaign), (
                "the model is what its rounds' sites make of it"
            )
        self._ledgers(campaign)
        self.world.registry.verify_log()
        for site in self.world.opened.values():
            site.registry.verify_log()
            site.registry.check()

    def _ledgers(self, campaign: Campaign) -> None:
        """Who trained has spent, trained once, and the hub counts whatever it accepted."""
        accounts = self.world.registry.accounts()
        keys = {one.name: verify_key(one.verify_key) for one in self.world.registry.sites()}
        for name, site in self.world.opened.items():
            _spent_and_once(self.world.sites[name].database_url())
            export = b"".join(part.to_json() + b"\n" for part in site.registry.ledger_export(now()))
            found = differences(accounts, read_export(export, keys), now())
            assert not [one for one in found if one.kind in (ONLY_HUB, OTHER_MECHANISM)], found
        counted = {
            (account.site, charge.number)
            for account in accounts
            for charge in account.charges
            if charge.campaign == campaign.digest and charge.state != ABORTED
        }
        for report in self._committed(campaign):
            assert {(name, report.number) for name in report.participants} <= counted
        assert self.world.registry.understated() == ()


def _locked(path: Path) -> Callable[[], None]:
    """Take the write lock; what releases it."""
    holder = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")

    def release() -> None:
        holder.execute("ROLLBACK")
        holder.close()

    return release


def _spent_and_once(url: str) -> None:
    """Every round that began is charged, and the log has one beginning of each."""
    engine = open_engine(url, read_only=True)
    try:
        with Session(reading(engine)) as session:
            row = site_models.ReservationRow
            begun = session.execute(select(row.campaign, row.number, row.state).where(row.begun_at.is_not(None))).all()
            assert not [one for one in begun if one.state == "aborted"], "what was begun is never given back"
            told = select(func.count()).where(site_models.LOG.entry.c.kind == "training.begin")
            assert session.scalar(told) == len(begun), "nothing is trained twice"
    finally:
        engine.dispose()
