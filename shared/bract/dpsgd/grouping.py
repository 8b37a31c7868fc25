"""From subjects to groups by independent coins [hash buckets: a correction of Li et al. 2026, 2604.26467].

Each subject falls into one of M groups by a coin of its own; of a group with more members than places, those with the
least priorities stay, and priorities are coins too. So adding a subject changes one group and no other, whatever the
others drew; splitting a batch into groups of equal size does not have this property.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from bract.objectives.batch import Batch


def groups(sampling_rate: float, subjects_floor: int, group_size: int) -> int:
    """M, public: as many groups as make `group_size` members expected, at least one."""
    return max(1, round(sampling_rate * subjects_floor / group_size))


def grouped(subjects: Batch, count: int, capacity: int, uniforms: NDArray[np.float64]) -> Batch:
    """Groups (count, capacity, …) of subjects (n, 1, …); places that nobody fills are absent.

    Args:
        subjects: with one record each.
        count: M.
        capacity: places in a group.
        uniforms: (2, n), independent in (0, 1]: which group, and which priority.
    """
    group = np.minimum((uniforms[0] * count).astype(np.int64), count - 1)
    order = np.lexsort((uniforms[1], group))
    ranked = group[order]
    starts = np.searchsorted(ranked, np.arange(count))
    place = np.arange(len(ranked)) - starts[ranked]
    kept = place < capacity
    slots = torch.from_numpy((ranked * capacity + place)[kept])
    who = torch.from_numpy(order[kept])
    spread = []
    for each in (subjects.records, subjects.present, subjects.draws):
        empty = each.new_zeros(count * capacity, *each.shape[2:])
        empty[slots] = each[who, 0]
        spread.append(empty.reshape(count, capacity, *each.shape[2:]))
    return Batch(*spread)
