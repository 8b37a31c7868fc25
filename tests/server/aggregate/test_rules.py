"""Every rule does what its paper says, whoever answers first; and what it claims against f sites holds whatever they send."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bract.aggregation import (
    Aggregation,
    CentredClipping,
    DeclaredMean,
    DivergenceMean,
    LayerMean,
    Median,
    MultiKrum,
    TrimmedMean,
)
from bract.errors import QUORUM, BractError
from bract_server.aggregate.rule import combination
from tests.server.aggregate.explicit import SIZE, expected, file_of, result, updates_of

pytestmark = pytest.mark.usefixtures("small_blocks")

Floats = NDArray[np.float32]
HUGE = float(np.finfo(np.float32).max)

SPECS: tuple[Aggregation, ...] = (
    DeclaredMean(),
    DivergenceMean(scale=0.6),
    LayerMean(),
    Median(2),
    TrimmedMean(2),
    CentredClipping(1.5, 0, bucket=1),
    CentredClipping(2.5, 0, bucket=2, iterations=3),
    MultiKrum(1),
    MultiKrum(2, selected=3),
)
ONE_VOICE = (Median, TrimmedMean, CentredClipping, MultiKrum)


def rows_of(least: int = 7, most: int = 11, bound: float = 100.0) -> st.SearchStrategy[Floats]:
    values = st.floats(-bound, bound, width=32).map(lambda x: 0.0 if abs(x) < 1e-3 else x)
    return st.integers(least, most).flatmap(lambda n: hnp.arrays(np.float32, (n, SIZE), elements=values))


@settings(max_examples=12, deadline=None)
@given(rows_of(), st.integers(0, 2**32))
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_a_rule_is_its_formula_and_blind_to_the_order_of_answers(spec: Aggregation, rows: Floats, seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = [1.0] * len(rows) if isinstance(spec, ONE_VOICE) else rng.uniform(0.5, 9, len(rows)).tolist()
    with TemporaryDirectory() as name:
        folder = Path(name)
        start = rng.standard_normal(SIZE).astype(np.float32)
        origin, updates = file_of(folder, "origin", start), updates_of(folder, rows, weights)
        made = result(spec, updates, origin)
        other = result(spec, [updates[place] for place in rng.permutation(len(updates))], origin)
        assert np.array_equal(made, other)
        wide = (rows.astype(np.float64), np.array(weights), start.astype(np.float64))
        right = expected(spec, *wide, [update.digest for update in updates])
        if not (isinstance(spec, MultiKrum) and tied(rows)):  # of scores that differ by rounding alone, either may win
            np.testing.assert_allclose(made, right, rtol=1e-5, atol=1e-5 * np.abs(rows).max() + 1e-30)
        shares = combination(spec, updates, origin).shares
        assert sorted(shares) == [update.site for update in updates]
        assert all(0 <= share <= 1 for share in shares.values()) and sum(shares.values()) <= 1 + 1e-9


def tied(rows: Floats) -> bool:
    distances = np.array([[float(((a.astype(float) - b) ** 2).sum()) for b in rows] for a in rows])
    scores = np.concatenate([np.sort(np.sort(distances, axis=1)[:, 1 : len(rows) - f - 1].sum(1)) for f in (1, 2)])
    scale = float(np.abs(rows).max()) ** 2 * SIZE + 1e-30
    return bool((np.abs(np.diff(scores)) < 1e-9 * scale).any())


@settings(max_examples=8, deadline=None)
@given(hnp.arrays(np.float32, SIZE, elements=st.floats(-0.25, 0.25, width=32)), st.integers(7, 12))
@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_of_equal_updates_a_rule_makes_that_update(spec: Aggregation, row: Floats, sites: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        updates = updates_of(folder, np.tile(row, (sites, 1)))
        made = result(spec, updates, file_of(folder, "origin", np.ones(SIZE, np.float32)))
    np.testing.assert_allclose(made, row, rtol=1e-6, atol=1e-40)  # 0.25 in 18 places: within either radius


def worst(data: st.DataObject, count: int) -> Floats:
    """What `count` sites may send: anything finite."""
    values = st.one_of(st.sampled_from([HUGE, -HUGE, 0.0]), st.floats(-HUGE, HUGE, width=32))
    return data.draw(hnp.arrays(np.float32, (count, SIZE), elements=values))


def among(honest: Floats, hostile: Floats, seed: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Both in some order, and which rows are hostile."""
    order = np.random.default_rng(seed).permutation(len(honest) + len(hostile))
    return np.concatenate([honest, hostile])[order], (np.arange(len(order)) >= len(honest))[order]


def made_of(spec: Aggregation, rows: Floats) -> Floats:
    with TemporaryDirectory() as name:
        folder = Path(name)
        return result(spec, updates_of(folder, rows), file_of(folder, "origin", np.ones(SIZE, np.float32)))


