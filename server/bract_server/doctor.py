"""What is wrong with a hub, and how to mend it."""

from collections.abc import Callable
from datetime import datetime

from bract import checks
from bract.checks import Check, guarded
from bract_server import disposal
from bract_server.home import HubHome

_NEW_HUB = "Make a new hub; every site enrols anew."
_NEW_CERTIFICATE = "`bract renew`, then restart the hub."


def examine(
    home: HubHome, revision: Callable[[], tuple[str | None, str | None]], at: datetime, *, running: bool = False
) -> tuple[Check, ...]:
    """Every check of a hub; nothing is raised and nothing changed.

    Args:
        home: the hub.
        revision: gives the registry's schema revision and the newest one.
        at: now.
        running: whether this hub runs: then its ports must answer with its certificate, else they must be free.
    """
    return (
        checks.python_version(),
        guarded("flwr", checks.flower_version),
        checks.torch_present(),
        guarded("keys", lambda: checks.private_files(home.private_files)),
        guarded("settings", lambda: Check("settings", True, f"hub {home.settings().name}")),
        guarded("authority", lambda: checks.certificate_file("authority", home.authority_file, at, _NEW_HUB)),
        guarded("certificate", lambda: checks.certificate_file("certificate", home.server_file, at, _NEW_CERTIFICATE)),
        guarded("fleet port", lambda: _port(home, "fleet port", home.settings().fleet_port, running)),
        guarded("wire port", lambda: _port(home, "wire port", home.settings().wire_port, running)),
        guarded("disk", lambda: checks.disk_space(home.root)),
        guarded("database", lambda: checks.database(revision)),
        guarded("retention", lambda: disposal.check(home, at)),
    )


def _port(home: HubHome, name: str, port: int, running: bool) -> Check:
    return checks.own_port(name, home.settings().bind, port, home.authority_file, running=running)
