"""From verified updates to new arrays: a weighted mean, then the server's optimizer. Pure, and streaming.

Updates are read from disk one tensor at a time and in the order of their sites' names, so that memory does not grow with the
number of sites and the result does not depend on who answered first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bract.arrays import Array
from bract.errors import QUORUM, BractError
from bract.plan import ServerOptimizer


@dataclass(frozen=True)
class Weighted:
    """One site's verified update, read tensor by tensor from disk, and its declared weight."""

    site: str
    weight: float
    read: Callable[[str], Array]


def weighted_mean(name: str, updates: Sequence[Weighted]) -> Array:
    """Σ w_k Δ_k / Σ w_k of one tensor, float32, with *declared* weights [McMahan et al. 2017, 1602.05629].

    Raises:
        BractError: `no-quorum` when there is no update.
    """
    if not updates:
        raise BractError(QUORUM, "there is nothing to average")
    ordered = sorted(updates, key=lambda update: update.site)
    total = sum(update.weight for update in ordered)
    first, *rest = ordered
    mean = first.read(name).astype(np.float64) * (first.weight / total)
    for update in rest:
        mean += (update.weight / total) * update.read(name)
    return mean.astype(np.float32)


def first_moment(optimizer: ServerOptimizer, before: Array | None, delta: Array) -> Array:
    """FedAdam's m of one tensor: β₁ m + (1 − β₁) Δ, from 0 [Reddi et al. 2021, 2003.00295, algorithm 2]."""
    m = np.zeros_like(delta) if before is None else before
    return (optimizer.beta1 * m + (1 - optimizer.beta1) * delta).astype(np.float32)


def second_moment(optimizer: ServerOptimizer, before: Array | None, delta: Array) -> Array:
    """FedAdam's v of one tensor: β₂ v + (1 − β₂) Δ², from τ²."""
    v = np.full_like(delta, optimizer.tau**2) if before is None else before
    return (optimizer.beta2 * v + (1 - optimizer.beta2) * np.square(delta)).astype(np.float32)


def fedadam_step(optimizer: ServerOptimizer, values: Array, m: Array, v: Array) -> Array:
    """The step x + η m / (√v + τ), without bias correction. A post-processing of noised updates: it costs no privacy."""
    return (values + optimizer.learning_rate * m / (np.sqrt(v) + optimizer.tau)).astype(np.float32)


def fedavg_step(optimizer: ServerOptimizer, values: Array, delta: Array) -> Array:
    """The step x + η Δ; with η = 1 the plain average of the sites' encoders."""
    return (values + optimizer.learning_rate * delta).astype(np.float32)
