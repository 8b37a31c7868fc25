"""A thing is bounded only if every part of the site in it is; what is touched is exactly what can be reached."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.model import NodeKind
from bract.objectives.spec import PrivacyStructure
from bract.privacy.accounting import epsilon_of_curve, rdp_curve
from bract.privacy.budget import add
from bract.privacy.spec import Mechanism
from bract.release import Remedy
from bract_server.withdrawal import Effect, Part, effect, epsilon_of, parents_first, remedies, spread
from tests.server.registry.random_lineage import draw
from tests.server.registry.reachability import touched

PRIVATE, SEEDED = (PrivacyStructure.PER_RECORD, True), (PrivacyStructure.PER_RECORD, False)
PLAIN = (PrivacyStructure.NONE, True)
MECHANISM = Mechanism(1.2, 0.05, 20)
S, C, R, V, F = NodeKind.SNAPSHOT, NodeKind.CONTRIBUTION, NodeKind.ROUND, NodeKind.VERSION, NodeKind.FINETUNE


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([PRIVATE], Effect.BOUNDED),
        ([PRIVATE, PRIVATE], Effect.BOUNDED),
        ([SEEDED], Effect.UNBOUNDED),
        ([PRIVATE, PLAIN], Effect.UNBOUNDED),
        ([PLAIN, PRIVATE], Effect.UNBOUNDED),
    ],
)
def test_one_part_without_a_guarantee_is_enough(parts: list[tuple[PrivacyStructure, bool]], expected: Effect) -> None:
    assert effect(parts) is expected


def test_a_part_that_comes_twice_counts_once() -> None:
    """1 snapshot, 2 its part, 3 and 4 two versions of it, 5 made from both."""
    kinds = {1: S, 2: C, 3: V, 4: V, 5: V}
    parents = {1: (), 2: (1,), 3: (2,), 4: (2,), 5: (3, 4)}
    found = spread(kinds, parents, {1}, {1}, {2: Part(MECHANISM, 1e-5)})
    assert found[5].bound.mechanisms == (MECHANISM,)
    assert found[5].path_length == 3


def test_parts_of_other_snapshots_of_the_site_count_too() -> None:
    kinds = {1: S, 2: S, 3: C, 4: C, 5: V, 6: V}
    parents = {1: (), 2: (), 3: (1,), 4: (2,), 5: (3,), 6: (5, 4)}
    parts = {3: Part(MECHANISM, 1e-5), 4: Part(replace(MECHANISM, steps=7), 1e-6)}
    found = spread(kinds, parents, {2}, {1, 2}, parts)
    assert set(found) == {4, 6}
    assert found[6].bound.mechanisms == (replace(MECHANISM, steps=27),)
    assert found[6].bound.delta == 1e-6
    assert found[6].clean == 5


def test_what_was_made_from_a_snapshot_itself_has_no_bound() -> None:
    kinds = {1: S, 2: C, 3: V, 4: F, 5: F}
    parents = {1: (), 2: (1,), 3: (2,), 4: (3, 1), 5: (4,)}
    found = spread(kinds, parents, {1}, {1}, {2: Part(MECHANISM, 1e-5)})
    assert [found[node].bound.effect for node in (3, 4, 5)] == [Effect.BOUNDED, Effect.UNBOUNDED, Effect.UNBOUNDED]


@given(st.integers(0, 10**9))
def test_what_is_touched_is_what_an_independent_script_reaches(seed: int) -> None:
    world = draw(random.Random(seed))
    parents = {int(node): tuple(dst for src, dst in world["edges"] if src == int(node)) for node in world["kinds"]}
    parts = {node: Part(MECHANISM, 1e-5) for node in world["private"]} | {
        node: Part(None, 1e-5) for node in world["leaky"]
    }
    kinds = {int(node): kind for node, kind in world["kinds"].items()}
    found = spread(kinds, parents, set(world["named"]), set(world["own"]), parts)
    told = {node: (str(one.bound.effect), one.path_length, one.clean) for node, one in found.items()}
    assert told == touched(world)


def test_late_edges_do_not_disturb_the_order() -> None:
    parents = {1: (3,), 2: (1,), 3: ()}
    order = parents_first(parents)
    assert order.index(3) < order.index(1) < order.index(2)


def test_the_quick_bound_is_the_ledgers_curve() -> None:
    one, other = Mechanism(1.2, 0.05, 20), Mechanism(4.0, 0.01, 30)
    exact = epsilon_of_curve(add(rdp_curve(one), rdp_curve(other)), 1e-5)
    assert exact <= epsilon_of((one, other), 1e-5) <= exact + 1e-6


def test_without_a_bound_something_must_be_done() -> None:
    assert Remedy.NONE in remedies(V, Effect.BOUNDED)
    assert Remedy.NONE not in remedies(V, Effect.UNBOUNDED)
    assert remedies(R, Effect.UNBOUNDED) == remedies(C, Effect.BOUNDED) == ()
    assert remedies(V, Effect.UNAFFECTED) == ()
    assert Remedy.RETRAIN not in remedies(NodeKind.RELEASE, Effect.BOUNDED)
