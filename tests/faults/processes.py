"""A federation of real processes on loopback: a hub, three sites behind proxies, and who of them runs, by their folders."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from flwr.proto.control_pb2 import ListNodesRequest

from bract.errors import BractError
from bract.files import write_private
from bract.retention import RetentionRule
from bract.samples import adult_parts
from bract.supervisor import Program, end, environment, python, spawn
from bract_client import enrol as site_enrol
from bract_client import home as site_homes
from bract_client.home import SiteHome
from bract_client.policy import SitePolicy
from bract_client.settings import SiteSettings, settings_toml
from bract_client.site import Site, open_site
from bract_client.sources.location import TableLocation
from bract_server import campaigns
from bract_server import enrol as hub_enrol
from bract_server import home as hub_homes
from bract_server import settings as hub_settings
from bract_server.demo.stage import free_ports
from bract_server.home import HubHome
from bract_server.hub import open_registry, open_store
from bract_server.registry.store import HubRegistry
from tests.faults.network import Proxy
from tests.faults.scenario import VICTIM, Process
from tests.federation import Federation

NAMES = ("north", "south", VICTIM)
EPSILON_CAP = 1000.0
_DISK_KIB = 4096


def now() -> datetime:
    return datetime.now(UTC)


def eventually(holds: Callable[[], bool], seconds: float, what: str, every_s: float = 0.1) -> float:
    """Seconds until it held."""
    started = time.monotonic()
    while not holds():
        assert time.monotonic() < started + seconds, f"not within {seconds:g} s: {what}"
        time.sleep(every_s)
    return time.monotonic() - started


@dataclass
class World:
    """The folders, who was started by hand, and each site's two lines to the hub (Flower's and ours)."""

    folder: Path
    hub: HubHome
    registry: HubRegistry
    sites: dict[str, SiteHome] = field(default_factory=dict)
    opened: dict[str, Site] = field(default_factory=dict)
    lines: dict[str, tuple[Proxy, Proxy]] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    postgres: Any = None

    def home(self, name: str) -> Path:
        return self.hub.root if name == "hub" else self.sites[name].root

    def start(self, name: str, *before: str) -> None:
        """Start the hub or a site as its command would, `before` being what runs it."""
        module, verb = (Process.HUB, "hub") if name == "hub" else (Process.SITE, "run")
        words = (*before, *python(module, verb, str(self.home(name))))
        program = Program(name, words, environment(self.home(name)), self.folder / "logs" / f"{name}.log")
        self.running[name] = spawn(program)

    def on_small_disk(self, name: str) -> None:
        """Start a site whose outbox is a disk of its own, of 4 MiB."""
        outbox = self.sites[name].outbox
        script = f'mount -t tmpfs -o size={_DISK_KIB}k tmpfs "{outbox}" && exec "$@"'
        self.start(name, "unshare", "-rm", "sh", "-c", script, "sh")

    def stop(self, name: str) -> None:
        end([self.running.pop(name)], grace_s=10.0)

    def processes(self, process: Process, name: str) -> list[psutil.Process]:
        """Who runs this module for this folder now."""
        return [one for one, words in _commands() if self._runs(words, process, name)]

    def _runs(self, words: list[str], process: Process, name: str) -> bool:
        home = str(self.home(name))
        ours = any(word == home or word.startswith(f"{home}/") for word in words)
        return ours and process in words and "bract.leash" not in words

    def kill(self, process: Process) -> None:
        """SIGKILL to whoever is that process now: of the hub, or of the victim."""
        if process is Process.POSTGRES:
            self.postgres.kill()
            return
        name = "hub" if process.startswith("bract_server") else VICTIM
        found = self.processes(process, name)
        for one in found:
            one.kill()
        if process in (Process.HUB, Process.SITE):
            self.running.pop(name).wait()
        assert found, f"no {process} to kill"

    def crew(self) -> dict[str, int]:
        """How many of each process run now; of a ServerApp, there is one while a campaign runs."""
        at_hub = (Process.HUB, Process.GATEWAY, Process.COORDINATOR, Process.LAUNCHER, Process.SERVER_APP)
        at_sites = (Process.SITE, Process.SUPERNODE, Process.EXECUTOR, Process.TRAINER)
        places = [("hub", one) for one in at_hub] + [(name, one) for name in self.sites for one in at_sites]
        running = [words for _, words in _commands()]
        return {f"{name} {one.name}": sum(self._runs(w, one, name) for w in running) for name, one in places}

    def whole(self) -> bool:
        """Whether every process runs once, and no ServerApp does."""
        return all(count == (0 if name.endswith(Process.SERVER_APP.name) else 1) for name, count in self.crew().items())

    def settle(self, seconds: float = 60.0) -> None:
        """Wait until every process runs once."""
        until = time.monotonic() + seconds
        while not self.whole():
            assert time.monotonic() < until, self.crew()
            time.sleep(0.5)

    def online(self) -> int:
        """How many nodes Flower takes for reachable; 0 while it is away."""
        try:
            with campaigns.operator(self.hub) as door:
                listed = door._client.ListNodes(ListNodesRequest()).nodes_info
        except (BractError, httpx.HTTPError):
            return 0
        return sum(node.status == "online" for node in listed)


def _commands() -> list[tuple[psutil.Process, list[str]]]:
    """Every living process and its command."""
    found = []
    for one in psutil.process_iter():
        try:
            if one.status() != psutil.STATUS_ZOMBIE:
                found.append((one, one.cmdline()))
        except psutil.NoSuchProcess:
            continue
    return found


def _join(world: World, name: str, part: Any, runtime_port: int, truly: hub_settings.HubSettings) -> None:
    """Enrol a site at its own proxies, with data of made-up people that it keeps for seeded tests."""
    lines = (Proxy(truly.fleet_port), Proxy(truly.wire_port, seed=1))
    policy = SitePolicy(min_subjects=50, epsilon_cap=EPSILON_CAP, notice_interval_s=0.0, test_datasets=("adult",))
    settings = SiteSettings(name, subjects_floor=100, runtime_port=runtime_port, policy=policy)
    home = site_homes.create(world.folder / name, name=name, settings=settings)
    shown = replace(truly, fleet_port=lines[0].port, wire_port=lines[1].port)
    write_private(world.hub.settings_file, hub_settings.settings_toml(shown))
    bundle = hub_enrol.approve(world.hub, world.registry, site_enrol.request(home, now()), now())
    write_private(world.hub.settings_file, hub_settings.settings_toml(truly))
    site_enrol.install(home, bundle, world.hub.fingerprint(), now())
    write_private(home.settings_file, settings_toml(settings))
    site = open_site(home)
    Federation._records(home.root, part)
    site.registry.add_dataset(
        "adult",
        TableLocation("table", str(home.root / "records.parquet"), "adult"),
        retention=RetentionRule(None),
        subjects_floor=100,
        epsilon_cap=EPSILON_CAP,
        delta=1e-6,
        at=now(),
    )
    site.registry.ingest("adult", now())
    world.sites[name], world.opened[name], world.lines[name] = home, site, lines


@contextmanager
def federation(folder: Path, postgres: Any = None) -> Iterator[World]:
    """A running federation; at its end nothing that it started is left."""
    fleet, wire, *runtime = free_ports(2 + len(NAMES))
    hub = hub_homes.create(folder / "hub", name="hub", fleet_port=fleet, wire_port=wire, at=now())
    truly = replace(hub.settings(), database=postgres.url() if postgres else None)
    write_private(hub.settings_file, hub_settings.settings_toml(truly))
    world = World(folder, hub, open_registry(hub), postgres=postgres)
    for name, part, port in zip(NAMES, adult_parts(len(NAMES), 0).sites, runtime, strict=True):
        _join(world, name, part, port, truly)
    open_store(hub)
    try:
        for name in ("hub", *NAMES):
            world.start(name)
        eventually(lambda: world.online() == len(NAMES), 90, "every node is online", every_s=0.5)
        yield world
    finally:
        started = [*_tree(world.running.values())]
        for process in world.running.values():
            process.send_signal(signal.SIGINT)
        end(list(world.running.values()), grace_s=15.0)
        for lines in world.lines.values():
            for line in lines:
                line.close()
        world.registry._engine.dispose()
        _, alive = psutil.wait_procs(started, 10)
        assert [process.cmdline() for process in alive] == [], "nothing is left behind"


def _tree(started: Sequence[subprocess.Popen[bytes]] | Any) -> Iterator[psutil.Process]:
    for process in started:
        if process.poll() is None:
            yield from psutil.Process(process.pid).children(recursive=True)


def can_mount() -> bool:
    """Whether a process may have disks of its own here."""
    done = subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False)
    return done.returncode == 0 and sys.platform == "linux"
