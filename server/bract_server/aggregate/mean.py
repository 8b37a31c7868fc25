"""The mean by declared weights."""

from collections.abc import Sequence

from bract_server.aggregate.combination import Combination, weighted
from bract_server.aggregate.updates import SiteUpdate


def declared_mean(updates: Sequence[SiteUpdate]) -> Combination:
    """Σ w_k Δ_k / Σ w_k with *declared* weights [McMahan et al. 2017, 1602.05629]. One site can move it anywhere."""
    total = sum(update.weight for update in updates)
    return weighted(updates, [update.weight / total for update in updates])
