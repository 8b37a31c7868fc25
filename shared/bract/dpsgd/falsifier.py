"""The falsifier: tries to catch an objective whose sum moves further than declared when one subject is added.

It can refute a bound and never prove one. All draws of the others are held fixed (common random numbers), so what
moves is the subject's influence alone.
"""

from collections.abc import Callable

import torch

from bract.dpsgd.gradients import Batch, ClippedSum, Gradients, subject_gradients
from bract.objectives.objective import Objective


def movement(
    objective: Objective,
    others: Batch,
    added: Batch,
    clip: float,
    gradients: Callable[[Objective, Batch], Gradients] = subject_gradients,
) -> float:
    """‖sum(others and added) − sum(others)‖ / C through the engine itself: at most 1 for a per-record objective.

    Args:
        objective: under test.
        others: subjects that are there both times.
        added: one subject more, with records, masks and m of the same shapes.
        clip: C.
        gradients: the engine's own, or a faulty one that must be caught.
    """
    sums = ClippedSum(objective, gradients)
    both = Batch(
        *(torch.cat([getattr(others, part), getattr(added, part)]) for part in ("records", "present", "masks"))
    )
    return float((sums.of(both, clip) - sums.of(others, clip)).norm()) / clip
