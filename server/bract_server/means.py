"""What the rounds of a campaign work with, and how they wait."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bract import flower
from bract.digest import Digest
from bract_server.arrays import ArrayStore
from bract_server.patience import Patience
from bract_server.registry.store import HubRegistry

_POLL_S = 0.2


class Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """The campaign was stopped from outside."""


@dataclass(frozen=True)
class Hub:
    """The registry, the arrays, the way to the sites, the clock and a wait that can be cut short.

    `patience` is how many refused contributions put a site into quarantine.
    """

    registry: HubRegistry
    store: ArrayStore
    grid: flower.Grid
    now: Callable[[], datetime]
    wait: Callable[[float], bool]
    patience: Patience = field(default_factory=Patience)

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            Stopped: when the campaign was stopped meanwhile.
        """
        if self.wait(_POLL_S):
            raise Stopped

    def discard(self, arrays: Sequence[Digest]) -> None:
        """Delete those arrays that the registry needs no longer."""
        for one in arrays:
            if not self.registry.keeps(one):
                self.store.discard(one)
