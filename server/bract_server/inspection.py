"""The backdoor check: sites' encoders are compared on public records, and who stands apart is named. Pure.

After EmInspector [Qian et al. 2024, 2405.13080], which has each inspection image vote by the cosine similarity between the
embeddings of the sites' models, because planted behaviour sets a model apart there even when its update is as long as any. The
rule is our own. On each record two cosine distances of a site to the others count, in logarithms: the median one, which tells
an encoder that has left the others, and the least, which tells encoders that are closer than independent noise allows. Beyond
κ(n) median deviations above the sites' median, or below it, the record votes against the site; a quarter of them flag it.

How often an honest site is flagged: were each distance a normal draw of one distribution for all honest sites, any site would
be voted against on at most `LEVEL` of the records, and by Markov's inequality at most 4 · `LEVEL` of the rounds flag anybody.
Sites whose data differ much from the others' break that assumption; hence `flag` before `exclude`. How much escapes: with few
sites κ is great, noise hides whatever is of its own size, and half of the sites or more together are never flagged.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bract.aggregation import LEAST_SITES
from bract.errors import QUORUM, BractError

Reals = NDArray[np.float64]

LEVEL = 0.01
"""The chance per record that any of n equal sites is voted against, both ways together."""

_KAPPA = (
    (5, 28.5),
    (6, 16.1),
    (8, 12.7),
    (10, 10.7),
    (12, 9.7),
    (14, 9.1),
    (16, 8.6),
    (20, 8.0),
    (24, 7.6),
    (32, 7.2),
    (48, 6.8),
    (64, 6.6),
)
"""κ from so many sites on: the 1 − `LEVEL`/2 quantile of the greatest deviation in median deviations; simulated, rounded up."""

_LEAST_DISTANCE = 1e-9
_LEAST_DEVIATION = 0.01
"""Distances closer together than 1 % are alike, whatever their median deviation."""

_QUARTER = 0.25


@dataclass(frozen=True)
class Finding:
    """What the public records say of one site: the share of them that voted against it, and whether that flags it."""

    site: str
    score: float
    flagged: bool


def findings(sites: Sequence[str], embeddings: Reals) -> tuple[Finding, ...]:
    """Judge sites by their encoders' features (n, r, dim) of r public records.

    Raises:
        BractError: `no-quorum` for fewer sites than can be told apart.
    """
    if len(sites) < LEAST_SITES:
        raise BractError(QUORUM, f"inspection: {len(sites)} of at least {LEAST_SITES} sites")
    others = np.log(_distances(embeddings) + _LEAST_DISTANCE)
    limit = kappa(len(sites))
    away, near = _deviations(np.median(others, axis=2)) > limit, _deviations(others.min(axis=2)) < -limit
    scores = np.asarray(away | near).mean(axis=0)
    return tuple(Finding(site, round(float(s), 6), bool(s > _QUARTER)) for site, s in zip(sites, scores, strict=True))


def kappa(sites: int) -> float:
    """Median deviations beyond which a record votes against one of so many sites."""
    return next(value for least, value in reversed(_KAPPA) if sites >= least)


def _deviations(values: Reals) -> Reals:
    """How far each site (r, n) is from the median of all, in median deviations."""
    off = values - np.median(values, axis=1, keepdims=True)
    spread = np.median(np.abs(off), axis=1, keepdims=True)
    return np.asarray(off / np.maximum(spread, _LEAST_DEVIATION))


def _distances(embeddings: Reals) -> Reals:
    """Cosine distances to the others, on each record (r, n, n − 1); 2, the greatest, where an embedding is not finite."""
    whole: NDArray[np.bool_] = np.all(np.isfinite(embeddings), axis=2)
    clean = np.where(whole[..., None], embeddings, 0)
    lengths = np.linalg.norm(clean, axis=2, keepdims=True)
    unit = np.divide(clean, lengths, out=np.zeros_like(clean), where=lengths > 0)
    apart = np.maximum(1 - np.einsum("ird,jrd->rij", unit, unit), 0)
    apart = np.where(whole.T[:, :, None] & whole.T[:, None, :], apart, 2)
    count = len(embeddings)
    return apart[:, ~np.eye(count, dtype=bool)].reshape(len(apart), count, count - 1)
