"""Patience with a hub: a call that finds it away, or itself too early, is tried again for a bounded time."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import grpc

from bract.errors import TOO_OFTEN, UNREACHABLE, BractError
from bract.wire.refusals import refusal

_T = TypeVar("_T")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_PASSING = (UNREACHABLE, TOO_OFTEN)


def retried(attempt: Callable[[], _T], patience_s: float, progress: Callable[[], int]) -> _T:
    """The attempt's result; while the hub is away, tried again with growing pauses.

    Patience begins anew whenever `progress` has grown: a long transfer may be cut more than once.

    Raises:
        BractError: as the hub refuses; `unreachable` or `too-often` when patience is at its end.
    """
    until, pause, best = time.monotonic() + patience_s, _FIRST_PAUSE_S, 0
    while True:
        try:
            with refusals():
                return attempt()
        except BractError as error:
            if error.code == UNREACHABLE and progress() > best:
                until, pause, best = time.monotonic() + patience_s, _FIRST_PAUSE_S, progress()
            if error.code not in _PASSING or time.monotonic() + pause > until:
                raise
        # spread, so that all sites do not come back at the same moment
        time.sleep(pause * (0.5 + secrets.randbelow(1000) / 1000))
        pause = min(2 * pause, _LONGEST_PAUSE_S)


@contextmanager
def refusals() -> Iterator[None]:
    """Within it, what grpc raises becomes the refusal that the hub meant."""
    try:
        yield
    except grpc.RpcError as error:
        raise refusal(error) from error
