"""How much of the hub one site may take: calls, uploads, room, and how long it may keep the hub waiting.

Rules:
    1. No site calls more often than its bucket fills.
    2. No site has more than a few calls under way, and of these fewer uploads.
    3. A request, and each further MiB of a transfer, come within `stall_s`; a slower caller is cut off. What came of
       an upload stays, and may be continued.
    4. What one site sent and the hub still holds stays within `site_bytes`.

Nothing here looks at a clock: `Share` is given one.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Annotated

from pydantic import Field

from bract.digest import Digest
from bract.errors import CONCURRENT, DISK, TOO_OFTEN, BractError
from bract.value import strict
from bract.wire.progress import Progress

MAX_BODY = 8 << 20
"""Bytes of one request at Flower's door: two envelopes of the largest size and what else a message asks; arrays do not come
this way."""

_LOG = logging.getLogger(__name__)


@strict
@dataclass(frozen=True)
class Limits:
    """What an operator lets one site take.

    Attributes:
        calls: a site's calls under way.
        uploads: of these, arrays that it sends.
        calls_per_s: its calls a second over a longer time.
        burst: its calls that may come at once after a rest.
        stall_s: seconds in which a request, and each further MiB of a transfer, must come or go.
        site_bytes: arrays of one site that the hub holds.
        connections: of all sites together.
        keepalive_s: seconds of silence after which a connection with a call under way is probed.
        fleet_bytes_per_s: bytes a second over a longer time that an address moves through Flower's door, both ways together.
        fleet_burst: its bytes that may pass at once after a rest.
    """

    calls: Annotated[int, Field(ge=1, le=1024)] = 16
    uploads: Annotated[int, Field(ge=1, le=1024)] = 4
    calls_per_s: Annotated[float, Field(gt=0, le=1e6)] = 50.0
    burst: Annotated[int, Field(ge=1, le=10**6)] = 200
    stall_s: Annotated[float, Field(gt=0, le=3600)] = 120.0
    site_bytes: Annotated[int, Field(ge=1, le=1 << 50)] = 16 << 30
    connections: Annotated[int, Field(ge=1, le=10**6)] = 1024
    keepalive_s: Annotated[float, Field(ge=0.1, le=3600)] = 30.0
    fleet_bytes_per_s: Annotated[float, Field(gt=0, le=1e12)] = 4.0 * (1 << 20)
    fleet_burst: Annotated[int, Field(ge=1 << 20, le=1 << 50)] = 1 << 30


@dataclass(frozen=True)
class Bucket:
    """A token bucket [RFC 2215 §3.6] as it was left at time `at`, in seconds of any steady clock."""

    level: float
    at: float

    def filled(self, rate: float, depth: float, at: float) -> "Bucket":
        """The bucket now; a clock that goes back fills nothing.

        Args:
            rate: tokens that flow in, a second.
            depth: most tokens that it holds.
            at: now.
        """
        return Bucket(min(depth, self.level + max(0.0, at - self.at) * rate), max(at, self.at))

    def taken(self, rate: float, depth: float, at: float, count: float = 1) -> "Bucket":
        """The bucket after more tokens are taken, the last of which may be owed; the arguments as of `filled`.

        Raises:
            BractError: `too-often` when there is no whole token in it.
        """
        now = self.filled(rate, depth, at)
        if now.level < 1:
            raise BractError(TOO_OFTEN)
        return now.less(count)

    def less(self, count: float) -> "Bucket":
        """The bucket without so many tokens; below zero they are owed."""
        return Bucket(self.level - count, self.at)


@dataclass
class _Sent:
    size: int
    arriving: int = 0


class Share:
    """What each site takes now, held against the limits; several threads may use it at once."""

    def __init__(self, limits: Limits, held: Callable[[Digest], bool], ticks: Callable[[], float]) -> None:
        """Begin with nothing taken.

        Args:
            limits: what one site may take.
            held: whether anything of an array is still here.
            ticks: a steady clock, in seconds.
        """
        self._limits, self._held, self._ticks = limits, held, ticks
        self._lock = Lock()
        self._buckets: dict[str, Bucket] = {}
        self._under_way: dict[tuple[str, str], int] = {}
        self._sent: dict[str, dict[Digest, _Sent]] = {}
        self._moving: dict[int, Progress] = {}

    def call(self, site: str) -> None:
        """The site calls (rule 1).

        Raises:
            BractError: `too-often`.
        """
        with self._lock:
            at = self._ticks()
            bucket = self._buckets.get(site, Bucket(self._limits.burst, at))
            self._buckets[site] = bucket.taken(self._limits.calls_per_s, self._limits.burst, at)

    @contextmanager
    def turn(self, site: str) -> Iterator[None]:
        """One of the site's calls, while it lasts (rule 2).

        Raises:
            BractError: `concurrent`.
        """
        with self._one_of(site, "calls", self._limits.calls):
            yield

    @contextmanager
    def upload(self, site: str, digest: Digest, size: int) -> Iterator[None]:
        """An array that the site sends, while it arrives (rules 2 and 4).

        Raises:
            BractError: `concurrent`; `disk` when the site's share is used up.
        """
        with self._one_of(site, "uploads", self._limits.uploads):
            sent = self._room(site, digest, size)
            try:
                yield
            finally:
                with self._lock:
                    sent.arriving -= 1

    @contextmanager
    def moving(self, cut: Callable[[], object]) -> Iterator[Callable[[int], None]]:
        """Something arrives or leaves, while it lasts: the function it is given is told of each bytes passed (rule 3).

        Args:
            cut: ends it, from another thread.
        """
        one = Progress(cut, self._ticks())
        with self._lock:
            self._moving[id(one)] = one
        try:
            yield lambda count: one.moved(count, self._ticks())
        finally:
            with self._lock:
                del self._moving[id(one)]

    def cut_stalled(self) -> int:
        """Ends whatever made no progress for too long (rule 3); how many that were."""
        at = self._ticks()
        with self._lock:
            stalled = [one for one in self._moving.values() if one.stalled(self._limits.stall_s, at)]
        for one in stalled:
            one.cut()
        if stalled:
            _LOG.warning("%d calls made no progress for %.0f s and were cut off", len(stalled), self._limits.stall_s)
        return len(stalled)

    @contextmanager
    def _one_of(self, site: str, what: str, most: int) -> Iterator[None]:
        key = (site, what)
        with self._lock:
            if self._under_way.get(key, 0) >= most:
                raise BractError(CONCURRENT, f"the site has too many {what} under way")
            self._under_way[key] = self._under_way.get(key, 0) + 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]

    def _room(self, site: str, digest: Digest, size: int) -> _Sent:
        """The array's entry among what the site sent; entries of arrays that are gone are forgotten first."""
        with self._lock:
            mine = self._sent.setdefault(site, {})
            for name in [name for name, one in mine.items() if not one.arriving and not self._held(name)]:
                del mine[name]
            others = sum(one.size for name, one in mine.items() if name != digest)
            if others + size > self._limits.site_bytes:
                raise BractError(DISK, "the site's share of the arrays is used up")
            sent = mine.setdefault(digest, _Sent(size))
            sent.size, sent.arriving = max(size, sent.size if sent.arriving else 0), sent.arriving + 1
            return sent
