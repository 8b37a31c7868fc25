"""Coordinate by coordinate: the median, and the mean without the extremes.

What is claimed: of n > 2f sites, let any f send anything finite, together and knowing the others' updates. Each coordinate of
the result then lies between the least and the greatest value that honest sites sent for it; nothing more. Honest values are
noised: the more noise, the wider the range within which f sites may choose, and a median of noised values keeps more noise than
their mean (for many sites its variance is π/2 times as large). Neither rule finds who lied, nor keeps a backdoor out that fits
into the noise.
"""

from collections.abc import Sequence

import numpy as np

from bract.aggregation import TrimmedMean
from bract.arrays import Array
from bract_server.aggregate.combination import Combination, as_floats, one_voice
from bract_server.aggregate.updates import Matrix, SiteUpdate


def median(updates: Sequence[SiteUpdate]) -> Combination:
    """Each coordinate's median, of an even number the mean of the middle two [Yin et al. 2018, 1803.01498]."""
    below, above = (len(updates) - 1) // 2, len(updates) // 2

    def block(rows: Matrix) -> Array:
        rows.sort(axis=0)
        return as_floats((rows[below].astype(np.float64) + rows[above]) / 2)

    return one_voice(updates, block)


def trimmed_mean(spec: TrimmedMean, updates: Sequence[SiteUpdate]) -> Combination:
    """Each coordinate's mean without its f least and f greatest values [Yin et al. 2018, 1803.01498]."""
    kept = slice(spec.byzantine, len(updates) - spec.byzantine)

    def block(rows: Matrix) -> Array:
        rows.sort(axis=0)
        return as_floats(rows[kept].mean(axis=0, dtype=np.float64))

    return one_voice(updates, block)
