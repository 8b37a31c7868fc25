"""A federation in one process: real homes, keys, registries, arrays and training; only the wires are short.

Flower's grid is replaced by one that hands a message to the site's own code and keeps the answer; the site's gRPC client by
one that calls the registry and the array store directly. No sockets, no processes.
"""

import csv
import functools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from bract import flower
from bract.consent import Purpose
from bract.digest import Digest
from bract.encoders.spec import TableSpec
from bract.errors import BractError
from bract.objectives.spec import MaskedTableSpec
from bract.plan import CampaignPlan, LocalOptimizer, ServerOptimizer, SitePlan
from bract.privacy.spec import PrivacySpec
from bract.retention import RetentionRule
from bract.samples import adult_parts
from bract.signing import parse_envelope
from bract.value import decode
from bract_client import enrol as site_enrol
from bract_client import home as site_homes
from bract_client.executor import answer
from bract_client.home import SiteHome
from bract_client.settings import SiteSettings
from bract_client.site import Site, open_site
from bract_client.sources.location import TableLocation
from bract_client.trainer import train
from bract_server import campaigns
from bract_server import enrol as hub_enrol
from bract_server import home as hub_homes
from bract_server.home import HubHome
from bract_server.hub import open_registry, open_store
from bract_server.rounds import Hub, run_campaign

PERSONS = 240
_parts = functools.cache(adult_parts)
NAMES = ("north", "south", "coast")


def now() -> datetime:
    return datetime.now(UTC)


def small_plan(**changed: Any) -> CampaignPlan:
    """A campaign that takes a second: tiny encoder, few steps."""
    plan = CampaignPlan(
        name="small",
        purpose=Purpose.PRETRAINING,
        dataset="adult",
        encoder=TableSpec("table", "adult", dim=8, depth=1),
        objective=MaskedTableSpec("masked-table"),
        privacy=PrivacySpec(clip=1.0, noise_multiplier=1.0, sampling_rate=0.1, steps=2, delta=1e-6),
        sites=tuple(SitePlan(name, subjects_floor=100) for name in NAMES),
        rounds=2,
        quorum=2,
        deadline_s=30.0,
        grace_s=0.0,
        local=LocalOptimizer("adam", 1e-3),
        server=ServerOptimizer("fedadam", 0.01),
    )
    return replace(plan, **changed).check()


@dataclass
class ShortWire:
    """What a site's executor asks of its hub, without a network."""

    place: "Place"
    sent: list[Digest] = field(default_factory=list)

    def get(self, digest: Digest, size: int, path: Path) -> None:
        assert size
        self.place.hub_registry.may_get(self.place.name, digest, now())
        path.write_bytes(self.place.store.read(digest).read_bytes())

    def wanted(self, campaign: Digest, number: int) -> bool:
        wanted: bool = self.place.hub_registry.wanted(campaign, number)
        return wanted

    def put(self, path: Path, digest: Digest) -> None:
        size = path.stat().st_size
        self.place.hub_registry.may_put(self.place.name, digest, size, now())
        self.place.store.receive(digest, size, [path.read_bytes()])
        self.sent.append(digest)


class NearTrainer:
    """The training child's own function, called here."""

    def __init__(self, home: SiteHome) -> None:
        self._home = home

    def run(self, job: Mapping[str, str], _stopped: threading.Event, wanted: Callable[[], bool]) -> dict[str, object]:
        assert wanted()
        return train(self._home, job)


@dataclass
class NearTask:
    """A Flower task at a site."""

    payload: dict[str, bytes | str]
    bundle: bytes
    stopped: threading.Event = field(default_factory=threading.Event)


@dataclass
class Place:
    """One site of the federation."""

    name: str
    home: SiteHome
    site: Site
    hub_registry: Any
    store: Any
    up: bool = True
    bundle: bytes = field(default_factory=flower.bundle)
    tamper: Callable[[dict[str, bytes | str]], dict[str, bytes | str]] | None = None
    wire: ShortWire = field(init=False)

    def __post_init__(self) -> None:
        self.wire = ShortWire(self)

    def answer_proposals(self) -> None:
        """What the executor's second thread does once."""
        for sealed in self.hub_registry.proposals(self.name, now()):
            proposal, campaign = map(parse_envelope, sealed)
            try:
                answer = self.site.answer(proposal, campaign, now())
                self.hub_registry.clear(self.name, answer.clearance, now())
                self.hub_registry.reserve(self.name, answer.reservation, now())
            except BractError as error:
                refusal = self.site.refusal(proposal, error.code, self.home.signing_key())
                self.hub_registry.refuse(self.name, refusal, now())

    def work(self, payload: dict[str, bytes | str]) -> dict[str, bytes | str]:
        """What the executor does with a message."""
        try:
            task: Any = NearTask(payload, self.bundle)
            wire: Any = self.wire
            trainer: Any = NearTrainer(self.home)
            reply = answer(self.site, self.home, wire, trainer, task)
        except BractError as error:
            reply = {"refused": error.code}
        return self.tamper(reply) if self.tamper else reply


