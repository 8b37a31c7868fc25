"""What one run of the benchmark is, as a value that travels to its processes."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

ENGINES = ("plain", "bract", "opacus-hooks", "opacus-ghost", "vmap")
"""The columns; every ratio is to `plain`, which always runs."""

Attention = Literal["fused", "written-out"]


@dataclass(frozen=True)
class Settings:
    """How every workload is run.

    Attributes:
        batch: units in one logical step.
        physical: units in one forward pass at most. Opacus' hooks take fewer where whole gradients would pass 2 GB,
            vmap takes the number that is fastest, and `plain` may take the whole batch if that is faster.
        rounds: how often each engine takes a step that is timed.
        peers_every: engines other than `plain` and `bract` join only every so many rounds.
        threads: of torch.
        device: `cpu` or `cuda`; on the latter forward passes run under bf16 autocast.
        compile: also try `torch.compile`, for `plain` and `bract`, and take the faster.
        memory: whether peak memory is measured, in processes of their own.
        small: models and data of a few seconds, for CI.
        clip: C.
        noise: σ as a multiple of C.
        attention: what `plain` found faster, and the others then use.
        compiled: as found faster by the engine whose memory is measured.
    """

    batch: int = 256
    physical: int = 128
    rounds: int = 20
    peers_every: int = 1
    threads: int = 1
    device: str = "cpu"
    compile: bool = False
    memory: bool = True
    small: bool = False
    clip: float = 1.0
    noise: float = 1.0
    attention: Attention = "fused"
    compiled: bool = False

    def changed(self, **changes: Any) -> Self:
        """The same with some fields replaced."""
        return replace(self, **changes)