@settings(max_examples=25, deadline=None)
@given(rows_of(4, 7), st.data(), st.integers(0, 2**32))
@pytest.mark.parametrize("kind", [Median, TrimmedMean])
def test_what_f_sites_send_leaves_each_coordinate_between_honest_values(
    kind: Callable[[int], Aggregation], rows: Floats, data: st.DataObject, seed: int
) -> None:
    f = data.draw(st.integers(1, len(rows) - 1))
    spec = kind(f)
    if len(rows) + f < spec.least_sites:
        return
    made = made_of(spec, among(rows, worst(data, f), seed)[0])
    assert (made >= rows.min(0)).all() and (made <= rows.max(0)).all()


@settings(max_examples=25, deadline=None)
@given(st.data(), st.integers(1, 2), st.integers(0, 2**32))
def test_krum_picks_nobody_who_is_far_beyond_the_others(data: st.DataObject, f: int, seed: int) -> None:
    honest = data.draw(rows_of(f + 3, f + 6, bound=1.0))
    far = data.draw(st.floats(100, 1e30)) * np.where(worst(data, f) < 0, -1.0, 1.0)
    rows, hostile = among(honest, far.astype(np.float32), seed)
    with TemporaryDirectory() as name:
        folder = Path(name)
        updates = updates_of(folder, rows)
        spec = MultiKrum(f, selected=len(rows) - f - 2)
        shares = combination(spec, updates, file_of(folder, "origin", rows[0])).shares
    assert all(shares[update.site] == 0 for update, bad in zip(updates, hostile, strict=True) if bad)


@settings(max_examples=25, deadline=None)
@given(rows_of(4, 8), st.data(), st.floats(0.01, 50), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_clipping_moves_at_most_its_radius_and_f_sites_move_it_by_their_part(
    rows: Floats, data: st.DataObject, radius: float, bucket: int, iterations: int, seed: int
) -> None:
    f = data.draw(st.integers(1, 3))
    one, hostile = among(rows, worst(data, f), seed)
    made = made_of(CentredClipping(radius, 0, bucket=bucket, iterations=iterations), one)
    assert np.linalg.norm(made.astype(np.float64)) <= iterations * radius * (1 + 1e-5)
    two = one.copy()
    two[hostile] = worst(data, f)
    once = CentredClipping(radius, 0)
    moved = np.linalg.norm(made_of(once, one).astype(np.float64) - made_of(once, two))
    assert moved <= 2 * f * radius / len(one) * (1 + 1e-4) + 1e-30


@settings(max_examples=30, deadline=None)
@given(rows_of(), st.floats(-(2.0**40), 2.0**40, width=32))
def test_the_mean_goes_wherever_one_site_wants_it(rows: Floats, wanted: float) -> None:
    """The positive control: what the others withstand is an attack."""
    rows[-1] = wanted * len(rows) - rows[:-1].sum(0)
    np.testing.assert_allclose(made_of(DeclaredMean(), rows), wanted, rtol=1e-4, atol=1e-2)
    assert (np.abs(made_of(Median(1), rows)) <= 101).all()


def test_a_site_that_went_far_counts_less_by_divergence(tmp_path: Path) -> None:
    rows = np.ones((5, SIZE), np.float32) * np.array([1, 1, 1, 1.5, 3], np.float32)[:, None]
    origin = file_of(tmp_path, "origin", np.ones(SIZE, np.float32))
    shares = list(combination(DivergenceMean(scale=0.5), updates_of(tmp_path, rows), origin).shares.values())
    np.testing.assert_allclose(shares, np.array([0.5, 0.5, 0.5, 0.25, 0]) / 1.75)


def test_a_layer_that_turned_round_does_not_count_and_the_sites_other_layers_do(tmp_path: Path) -> None:
    rows = np.full((5, SIZE), 0.1, np.float32)
    rows[4, :12] = -3  # the layer a.weight, beyond a right angle to its start
    rows[:, 12] = np.arange(5)  # the layer b begins at zero: declared weights
    start = np.ones(SIZE, np.float32)
    start[12] = 0
    made = result(LayerMean(), updates_of(tmp_path, rows), file_of(tmp_path, "origin", start))
    np.testing.assert_allclose(made, [0.1] * 12 + [2.0] + [0.1] * 5, rtol=1e-6)


@pytest.mark.parametrize(
    "spec", [Median(2), TrimmedMean(2), CentredClipping(1.0, 1), MultiKrum(1, selected=3)], ids=repr
)
def test_a_round_with_fewer_updates_than_the_claim_needs_is_refused(spec: Aggregation, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((spec.least_sites, SIZE)).astype(np.float32)
    origin = file_of(tmp_path, "origin", rows[0])
    updates = updates_of(tmp_path, rows)
    assert result(spec, updates, origin).shape == (SIZE,)
    with pytest.raises(BractError) as caught:
        combination(spec, updates[1:], origin)
    assert caught.value.code == QUORUM
