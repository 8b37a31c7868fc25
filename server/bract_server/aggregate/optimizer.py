"""The server's step: what an encoder becomes by the round's one update. A post-processing: it costs no privacy."""

import numpy as np

from bract.arrays import Array
from bract.plan import ServerOptimizer


def first_moment(optimizer: ServerOptimizer, before: Array | None, delta: Array) -> Array:
    """FedAdam's m: β₁ m + (1 − β₁) Δ, from 0 [Reddi et al. 2021, 2003.00295, algorithm 2]."""
    m = np.zeros_like(delta) if before is None else before
    return (optimizer.beta1 * m + (1 - optimizer.beta1) * delta).astype(np.float32)


def second_moment(optimizer: ServerOptimizer, before: Array | None, delta: Array) -> Array:
    """FedAdam's v: β₂ v + (1 − β₂) Δ², from τ²."""
    v = np.full_like(delta, optimizer.tau**2) if before is None else before
    return (optimizer.beta2 * v + (1 - optimizer.beta2) * np.square(delta)).astype(np.float32)


def fedadam_step(optimizer: ServerOptimizer, values: Array, m: Array, v: Array) -> Array:
    """The step x + η m / (√v + τ), without bias correction."""
    return (values + optimizer.learning_rate * m / (np.sqrt(v) + optimizer.tau)).astype(np.float32)


def fedavg_step(optimizer: ServerOptimizer, values: Array, delta: Array) -> Array:
    """The step x + η Δ; with η = 1 the combination of the sites' encoders."""
    return (values + optimizer.learning_rate * delta).astype(np.float32)
