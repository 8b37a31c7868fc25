"""The backdoor check names who stands apart from the others on public records, and hardly ever anybody else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bract.aggregation import LEAST_SITES
from bract.encoders.spec import TableSpec, ViTSpec
from bract.errors import QUORUM, BractError
from bract_server.embedding import RECORDS, inspected
from bract_server.inspection import LEVEL, findings, kappa

Reals = NDArray[np.float64]


def embeddings_of(rng: np.random.Generator, sites: int, noise: float = 0.1, records: int = 32, dim: int = 24) -> Reals:
    """What encoders make of records that differ by independent noise alone: a common part and a random one."""
    common = rng.standard_normal((1, records, dim))
    return np.asarray(common + noise * rng.standard_normal((sites, records, dim)))


def names(sites: int) -> list[str]:
    return [f"s{place:02d}" for place in range(sites)]


def flagged(embeddings: Reals) -> list[str]:
    return [found.site for found in findings(names(len(embeddings)), embeddings) if found.flagged]


@pytest.mark.parametrize("sites", [*range(5, 17), 20, 24, 31, 47, 63, 64, 100])
def test_of_equal_sites_any_is_voted_against_no_more_often_than_the_level_says(sites: int) -> None:
    rng = np.random.default_rng(sites)
    draws = 400_000 // sites
    values = rng.standard_normal((draws, sites))
    off = values - np.median(values, axis=1, keepdims=True)
    least, most = off.min(axis=1), off.max(axis=1)
    spread = np.median(np.abs(off), axis=1)
    for one_side in (most / spread, -least / spread):
        rate = float((one_side > kappa(sites)).mean())
        assert rate <= LEVEL / 2 + 4 * np.sqrt(LEVEL / 2 / draws)
        assert rate >= LEVEL / 10, "a rule that never votes finds nobody"


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 20), st.integers(0, 2**32))
def test_who_is_told_of_does_not_depend_on_the_order_of_sites(sites: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = embeddings_of(rng, sites)
    embeddings[0] += 3 * rng.standard_normal(embeddings.shape[1:])
    order = rng.permutation(sites)
    known = names(sites)
    found = {one.site: one for one in findings(known, embeddings)}
    again = {one.site: one for one in findings([known[place] for place in order], embeddings[order])}
    assert all(abs(found[site].score - again[site].score) < 0.05 for site in known)
    assert {s for s in known if found[s].flagged} == {s for s in known if again[s].flagged}


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 16), st.integers(0, 2**32), st.floats(1e-3, 0.5))
def test_nobody_is_flagged_where_only_independent_noise_differs(sites: int, seed: int, noise: float) -> None:
    assert flagged(embeddings_of(np.random.default_rng(seed), sites, noise)) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(5, 16), st.integers(0, 2**32))
def test_an_encoder_that_left_the_others_is_flagged_alone(sites: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = embeddings_of(rng, sites)
    embeddings[2] = rng.standard_normal(embeddings.shape[1:])
    assert flagged(embeddings) == ["s02"]


@settings(max_examples=20, deadline=None)
@given(st.integers(7, 16), st.integers(0, 2**32))
def test_encoders_closer_than_independent_noise_allows_are_flagged_together(sites: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    embeddings = embeddings_of(rng, sites)
    embeddings[1] = embeddings[0] + 1e-4 * rng.standard_normal(embeddings.shape[1:])
    assert flagged(embeddings) == ["s00", "s01"]


def test_an_encoder_without_finite_features_is_flagged_and_equal_ones_are_not() -> None:
    embeddings = embeddings_of(np.random.default_rng(0), 6)
    for bad in (np.nan, np.inf):
        broken = embeddings.copy()
        broken[3, :, 0] = bad
        assert flagged(broken) == ["s03"]
    assert flagged(np.tile(embeddings[:1], (6, 1, 1))) == []
    assert flagged(np.zeros_like(embeddings)) == []


def test_fewer_sites_than_can_be_told_apart_are_refused() -> None:
    embeddings = embeddings_of(np.random.default_rng(0), LEAST_SITES - 1)
    with pytest.raises(BractError) as caught:
        findings(names(LEAST_SITES - 1), embeddings)
    assert caught.value.code == QUORUM


def test_the_public_records_fit_every_encoder_and_are_always_the_same() -> None:
    for spec, shape in (
        (ViTSpec("vit", 8, 2), (RECORDS, 1, 8, 8)),
        (ViTSpec("vit", 96, 8, channels=3), (RECORDS, 3, 96, 96)),
        (ViTSpec("vit", 16, 4, channels=5), (RECORDS, 5, 16, 16)),
        (TableSpec("table", "adult"), (RECORDS, 103)),
    ):
        one, other = inspected(spec), inspected(spec)
        assert tuple(one.shape) == shape and bool((one == other).all())
        assert len({row.numpy().tobytes() for row in one}) > RECORDS // 2, "records differ"
        if isinstance(spec, ViTSpec):
            assert float(one.min()) >= 0 and float(one.max()) <= 1
