"""The gateway process: our gRPC services behind mutual TLS. `python -m bract_server.gateway HUB`."""

import logging
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bract.errors import BractError
from bract.files import read_private
from bract.logs import start_logging
from bract_server.home import open_home
from bract_server.hub import open_registry, open_store
from bract_server.service import HubServer

log = logging.getLogger("bract.gateway")

_SWEEP_EVERY, _STALE = timedelta(minutes=1), timedelta(hours=1)
"""How often uploads that were cut off are looked for, and after what time they are deleted."""


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
        clock=lambda: datetime.now(UTC),
    )
    server.start()
    while not stop.wait(_SWEEP_EVERY.total_seconds()):
        try:
            store.sweep(datetime.now(UTC) - _STALE)
            registry.expire_reservations(datetime.now(UTC))
        except (BractError, OSError):
            log.exception("old uploads and reservations were not swept")
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