class NearGrid(Grid):
    """Flower's grid within one process: real messages, answered at once by sites that are up."""

    def __init__(self, places: Mapping[int, Place]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
        self._places = places
        self._answers: dict[str, Message] = {}
        self.strangers: dict[int, bytes] = {}

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [node.node_id for node in self.get_nodes()]

    def get_nodes(self) -> Iterable[NodeInfo]:
        known = {node: place.home.node_public_file.read_bytes() for node, place in self._places.items()}
        return [NodeInfo(node_id=node, public_key=key) for node, key in (known | self.strangers).items()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            for name, value in (("_run_id", 1), ("_src_node_id", 1), ("_message_id", message.object_id)):
                message.metadata.__dict__[name] = value
            place = self._places[message.metadata.dst_node_id]
            if place.up:
                payload = place.work(dict(message.content.config_records["bract"]))  # type: ignore[arg-type]
                content = RecordDict({"bract": flower.ConfigRecord(dict(payload))})
                self._answers[message.metadata.message_id] = Message(content, reply_to=message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._answers.pop(one) for one in message_ids if one in self._answers]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        raise NotImplementedError


class Federation:
    """A hub and its enrolled sites with data and consent, ready for campaigns."""

    def __init__(self, folder: Path, names: tuple[str, ...] = NAMES, epsilon_cap: float = 50.0) -> None:
        self.folder = folder
        self.hub_home: HubHome = hub_homes.create(folder / "hub", name="hub", at=now())
        self.registry = open_registry(self.hub_home)
        self.store = open_store(self.hub_home)
        parts = _parts(len(names), 0)
        self.places = {name: self._join(name, part, epsilon_cap) for name, part in zip(names, parts.sites, strict=True)}
        self.grid = NearGrid(dict(enumerate(self.places.values(), start=1)))
        self.crash_in: Callable[[], None] | None = None

    def _join(self, name: str, part: Any, epsilon_cap: float) -> Place:
        folder = self.folder / name
        policy = {"min_subjects": 50, "epsilon_cap": epsilon_cap, "notice_interval_s": 0, "max_delta": 1e-6}
        settings = decode(SiteSettings, {"name": name, "subjects_floor": 100, "policy": policy})
        home = site_homes.create(folder, name=name, settings=settings)
        bundle = hub_enrol.approve(self.hub_home, self.registry, site_enrol.request(home, now()), now())
        site_enrol.install(home, bundle, self.hub_home.fingerprint(), now())
        site = open_site(home)
        self._records(folder, part)
        site.registry.add_dataset(
            "adult",
            TableLocation("table", str(folder / "records.parquet"), "adult"),
            retention=RetentionRule(None),
            subjects_floor=100,
            epsilon_cap=epsilon_cap,
            delta=1e-6,
            at=now(),
        )
        site.registry.ingest("adult", now())
        return Place(name, home, site, self.registry, self.store)

    @staticmethod
    def _records(folder: Path, part: Any) -> None:
        columns = {
            "record_id": pa.array(part.record_ids[:PERSONS]),
            "subject_id": pa.array(part.subject_ids[:PERSONS]),
            "collected_at": pa.array(part.collected_at[:PERSONS]),
            "purposes": pa.array([part.purposes(i) for i in range(PERSONS)], pa.list_(pa.string())),
            **{name: pa.array(values[:PERSONS].tolist()) for name, values in part.values.items()},
        }
        pq.write_table(pa.table(columns), folder / "records.parquet")
        with (folder / "subjects.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows((subject,) for subject in part.subject_ids[:PERSONS])

    def hub(self) -> Hub:
        def wait(_seconds: float) -> bool:
            for place in self.places.values():
                if place.up:
                    place.answer_proposals()
            time.sleep(0.001)
            return False

        return Hub(self.registry, self.store, self.grid, now, wait)

    def create(self, plan: CampaignPlan) -> Digest:
        return campaigns.create(self.registry, self.store, plan, now())

    def run(self, plan: CampaignPlan) -> None:
        self.create(plan)
        self.go(plan.name)

    def go(self, name: str) -> None:
        """What `campaign run` and the ServerApp process do."""
        self.registry.set_state(name, "running", "", now())
        try:
            run_campaign(self.hub(), name)
        except BractError as error:
            self.registry.set_state(name, "failed", error.code, now())
            raise
        self.registry.set_state(name, "completed", "", now())

    def reports(self, name: str = "small") -> Any:
        return self.registry.rounds(self.registry.campaign(name).digest)
