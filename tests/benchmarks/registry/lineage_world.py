"""Lineage at scale: ten thousand models, three thousand rounds, and what a withdrawal asks of them.

    python -m tests.benchmarks.registry.lineage_world [DATABASE_URL]

The rows are written straight into an empty database, in the form in which the verbs write them, but for the log and the
privacy accounts; so the log of this world does not verify.
"""

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, insert, select

from bract.database import open_engine
from bract.digest import Digest, digest
from bract.migrations import migrate
from bract.model import NodeKind
from bract.plan import SitePlan
from bract.privacy.spec import Mechanism
from bract.receipt import EncoderVersion
from bract.signing import key_text, sign
from bract.update import Contribution, WithdrawalNotice
from bract.value import digest_value, encode
from bract_server.registry import MIGRATIONS
from bract_server.registry import models as rows
from bract_server.registry.lineage import below, descendants, nodes_of
from bract_server.registry.store import HubRegistry
from tests.server.registry.world import campaign_plan

AT = datetime(2026, 11, 22, tzinfo=UTC)
MECHANISM = Mechanism(1.2, 0.05, 20)


@dataclass(frozen=True)
class Size:
    """How large the world is."""

    sites: int = 40
    snapshots: int = 50
    rounds: int = 3000
    parts: int = 6
    tuned: int = 7000


@dataclass(frozen=True)
class LineageWorld:
    """A registry full of lineage, the sites' keys, the snapshots of each site, and the model that was made last."""

    engine: Engine
    registry: HubRegistry
    keys: dict[str, Ed25519PrivateKey]
    snapshots: dict[str, list[Digest]]
    nodes: int
    edges: int
    last: str


class _Build:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.rows: dict[Any, list[dict[str, Any]]] = {}
        self.nodes = 0
        self.edges = 0

    def add(self, table: Any, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)

    def node(self, kind: NodeKind, ref: str) -> int:
        self.nodes += 1
        self.add(rows.NodeRow, id=self.nodes, kind=str(kind), ref=ref)
        return self.nodes

    def edge(self, src: int, relation: str, dst: int, role: str | None = None) -> None:
        self.edges += 1
        self.add(rows.EdgeRow, src=src, dst=dst, relation=relation, role=role)


def build(url: str, size: Size = Size(), seed: int = 1) -> LineageWorld:
    """Fill an empty database."""
    engine = open_engine(url)
    migrate(engine, MIGRATIONS)
    b, hub = _Build(seed), Ed25519PrivateKey.generate()
    names = [f"site-{place:02d}" for place in range(size.sites)]
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    plan = campaign_plan(sites=tuple(SitePlan(name) for name in names), rounds=size.rounds)
    envelope = sign(plan, hub)
    b.add(
        rows.CampaignRow,
        digest=envelope.name,
        name=plan.name,
        envelope=envelope.to_json(),
        created_at=AT,
        state="running",
        reason="",
    )
    snapshots, drawn = _sites(b, size, keys)
    versions = _rounds(b, size, keys, envelope.name, drawn)
    _tuned(b, size, versions)
    with engine.begin() as connection:
        for table, listed in b.rows.items():
            for start in range(0, len(listed), 5000):
                connection.execute(insert(table), listed[start : start + 5000])
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE")
    return LineageWorld(
        engine, HubRegistry(engine, hub), keys, snapshots, b.nodes, b.edges, _name(f"tuned {size.tuned - 1}")
    )


def _name(text: str) -> Digest:
    return digest(text.encode())


def _sites(
    b: _Build, size: Size, keys: dict[str, Ed25519PrivateKey]
) -> tuple[dict[str, list[Digest]], dict[Digest, int]]:
    snapshots: dict[str, list[Digest]] = {}
    drawn: dict[Digest, int] = {}
    for name, key in keys.items():
        b.add(
            rows.SiteRow,
            name=name,
            verify_key=key_text(key.public_key()),
            node_fingerprint=_name(f"node {name}"),
            node_public_pem="",
            subjects_floor=1000,
            registered_at=AT,
        )
        whole = b.node(NodeKind.DATASET, f"{name}/adult")
        snapshots[name] = [_name(f"{name} {place}") for place in range(size.snapshots)]
        for snapshot in snapshots[name]:
            drawn[snapshot] = b.node(NodeKind.SNAPSHOT, f"{name}/{snapshot}")
            b.edge(drawn[snapshot], "wasDerivedFrom", whole, "drawnFrom")
    return snapshots, drawn


def _rounds(
    b: _Build, size: Size, keys: dict[str, Ed25519PrivateKey], campaign: Digest, drawn: dict[Digest, int]
) -> list[int]:
    parent, base = _version(b, campaign, 0, None), b.node(NodeKind.BASE, _name("weights"))
    before = b.node(NodeKind.VERSION, parent)
    b.edge(before, "wasDerivedFrom", base, "initialisedFrom")
    versions = [before]
    for number in range(1, size.rounds + 1):
        plan = _name(f"plan {number}")
        proposal = {"campaign": campaign, "number": number, "proposal": b"", "proposed_at": AT}
        b.add(rows.RoundRow, id=number, state="committed", **proposal)
        opened = {"arrays": _name("a"), "arrays_bytes": 1, "envelope": b"", "opened_at": AT}
        b.add(rows.RoundPlanRow, round_id=number, digest=plan, parent=parent, **opened)
        parts = [
            _part(b, number, plan, site, keys[site], drawn, size)
            for site in sorted(b.random.sample(list(keys), size.parts))
        ]
        made_by = b.node(NodeKind.ROUND, plan)
        for part in parts:
            b.edge(made_by, "used", part)
        child = _version(b, campaign, number, parent)
        node = b.node(NodeKind.VERSION, child)
        b.edge(node, "wasGeneratedBy", made_by)
        b.edge(node, "wasDerivedFrom", before, "initialisedFrom")
        parent, before = child, node
        versions.append(node)
    return versions


