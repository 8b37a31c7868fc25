"""A version is written from whatever updates there are, by whatever rule, in the memory of a few blocks."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

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
from bract.arrays import Array, ArraysFile, Layout, count_of, read_arrays, write_arrays
from bract.digest import Digest
from bract.errors import DISK, NOT_FINITE, QUORUM, BractError
from bract.plan import ServerOptimizer
from bract_server.aggregate.updates import BLOCK, SiteUpdate
from bract_server.arrays import ArrayStore
from bract_server.checkpoint import write_version

RULES: tuple[Aggregation, ...] = (
    DeclaredMean(),
    DivergenceMean(),
    LayerMean(),
    Median(1),
    TrimmedMean(1),
    CentredClipping(5.0, 0, bucket=2),
    MultiKrum(1),
)
FORM: Layout = {"a": (3, 5), "b": (4,)}
WIDE: Layout = {"layers.0": (3 << 18,), "layers.1": (1 << 18, 2), "norm": (7,)}


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    return ArrayStore(tmp_path / "arrays", max_bytes=1 << 30, quota_bytes=1 << 32)


def kept(store: ArrayStore, form: Layout, seed: int, scale: float = 1.0) -> Digest:
    rng, path = np.random.default_rng(seed), store.scratch / "made"
    write_arrays(path, {name: scale * rng.standard_normal(shape, np.float32) for name, shape in form.items()})
    return store.adopt(path)


def of_sites(store: ArrayStore, form: Layout, files: list[Digest]) -> list[SiteUpdate]:
    return [SiteUpdate(f"s{n:03d}", 1.0, file, ArraysFile(store.path(file), form)) for n, file in enumerate(files)]


def numbers(store: ArrayStore, file: Digest, form: Layout) -> Array:
    return np.concatenate([array.ravel() for _, array in read_arrays(store.path(file), form)])


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_each_rule_makes_one_version_whoever_answers_first(store: ArrayStore, rule: Aggregation) -> None:
    parent, updates = kept(store, FORM, 0), of_sites(store, FORM, [kept(store, FORM, seed) for seed in range(1, 7)])
    optimizer = ServerOptimizer("fedadam", 0.1)
    one = write_version(store, parent, None, optimizer, rule, updates)
    two = write_version(store, parent, None, optimizer, rule, updates[::-1])
    assert one == two and one.server_state is not None
    after = write_version(store, one.arrays, one.server_state, optimizer, rule, updates)
    assert after.arrays != one.arrays and after.server_state != one.server_state
    assert sorted(path.name for path in store.scratch.iterdir()) == []


def test_the_mean_and_its_fedadam_step_are_the_formulas(store: ArrayStore) -> None:
    parent, files = kept(store, FORM, 0), [kept(store, FORM, seed) for seed in (1, 2, 3)]
    updates = [
        SiteUpdate(u.site, w, u.digest, u.arrays) for u, w in zip(of_sites(store, FORM, files), (1, 2, 5), strict=True)
    ]
    optimizer = ServerOptimizer("fedadam", 0.5, beta1=0.8, beta2=0.6, tau=0.1)
    m, v, x = np.zeros(19), np.full(19, 0.1**2), numbers(store, parent, FORM).astype(np.float64)
    mean = sum(w * numbers(store, file, FORM).astype(np.float64) for w, file in zip((1, 2, 5), files, strict=True)) / 8
    arrays, state = parent, None
    for _ in range(3):
        written = write_version(store, arrays, state, optimizer, DeclaredMean(), updates)
        arrays, state = written.arrays, written.server_state
        m, v = 0.8 * m + 0.2 * mean, 0.6 * v + 0.4 * mean**2
        x = x + 0.5 * m / (np.sqrt(v) + 0.1)
    np.testing.assert_allclose(numbers(store, arrays, FORM), x, rtol=1e-5, atol=1e-6)
    assert written.shares == {"s000": 1 / 8, "s001": 2 / 8, "s002": 5 / 8}


def test_what_does_not_become_a_version_leaves_nothing_behind(store: ArrayStore) -> None:
    parent, good = kept(store, FORM, 0), kept(store, FORM, 1)
    huge = kept(store, FORM, 2, scale=1e38)
    cases = [
        ([], QUORUM, ServerOptimizer("fedavg")),
        ([huge], NOT_FINITE, ServerOptimizer("fedavg", 10.0)),
        ([good, Digest("sha256:" + "0" * 64)], DISK, ServerOptimizer("fedavg")),
    ]
    before = sorted(store.path(parent).parent.glob("*.safetensors"))
    for files, code, optimizer in cases:
        with pytest.raises(BractError) as caught, np.errstate(over="ignore"):
            write_version(store, parent, None, optimizer, DeclaredMean(), of_sites(store, FORM, files))
        assert caught.value.code == code
    assert sorted(store.path(parent).parent.glob("*.safetensors")) == before
    assert sorted(store.scratch.iterdir()) == []


@pytest.mark.nightly
def test_memory_is_a_few_blocks_whatever_the_sites_the_layers_and_the_rule(store: ArrayStore) -> None:
    """With 24 sites as with 5, and less than the 24 updates would take by far; measured where numpy allocates."""
    parent, file = kept(store, WIDE, 0), kept(store, WIDE, 1)
    assert count_of(WIDE) > BLOCK

    def peak(rule: Aggregation, sites: int) -> int:
        updates = of_sites(store, WIDE, [file] * sites)
        tracemalloc.start()
        try:
            write_version(store, parent, None, ServerOptimizer("fedadam"), rule, updates)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    block = 4 * BLOCK
    for rule in RULES:
        few, many = peak(rule, 5), peak(rule, 24)
        assert many <= 1.1 * few + (1 << 20), f"{rule.kind}: {few} bytes with 5 sites, {many} with 24"
        assert many <= 12 * block < 24 * 4 * count_of(WIDE), f"{rule.kind}: {many} bytes"
