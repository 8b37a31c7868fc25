"""Sites and a hub in one secure round: the real stages on both sides, real files and keys, without training and registries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.proto.node_pb2 import NodeInfo

from bract.arrays import Array, read_arrays, write_arrays
from bract.digest import Digest, digest
from bract.errors import BractError
from bract.files import write_private
from bract.identity import new_node_key, node_fingerprint, private_pem, public_pem
from bract.plan import CampaignPlan, Place, RoundPlan, SiteKey, SitePlan
from bract.privacy.spec import Mechanism
from bract.secure.spec import SecureSpec, SkellamSpec
from bract.signing import Envelope, key_text, parse_envelope, sign, unseal, verify_key
from bract.update import Contribution
from bract.value import decode
from bract_client.home import SiteHome
from bract_client.policy import SitePolicy
from bract_client.secure import Cover, SecureRound, join
from bract_client.site import Site, Task
from bract_server import secure
from bract_server.arrays import ArrayStore
from bract_server.collecting import Post
from bract_server.means import Hub
from bract_server.unmask import Opened
from tests.federation import NearGrid, small_plan

AT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = 40
Payload = dict[str, bytes | str]
NODE_KEYS = [public_pem(new_node_key().public_key()) for _ in range(8)]


@dataclass
class Sent:
    """What a site's registry knows of a round: the contribution that was kept."""

    envelope: Envelope | None = None

    def trained(self, _campaign: str, _number: int) -> Envelope | None:
        return self.envelope


@dataclass
class Member:
    """One site with its folder, its key and its update."""

    name: str
    home: SiteHome
    key: Ed25519PrivateKey
    values: Array
    policy: SitePolicy = field(default_factory=SitePolicy)
    registry: Sent = field(default_factory=Sent)
    leaves: str = ""
    tamper: Callable[[str, Payload], Payload] = lambda _, reply: reply
    up: bool = True
    asked: dict[str, bytes] = field(default_factory=dict)
    round: SecureRound = field(init=False, repr=False)
    store: ArrayStore = field(init=False, repr=False)

    def work(self, payload: Payload) -> Payload:
        """What the executor does with a message; the site is gone from the stage `leaves` on."""
        stage, question = str(payload["stage"]), payload["question"]
        assert isinstance(question, bytes)
        self.asked[stage] = question
        if stage == self.leaves:
            self.up = False
        if not self.up:
            return {"refused": "site-failed"}
        try:
            reply = self.round.answer(stage, question, self.contribute)
        except BractError as error:
            return {"refused": error.code}
        return self.tamper(stage, reply)

    def contribute(self, cover: Cover) -> bytes:
        """The masked update, and what is signed of it."""
        update = self.store.scratch / f"{self.name}.update"
        write_arrays(update, {"w": self.values})
        cover(update, {"w": self.values.shape})
        size, task = update.stat().st_size, self.round.task
        value = Contribution(
            self.name,
            task.sealed.name,
            digest(b"c"),
            digest(b"r"),
            Mechanism(1.0, 0.1, 2),
            self.store.adopt(update),
            size,
        )
        self.registry.envelope = sign(value, self.key)
        return self.registry.envelope.to_json()

    @property
    def sent(self) -> Digest:
        """The digest of the masked update that was sent."""
        assert self.registry.envelope is not None
        return decode(Contribution, self.registry.envelope.payload).update


@dataclass(frozen=True)
class Accepted:
    site: str
    update: Any


@dataclass
class HubBooks:
    """What the hub's registry knows of a round."""

    members: Mapping[str, Member]
    accepted: dict[str, Any] = field(default_factory=dict)
    evidence: list[tuple[str, str]] = field(default_factory=list)

    def contributions(self, _campaign: str, _number: int) -> tuple[Accepted, ...]:
        return tuple(Accepted(site, update) for site, update in sorted(self.accepted.items()))

    def site(self, name: str) -> Any:
        number = sorted(self.members).index(name)
        return type("Known", (), {"node_fingerprint": node_fingerprint(NODE_KEYS[number])})

    def reject(self, site: str, _campaign: str, _number: int, code: str, *_: object) -> None:
        self.evidence.append((site, code))


class Nodes(NearGrid):
    """A grid of members, each under a node key that was made before."""

    def get_nodes(self) -> list[NodeInfo]:
        return [NodeInfo(node_id=node, public_key=NODE_KEYS[node - 1]) for node in self._places]