def _version(b: _Build, campaign: Digest, number: int, parent: Digest | None) -> Digest:
    value = EncoderVersion(campaign, number, _name(f"arrays {number}"), 1, parent, ())
    b.add(
        rows.VersionRow,
        digest=(made := digest_value(value)),
        campaign=campaign,
        number=number,
        parent=parent,
        arrays=value.arrays,
        body=encode(value),
        created_at=AT + timedelta(minutes=number),
    )
    return made


def _part(
    b: _Build,
    number: int,
    plan: Digest,
    site: str,
    key: Ed25519PrivateKey,
    drawn: dict[Digest, int],
    size: Size,
) -> int:
    place = number * 100 + int(site[-2:])
    snapshot = _name(f"{site} {b.random.randrange(size.snapshots)}")
    clearance, reservation = _name(f"clearance {place}"), _name(f"reservation {place}")
    shared = {"round_id": number, "site": site, "envelope": b"", "received_at": AT, "expires_at": AT}
    b.add(rows.ClearanceRow, id=place, digest=clearance, snapshot=snapshot, **shared)
    mechanism = {"noise_multiplier": 1.2, "sampling_rate": 0.05, "steps": 20}
    b.add(rows.ReservationRow, id=place, digest=reservation, dataset="adult", **mechanism, **shared)
    b.add(rows.ParticipantRow, round_id=number, site=site, clearance_id=place, reservation_id=place)
    value = Contribution(site, plan, clearance, reservation, MECHANISM, _name(f"update {place}"), 1)
    sealed = sign(value, key)
    b.add(
        rows.ContributionRow,
        id=place,
        round_id=number,
        site=site,
        accepted=True,
        digest=sealed.name,
        update_digest=value.update,
        envelope=sealed.to_json(),
        received_at=AT,
    )
    node = b.node(NodeKind.CONTRIBUTION, sealed.name)
    b.edge(node, "wasDerivedFrom", drawn[snapshot], "trainedOn")
    return node


def _tuned(b: _Build, size: Size, versions: list[int]) -> None:
    source, made = b.node(NodeKind.EXTERNAL, _name("source")), list(versions)
    for place in range(size.tuned):
        kind = NodeKind.FINETUNE if b.random.random() < 0.7 else NodeKind.STUDENT
        start, node = b.random.choice(made), b.node(kind, _name(f"tuned {place}"))
        b.edge(node, "wasDerivedFrom", start, "initialisedFrom" if kind is NodeKind.FINETUNE else "distilledFrom")
        b.edge(node, "used", source, "trainedOn")
        made.append(node)


def measure(world: LineageWorld) -> Iterator[tuple[str, float, int]]:
    """(what, seconds, things) of each question; medians of nine where nothing is written."""
    source, registry = random.Random(2), world.registry
    sites = sorted(world.snapshots)

    def versions() -> int:
        site = source.choice(sites)
        with registry.seeing() as session:
            return len(descendants(session, NodeKind.SNAPSHOT, [f"{site}/{source.choice(world.snapshots[site])}"]))

    def everything() -> int:
        site = source.choice(sites)
        ref = f"{site}/{source.choice(world.snapshots[site])}"
        with registry.seeing() as session:
            reached = below(nodes_of(session, NodeKind.SNAPSHOT, [ref]).values())
            return len(
                session.execute(
                    select(rows.NodeRow.kind, rows.NodeRow.ref).join(reached, reached.c.id == rows.NodeRow.id)
                ).all()
            )

    yield ("versions below a snapshot", *_median(versions))
    yield ("everything below a snapshot", *_median(everything))
    site = sites[0]
    notice = WithdrawalNotice(site, "n-1", tuple(world.snapshots[site][:5]), AT)
    began = time.perf_counter()
    registry.withdraw(site, sign(notice, world.keys[site]), AT)
    seconds = time.perf_counter() - began
    touched = len(registry.impacts("n-1", None))
    yield "take a notice", seconds, touched
    yield ("versions under a notice", *_median(lambda: len(registry.impacts("n-1"))))
    yield ("everything under a notice", *_median(lambda: len(registry.impacts("n-1", None))))
    yield ("ancestry of a model", *_median(lambda: len(registry.ancestry(world.last).nodes), 3))
    yield ("all of lineage", *_median(lambda: len(registry.lineage().nodes), 1))


def _median(ask: Callable[[], int], times: int = 9) -> tuple[float, int]:
    seconds, things = [], 0
    for _ in range(times):
        began = time.perf_counter()
        things = max(things, ask())
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), things


def main() -> None:
    """Build the world and print what was measured as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{folder}/hub.db"
        began = time.perf_counter()
        world = build(url)
        print(
            json.dumps({"built_s": round(time.perf_counter() - began, 1), "nodes": world.nodes, "edges": world.edges})
        )
        for what, seconds, things in measure(world):
            print(json.dumps({"what": what, "ms": round(seconds * 1000, 1), "things": things}), flush=True)


if __name__ == "__main__":
    main()
