"""Multi-Krum [Blanchard et al. 2017, 1703.02757].

What is claimed: the theorem (proposition 4.2) is of Krum, m = 1, with n ≥ 2f + 3 and honest updates that are independent draws
of one distribution, whose deviation times √d and a factor that grows with n stays below the length of their mean. Private
updates of a large encoder do not meet the last: distances between honest updates are then nearly all noise, and Krum picks one
of them at random [Guerraoui et al. 2021, 2102.08166]. What is left is that an update far beyond the noise is not picked.
Averaging m of them brings the noise down, and leaves the theorem behind.
"""

from collections.abc import Sequence

import numpy as np

from bract.aggregation import MultiKrum
from bract_server.aggregate.combination import Combination, weighted
from bract_server.aggregate.gram import gram, squared_distances
from bract_server.aggregate.updates import SiteUpdate


def multi_krum(spec: MultiKrum, updates: Sequence[SiteUpdate]) -> Combination:
    """The mean of the m updates whose squared distances to their n − f − 2 nearest sum least; of equals, the first by name."""
    neighbours = len(updates) - spec.byzantine - 2
    distances = squared_distances(gram([update.arrays for update in updates]))
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :neighbours].sum(1)
    picked = set(np.argsort(scores, kind="stable")[: spec.selected].tolist())
    return weighted(updates, [1 / spec.selected if place in picked else 0.0 for place in range(len(updates))])