class World:
    """One round: members, plan, hub."""

    def __init__(
        self,
        folder: Path,
        sites: int = 3,
        threshold: int | None = None,
        weights: tuple[float, ...] = (),
        numbers: int = NUMBERS,
        noise: SkellamSpec | None = None,
    ) -> None:
        self.numbers = numbers
        self.folder, names = folder, [f"site-{n}" for n in range(sites)]
        self.spec = SecureSpec(threshold or sites // 2 + 1, clip=10.0, noise=noise)
        plans = tuple(
            SitePlan(name, weight, subjects_floor=100)
            for name, weight in zip(names, weights or (1.0,) * sites, strict=True)
        )
        self.campaign: CampaignPlan = small_plan(sites=plans, quorum=self.spec.threshold, secure=self.spec)
        self.store = ArrayStore(folder / "arrays", 1 << 30, 1 << 30)
        self.hub_key = Ed25519PrivateKey.generate()
        self.members = {name: self._member(name, place) for place, name in enumerate(names)}
        self.books, self.post = HubBooks(self.members), Post()
        self.open(1)

    def _member(self, name: str, place: int) -> Member:
        home, key = SiteHome(self.folder / name), Ed25519PrivateKey.generate()
        home.signing_key_file.parent.mkdir(parents=True, exist_ok=True)
        write_private(home.signing_key_file, private_pem(key))
        values = np.random.default_rng(place).standard_normal(self.numbers, np.float32) / np.float32(4)
        member = Member(name, home, key, values)
        member.store = self.store
        return member

    def open(self, number: int) -> None:
        """Sign the next round's plan and have every member join it."""
        start = self.store.scratch / "start"
        write_arrays(start, {"w": np.zeros(self.numbers, np.float32)})
        arrays = self.store.adopt(start)
        keys = tuple(SiteKey(m.name, key_text(m.key.public_key())) for m in self.members.values())
        self.plan = RoundPlan(
            digest(b"campaign"),
            number,
            digest(b"parent"),
            arrays,
            self.store.path(arrays).stat().st_size,
            tuple(Place(name, digest(b"c"), digest(b"r")) for name in self.members),
            AT,
            AT + timedelta(minutes=10),
            keys,
        )
        self.sealed = sign(self.plan, self.hub_key)
        self.books.accepted.clear()
        for member in self.members.values():
            member.registry = Sent()
            member.round = self.join(member)

    def join(self, member: Member, plan: RoundPlan | None = None) -> SecureRound:
        """The member's round as its executor has it after a start."""
        sealed = self.sealed if plan is None else sign(plan, self.hub_key)
        registry: Any = member.registry
        site = Site(member.name, self.hub_key.public_key(), member.policy, registry)
        place = next(p for p in self.plan.cohort if p.site == member.name)
        return join(site, member.home, Task(self.campaign, plan or self.plan, sealed, place))

    def collect(self) -> Opened:
        """The hub's side of the round."""
        moments = iter(AT + timedelta(seconds=n) for n in range(100_000))
        registry: Any = self.books
        places: Any = dict(enumerate(self.members.values(), start=1))
        hub = Hub(registry, self.store, Nodes(places), lambda: next(moments), lambda _: False)
        campaign: Any = type("Campaign", (), {"plan": self.campaign, "digest": self.plan.campaign, "envelope": b""})
        return secure.collect(hub, self.post, campaign, self.sealed, self.plan, self.receive)

    def receive(self, place: Place, signed: bytes) -> None:
        """What the rounds do with a contribution, as far as it matters here."""
        key = verify_key(next(key.verify_key for key in self.plan.keys if key.site == place.site))
        self.books.accepted[place.site] = unseal(Contribution, parse_envelope(signed), key).update

    def mean(self, opened: Opened) -> Array:
        """The opened mean."""
        assert opened.mean is not None
        return dict(read_arrays(opened.mean, {"w": (self.numbers,)}))["w"]


def reworked(member: Member, cls: type[Any], change: Callable[[Any], Any]) -> Callable[[Payload], Payload]:
    """A reply with another value in it, signed by the member."""

    def rework(reply: Payload) -> Payload:
        data = reply["answer"]
        assert isinstance(data, bytes)
        return {"answer": sign(change(decode(cls, parse_envelope(data).payload)), member.key).to_json()}

    return rework
