"""From a round's accepted updates to the next encoder version on disk: block by block, atomic, named by digest.

The order is: new arrays and optimizer state are written, synced and renamed; then one registry transaction makes them the
encoder's next version. A crash in between leaves files that nothing names, and the round is simply closed again.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from bract.aggregation import Aggregation
from bract.arrays import Array, ArraysFile, Layout, count_of, read_layout, write_blocks
from bract.digest import Digest
from bract.plan import ServerOptimizer
from bract_server.aggregate.optimizer import fedadam_step, fedavg_step, first_moment, second_moment
from bract_server.aggregate.rule import combination, combined
from bract_server.aggregate.updates import SiteUpdate, vector
from bract_server.arrays import ArrayStore


@dataclass(frozen=True)
class Written:
    """A new version: its arrays' file and size, the optimizer's state (None for FedAvg), and each site's share in it."""

    arrays: Digest
    arrays_bytes: int
    server_state: Digest | None
    shares: Mapping[str, float]


def write_version(
    store: ArrayStore,
    parent: Digest,
    state: Digest | None,
    optimizer: ServerOptimizer,
    aggregation: Aggregation,
    updates: Sequence[SiteUpdate],
) -> Written:
    """Make one update of the sites' by the plan's rule, take the server's step from `parent`, put the results into the store.

    Holds a few blocks at a time, whatever the number of sites, layers or numbers in one.

    Raises:
        BractError: `no-quorum` for fewer updates than the rule's claim needs; `not-finite` when the step leaves what float32
            holds; `disk` when a file cannot be written.
    """
    layout = read_layout(store.path(parent))
    origin = ArraysFile(store.path(parent), layout)
    with tempfile.TemporaryDirectory(dir=store.scratch) as folder:
        rule = combination(aggregation, updates, origin)
        update = ArraysFile(Path(folder) / "update", layout)
        write_blocks(update.path, layout, combined(rule, updates))
        moments = None
        if optimizer.kind == "fedadam":
            both = _moments_layout(layout)
            moments = ArraysFile(Path(folder) / "moments", both)
            before = None if state is None else ArraysFile(store.path(state), both)
            write_blocks(moments.path, both, _moments(optimizer, update, before))
        arrays = Path(folder) / "arrays"
        write_blocks(arrays, layout, _steps(optimizer, origin, update, moments))
        size = arrays.stat().st_size
        kept = None if moments is None else store.adopt(moments.path)
        return Written(store.adopt(arrays), size, kept, rule.shares)


def _steps(
    optimizer: ServerOptimizer, origin: ArraysFile, update: ArraysFile, moments: ArraysFile | None
) -> Iterator[Array]:
    if moments is None:
        for values, delta in zip(vector(origin), vector(update), strict=True):
            yield fedavg_step(optimizer, values, delta)
        return
    size = count_of(origin.layout)
    for values, m, v in zip(vector(origin), vector(moments, 0, size), vector(moments, size), strict=True):
        yield fedadam_step(optimizer, values, m, v)


def _moments_layout(layout: Layout) -> Layout:
    """Both moments in one file: sorted by name, all of m comes before all of v."""
    return {f"{kind}.{name}": shape for kind in "mv" for name, shape in layout.items()}


def _moments(optimizer: ServerOptimizer, update: ArraysFile, before: ArraysFile | None) -> Iterator[Array]:
    size = count_of(update.layout)
    for at, moment in ((0, first_moment), (size, second_moment)):
        old: Iterator[Array | None] = repeat(None) if before is None else vector(before, at, at + size)
        for delta, kept in zip(vector(update), old, strict=False):  # `repeat` has no end
            yield moment(optimizer, kept, delta)
