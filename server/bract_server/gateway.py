"""The gateway process: our gRPC services behind mutual TLS. `python -m bract_server.gateway HUB`."""

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bract.checks import certificate_file, guarded
from bract.errors import BractError
from bract.files import read_private
from bract.logs import start_logging
from bract_server.arrays import ArrayStore
from bract_server.home import HubHome, open_home
from bract_server.hub import open_registry, open_store
from bract_server.leftovers import discard_leftovers
from bract_server.registry.store import HubRegistry
from bract_server.service import HubServer

log = logging.getLogger("bract.gateway")

_SWEEP_EVERY_S, _STALE = 60.0, timedelta(hours=1)
"""How often uploads that were cut off are looked for, and after what time they are deleted."""
_LEFTOVERS_EVERY_S = 600.0
"""How often whole arrays are looked for that nothing needs; rounds look, too, but a campaign that ended opens none."""
_LOOK_EVERY_S, _WARN_EVERY_S = 2.0, 12 * 3600.0
_GRACE_S = 3.0
"""Seconds that calls under way have to end by themselves once the process is asked to; an upload goes on afterwards."""


def main(argv: list[str]) -> int:
    """Serve until SIGTERM. Refuses private files that others can read."""
    start_logging()
    home, stop = open_home(Path(argv[0])), threading.Event()
    settings = home.settings()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    store = open_store(home)
    registry = open_registry(home)
    server = HubServer(
        registry,
        store,
        hub=settings.name,
        listen=settings.listen,
        key=read_private(home.server_key),
        certificate=home.server_file.read_bytes(),
        authority=home.authority(),
        clock=now,
        limits=settings.limits,
    )
    server.start()
    _tend(home, server, lambda: _sweep(store, registry), lambda: _clear(store, registry), stop)
    server.stop(_GRACE_S)
    return 0


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _tend(
    home: HubHome, server: HubServer, sweep: Callable[[], None], clear: Callable[[], None], stop: threading.Event
) -> None:
    """Until told to stop: sweep, clear, take up a renewed certificate, and warn before the one in use ends."""
    swept = cleared = warned = -math.inf
    shown = _stamp(home)
    while not stop.wait(_LOOK_EVERY_S):
        at = time.monotonic()  # a clock that is set back puts nothing off
        if at - swept >= _SWEEP_EVERY_S:
            swept = at
            sweep()
        if at - cleared >= _LEFTOVERS_EVERY_S:
            cleared = at
            clear()
        if (seen := _stamp(home)) != shown:
            shown = seen
            take_renewed(home, server)
        if at - warned >= _WARN_EVERY_S:
            warned = at
            check = guarded(
                "certificate", lambda: certificate_file("certificate", home.server_file, now(), "`bract renew`")
            )
            if not check.ok:
                log.warning("the hub's certificate: %s; %s", check.detail, check.remedy)


def take_renewed(home: HubHome, server: HubServer) -> None:
    """Show the certificate that is in the folder from now on; the one before stays while that is not whole or not good."""
    try:
        server.renew(read_private(home.server_key), home.server_file.read_bytes())
        log.info("took up a renewed certificate")
    except (BractError, OSError) as error:
        log.warning("the renewed certificate is not taken: %s", error)


def _stamp(home: HubHome) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in (home.server_key, home.server_file))


def _sweep(store: ArrayStore, registry: HubRegistry) -> None:
    try:
        store.sweep(now() - _STALE)
        registry.expire_reservations(now())
    except (BractError, OSError):
        log.exception("old uploads and reservations were not swept")


def _clear(store: ArrayStore, registry: HubRegistry) -> None:
    try:
        discard_leftovers(registry, store, now())
    except (BractError, OSError):
        log.exception("arrays that nothing needs were not deleted")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
