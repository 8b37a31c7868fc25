"""How the sum of clipped gradients is computed: one contract, three engines.

bract    book-keeping: one forward, one backward, no per-subject gradient is ever whole (`bract.dpsgd.bookkeeping`)
vmap     each subject's gradient by `torch.func`, the reference
opacus   each subject's gradient by Opacus' hooks, another reference
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from torch import Tensor

from bract.dpsgd.engines import EngineName
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective


@dataclass(frozen=True)
class ClippedSum:
    """What is noised.

    Attributes:
        gradients: one a trained parameter, in the order of `trained`; the sum over units of gradients clipped to C.
        dropped: units whose gradient was not finite and counted as zero. Private: it stays where it was counted.
    """

    gradients: tuple[Tensor, ...]
    dropped: int


class Clipper(Protocol):
    """Computes clipped sums of an objective.

    Attributes:
        slack: no unit adds more than C·(1 + slack); what floating point leaves open is stated by each engine.
    """

    @property
    def slack(self) -> float:
        """See above."""

    def clipped_sum(self, batch: Batch, clip: float) -> ClippedSum:
        """The sum over units of their gradients, each scaled to an L2 norm of at most `clip` over all parameters.

        Raises:
            BractError: `no-certificate`, naming the layer, for a model that the engine cannot bound.
        """


Engine = Callable[[Objective], Clipper]
"""From an objective to its clipper; audits put a faulty one in its place, to see it caught."""


def trained(objective: Objective) -> dict[str, Tensor]:
    """The parameters that are trained, by name, each once."""
    return {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}


def engine(name: EngineName = "bract", *, tune: bool = True) -> Engine:
    """The engine of that name; each loads its own libraries.

    Args:
        name: which.
        tune: whether ours measures its routes; without, the last bits are the same in every run on one machine.
    """
    match name:
        case "bract":
            from bract.dpsgd.bookkeeping.clipper import BookKeeping  # noqa: PLC0415

            return partial(BookKeeping, tune=tune)
        case "vmap":
            from bract.dpsgd.vmap import VmapClipper  # noqa: PLC0415

            return VmapClipper
        case "opacus":
            from bract.dpsgd.opacus.clipper import OpacusClipper  # noqa: PLC0415

            return OpacusClipper
