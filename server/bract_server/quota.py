"""How many bytes a peer may move through Flower's door: a bucket for each address, as no more is known of a peer there.

TLS shows no certificate of the caller, and whose signature is on a request Flower itself finds out only after it was read.
Sites behind one address share one bucket. Nothing here looks at a clock: `Quota` is given one.
"""

import ipaddress
from collections.abc import Callable

from bract_server.limits import Bucket

_KEPT = 4096
"""Addresses; above it those whose buckets are full again are forgotten."""


class Quota:
    """What each address has left; for one thread."""

    def __init__(self, rate: float, depth: float, ticks: Callable[[], float]) -> None:
        """Begin with nothing taken.

        Args:
            rate: bytes a second that an address gets.
            depth: bytes that it may move at once after a rest.
            ticks: a steady clock, in seconds.
        """
        self._rate, self._depth, self._ticks = rate, depth, ticks
        self._buckets: dict[str, Bucket] = {}

    def take(self, address: str, count: int) -> None:
        """The address moves so many bytes; the last ones of an allowance may be more than what was left.

        Raises:
            BractError: `too-often` when nothing was left.
        """
        at, peer = self._ticks(), network(address)
        bucket = self._buckets.get(peer) or self._new(at)
        self._buckets[peer] = bucket.taken(self._rate, self._depth, at, count)

    def owe(self, address: str, count: int) -> None:
        """So many bytes have gone to the address, whatever was left: it waits until they are paid for."""
        at, peer = self._ticks(), network(address)
        bucket = self._buckets.get(peer) or self._new(at)
        self._buckets[peer] = bucket.filled(self._rate, self._depth, at).less(count)

    def _new(self, at: float) -> Bucket:
        """A full bucket, and room for it."""
        if len(self._buckets) >= _KEPT:
            now = {peer: one.filled(self._rate, self._depth, at) for peer, one in self._buckets.items()}
            self._buckets = {peer: one for peer, one in now.items() if one.level < self._depth}
        return Bucket(self._depth, at)


def network(address: str) -> str:
    """Whom an address stands for: itself, or the /64 that one subscriber has of IPv6 [RFC 6177 §2]."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address
    return address if ip.version == 4 else str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)).network_address)
