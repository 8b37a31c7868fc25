"""Every rule again, written out on whole matrices in float64, and updates as files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bract.aggregation import CentredClipping, DivergenceMean, Median, MultiKrum, TrimmedMean
from bract.arrays import ArraysFile, to_bytes
from bract.digest import digest_file
from bract_server.aggregate.rule import combination, combined
from bract_server.aggregate.updates import SiteUpdate

LAYOUT = {"a.weight": (4, 3), "b": (1,), "c.bias": (5,)}
SIZE = 18
Rows = NDArray[np.float64]


def arrays_of(row: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """A vector as the tensors of `LAYOUT`."""
    ends = np.cumsum([int(np.prod(shape)) for shape in LAYOUT.values()])[:-1]
    parts = np.split(row.astype(np.float32), ends)
    return {name: part.reshape(shape) for part, (name, shape) in zip(parts, LAYOUT.items(), strict=True)}


def file_of(folder: Path, name: str, row: NDArray[np.float32]) -> ArraysFile:
    """A vector on disk."""
    path = folder / name
    path.write_bytes(to_bytes(arrays_of(row)))
    return ArraysFile(path, LAYOUT)


def updates_of(folder: Path, rows: NDArray[np.float32], weights: Sequence[float] | None = None) -> list[SiteUpdate]:
    """One update a row, of sites named in the rows' order."""
    made = [file_of(folder, f"s{place:03d}", row) for place, row in enumerate(rows)]
    known = weights or [1.0] * len(rows)
    return [SiteUpdate(f.path.name, w, digest_file(f.path), f) for f, w in zip(made, known, strict=True)]


def result(spec: object, updates: Sequence[SiteUpdate], origin: ArraysFile) -> NDArray[np.float32]:
    """What the rule under test makes of them."""
    rule = combination(spec, updates, origin)  # type: ignore[arg-type]
    return np.concatenate(list(combined(rule, updates)))


def expected(spec: object, rows: Rows, weights: Rows, origin: Rows, digests: Sequence[str]) -> Rows:
    """The same, by the papers' formulas."""
    n = len(rows)
    match spec:
        case DivergenceMean():
            norms = np.array([np.linalg.norm(row) for row in rows])
            middle = np.median(norms) or 1e-300  # where most have not moved, only they count
            weights = weights * np.array([1 - min(spec.scale * norm / middle, 1) for norm in norms])
        case Median():
            return np.asarray(np.median(rows, axis=0))
        case TrimmedMean():
            return np.asarray(np.sort(rows, axis=0)[spec.byzantine : n - spec.byzantine].mean(0))
        case CentredClipping():
            return _clipped(spec, rows, digests)
        case MultiKrum():
            scores = []
            for row in rows:
                apart = np.sort(((rows - row) ** 2).sum(1))[1 : n - spec.byzantine - 1]
                scores.append(float(apart.sum()))
            return np.asarray(rows[np.argsort(scores, kind="stable")[: spec.selected]].mean(0))
        case _ if getattr(spec, "kind", "") == "l-dawa":
            return _by_layer(rows, weights, origin)
    return np.asarray(weights @ rows / weights.sum())


def _by_layer(rows: Rows, weights: Rows, origin: Rows) -> Rows:
    out, at = [], 0
    for shape in LAYOUT.values():
        part = slice(at, at + int(np.prod(shape)))
        at = part.stop
        start, factors = origin[part], []
        for row, weight in zip(rows, weights, strict=True):
            ours = start + row[part]
            length = np.linalg.norm(ours) * np.linalg.norm(start)
            factors.append(weight * max(float(ours @ start) / length, 0.0) if length else 0.0)
        shares = np.array(factors) if sum(factors) > 0 else weights
        out.append(shares @ rows[:, part] / shares.sum())
    return np.concatenate(out)


def _clipped(spec: CentredClipping, rows: Rows, digests: Sequence[str]) -> Rows:
    key = int.from_bytes(hashlib.sha256("".join(digests).encode()).digest()[:16], "big")
    order = np.random.Generator(np.random.Philox(key=key)).permutation(len(rows))
    means = [rows[order[at : at + spec.bucket]].mean(0) for at in range(0, len(rows), spec.bucket)]
    centre = np.zeros(rows.shape[1])
    for _ in range(spec.iterations):
        moved = [
            (mean - centre) * min(1, spec.radius / max(float(np.linalg.norm(mean - centre)), 1e-300)) for mean in means
        ]
        centre = centre + np.mean(moved, axis=0)
    return centre
