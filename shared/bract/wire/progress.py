"""When a transfer last made progress: a peer that trickles, or has gone half-way, must not hold the other end for ever."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bract.wire.chunks import CHUNK

STEP = CHUNK
"""Bytes that count as progress; fewer are a trickle."""


class Progress:
    """What has passed since a transfer last made progress; `cut` ends it, from any thread."""

    def __init__(self, cut: Callable[[], object], at: float) -> None:
        """Begin at time `at`, in seconds of a steady clock."""
        self.cut, self._since, self._rest = cut, at, 0

    def moved(self, count: int, at: float) -> None:
        """So many more bytes have passed."""
        self._rest += count
        if self._rest >= STEP:
            self._rest, self._since = 0, at

    def stalled(self, stall_s: float, at: float) -> bool:
        """Whether no `STEP` bytes have passed for longer than `stall_s`."""
        return at - self._since > stall_s


@contextmanager
def watched(cut: Callable[[], object], stall_s: float, ticks: Callable[[], float]) -> Iterator[Callable[[int], None]]:
    """One transfer, while it lasts: it is told of the bytes that pass, and cut when it has stalled."""
    one, done = Progress(cut, ticks()), threading.Event()

    def look() -> None:
        while not done.wait(min(1.0, stall_s / 4)):
            if one.stalled(stall_s, ticks()):
                cut()
                return

    thread = threading.Thread(target=look, name="bract-stalled", daemon=True)
    thread.start()
    try:
        yield lambda count: one.moved(count, ticks())
    finally:
        done.set()
        thread.join()
