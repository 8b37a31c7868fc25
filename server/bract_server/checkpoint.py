"""From a round's accepted updates to the next encoder version on disk: one tensor at a time, atomic, named by digest.

The order is: new arrays and optimizer state are written, synced and renamed; then one registry transaction makes them the
encoder's next version. A crash in between leaves files that nothing names, and the round is simply closed again.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bract.arrays import Array, ArraysFile, Layout, read_layout, write_stream
from bract.digest import Digest
from bract.plan import ServerOptimizer
from bract_server.aggregate import Weighted, fedadam_step, fedavg_step, first_moment, second_moment, weighted_mean
from bract_server.arrays import ArrayStore


@dataclass(frozen=True)
class Written:
    """The files of a new version: its arrays, their size, and the optimizer's state (None for FedAvg)."""

    arrays: Digest
    arrays_bytes: int
    server_state: Digest | None


def write_version(
    store: ArrayStore, parent: Digest, state: Digest | None, optimizer: ServerOptimizer, updates: Sequence[Weighted]
) -> Written:
    """Average the updates, take the server's step from `parent`, and put the results into the store.

    Holds one tensor of a few arrays at a time, whatever the number of sites or layers.

    Raises:
        BractError: `no-quorum` without updates, `disk` when a file cannot be written.
    """
    layout = read_layout(store.path(parent))
    origin = ArraysFile(store.path(parent), layout)
    with tempfile.TemporaryDirectory(dir=store.scratch) as folder:
        mean = ArraysFile(Path(folder) / "mean", layout)
        write_stream(mean.path, layout, ((name, weighted_mean(name, updates)) for name in layout))
        moments = None
        if optimizer.kind == "fedadam":
            both = _moments_layout(layout)
            moments = ArraysFile(Path(folder) / "moments", both)
            before = None if state is None else ArraysFile(store.path(state), both)
            write_stream(moments.path, both, _moments(optimizer, mean, before))
        arrays = Path(folder) / "arrays"
        write_stream(arrays, layout, _steps(optimizer, origin, mean, moments))
        size = arrays.stat().st_size
        return Written(store.adopt(arrays), size, None if moments is None else store.adopt(moments.path))


def _steps(
    optimizer: ServerOptimizer, origin: ArraysFile, mean: ArraysFile, moments: ArraysFile | None
) -> Iterator[tuple[str, Array]]:
    for name in origin.layout:
        if moments is None:
            yield name, fedavg_step(optimizer, origin.read(name), mean.read(name))
        else:
            m, v = moments.read(f"m.{name}"), moments.read(f"v.{name}")
            yield name, fedadam_step(optimizer, origin.read(name), m, v)


def _moments_layout(layout: Layout) -> Layout:
    return {f"{kind}.{name}": shape for kind in "mv" for name, shape in layout.items()}


def _moments(optimizer: ServerOptimizer, mean: ArraysFile, before: ArraysFile | None) -> Iterator[tuple[str, Array]]:
    for kind, moment in (("m", first_moment), ("v", second_moment)):
        for name in mean.layout:
            key = f"{kind}.{name}"
            yield key, moment(optimizer, None if before is None else before.read(key), mean.read(name))
