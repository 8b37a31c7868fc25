"""On random lineage, what the registry records of a withdrawal is what an independent script works out from the edges."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from bract.digest import Digest
from bract.model import NodeKind
from bract.signing import sign
from bract.update import Contribution, WithdrawalNotice
from bract.value import decode
from bract_server.registry.impacts import extend, newest, record
from bract_server.registry.models import EdgeRow, NodeRow, NoticeRow, NoticeSnapshotRow
from bract_server.registry.unit import Unit
from tests.server.registry import reachability
from tests.server.registry.random_lineage import draw
from tests.server.registry.world import AT, World, named

PRIVATE, LEAKY = 6, 3


class _UndoError(Exception):
    """Ends a transaction without a trace."""


def _parts(world: World, campaign: Digest) -> list[Digest]:
    """Real contributions of alder that are in no version: the first `PRIVATE` with a guarantee, the rest without."""
    found = []
    for place in range(PRIVATE + LEAKY):
        number, plan = world.open(campaign, "alder", "birch")
        value = decode(Contribution, world.contribution("alder", campaign, number, plan.name).payload)
        envelope = sign(replace(value, private=place < PRIVATE), world.keys["alder"])
        world.registry.accept(envelope, "alder", AT)
        world.registry.abort_round(campaign, number, {}, AT)
        found.append(envelope.name)
    return found


@pytest.fixture
def parts(world: World, campaign: Digest) -> list[Digest]:
    return _parts(world, campaign)


@contextmanager
def _undone(world: World) -> Iterator[Unit]:
    try:
        with world.registry.writing(AT) as unit:
            yield unit
            raise _UndoError
    except _UndoError:
        pass


def _refs(drawn: dict[str, Any], parts: list[Digest]) -> dict[int, str]:
    private, leaky = iter(parts[:PRIVATE]), iter(parts[PRIVATE:])
    refs = {}
    for text, kind in drawn["kinds"].items():
        node = int(text)
        if kind == NodeKind.SNAPSHOT:
            refs[node] = f"{'alder' if node in drawn['own'] else 'birch'}/{named(text)}"
        elif node in drawn["private"] + drawn["leaky"]:
            refs[node] = next(private if node in drawn["private"] else leaky)
        else:
            refs[node] = named(f"{kind} {text}")
    return refs


def _told(unit: Unit, notice: int, shift: int) -> dict[int, tuple[str, int, int | None]]:
    unit.session.expire_all()
    return {
        row.node_id - shift: (row.effect, row.path_length, row.clean and row.clean - shift)
        for row in unit.session.scalars(newest(notice))
    }


def _compare(world: World, drawn: dict[str, Any], parts: list[Digest], known: int) -> None:
    """Take the notice when the first `known` things are there; the others come one by one."""
    refs = _refs(drawn, parts)
    value = WithdrawalNotice("alder", "n", tuple(Digest(refs[node].partition("/")[2]) for node in drawn["named"]), AT)
    with _undone(world) as unit:
        session = unit.session
        shift = int(session.scalar(select(func.max(NodeRow.id))) or 0)

        def add(first: int, last: int) -> None:
            kinds = {node: drawn["kinds"][str(node)] for node in range(first, last + 1)}
            session.add_all(NodeRow(id=n + shift, kind=kind, ref=refs[n]) for n, kind in kinds.items())
            session.flush()
            edges = [(src, dst) for src, dst in drawn["edges"] if first <= src <= last]
            session.add_all(EdgeRow(src=s + shift, dst=d + shift, relation="wasDerivedFrom") for s, d in edges)
            session.flush()

        add(1, known)
        row = NoticeRow(site="alder", notice="n", digest=named("n"), envelope=b"", received_at=AT)
        session.add(row)
        session.flush()
        session.add_all(NoticeSnapshotRow(notice_id=row.id, ref=refs[node]) for node in drawn["named"])
        session.flush()
        record(unit, row, value)
        for node in range(known + 1, len(drawn["kinds"]) + 1):
            add(node, node)
            extend(unit, [node + shift])
        assert _told(unit, row.id, shift) == reachability.touched(drawn)


def _graphs(count: int, seed: int) -> Iterator[dict[str, Any]]:
    source, made = random.Random(seed), 0
    while made < count:
        drawn = draw(source)
        if drawn["named"] and len(drawn["private"]) <= PRIVATE and len(drawn["leaky"]) <= LEAKY:
            made += 1
            yield drawn


def test_a_notice_touches_what_the_script_reaches(world: World, parts: list[Digest]) -> None:
    """Also when the notice comes before most of what it touches."""
    for drawn in _graphs(30, 1):
        _compare(world, drawn, parts, len(drawn["kinds"]))
    for drawn in _graphs(4, 2):
        _compare(world, drawn, parts, len(drawn["kinds"]) // 3)


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("many", [500, pytest.param(2000, marks=pytest.mark.nightly)])
def test_many_graphs(world: World, parts: list[Digest], many: int) -> None:
    for drawn in _graphs(many, 4):
        _compare(world, drawn, parts, len(drawn["kinds"]))


def test_the_script_runs_alone_on_what_the_registry_exports(world: World, campaign: Digest) -> None:
    """A control as well: with one edge taken out, the script no longer agrees."""
    world.whole_round(campaign, "alder", "birch")
    world.whole_round(campaign, "birch", "cedar")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    told = {i.ref: (i.effect, i.path_length, i.clean) for i in world.registry.impacts("n-1", None)}
    lineage = world.registry.lineage()
    numbers = {node.ref: place for place, node in enumerate(lineage.nodes, start=1)}
    snapshot = numbers[f"alder/{named('snapshot alder')}"]
    of_site = [numbers[n.ref] for n in lineage.nodes if n.body.get("site") == "alder" and n.kind == "contribution"]
    exported: dict[str, Any] = {
        "kinds": {str(numbers[node.ref]): str(node.kind) for node in lineage.nodes},
        "edges": [[numbers[edge.src], numbers[edge.dst]] for edge in lineage.edges],
        "named": [snapshot],
        "own": [snapshot],
        "private": of_site,
        "leaky": [],
    }
    refs = {place: ref for ref, place in numbers.items()}

    def asked() -> dict[str, tuple[str, int, str | None]]:
        command = [sys.executable, str(Path(reachability.__file__))]
        done = subprocess.run(command, input=json.dumps(exported), capture_output=True, text=True, check=True)
        answer = json.loads(done.stdout)
        return {
            refs[int(node)]: (label, length, None if clean is None else refs[clean])
            for node, (label, length, clean) in answer.items()
        }

    assert asked() == told
    assert len(told) == 4
    exported["edges"] = [edge for edge in exported["edges"] if edge[1] != snapshot]
    assert asked() != told
