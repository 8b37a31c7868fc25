"""Serving the auditor's application: TLS with the hub's own certificate, on the address that was asked for."""

import ipaddress
import socket
from contextlib import closing
from datetime import UTC, datetime

import uvicorn

from bract import console
from bract.database import open_engine
from bract.errors import MALFORMED, UNREACHABLE, BractError
from bract_server.auditor.http import create
from bract_server.auditor.routes import Door
from bract_server.auditor.sight import Sight
from bract_server.home import HubHome
from bract_server.hub import open_registry
from bract_server.settings import address

_AT_ONCE = 64
"""Requests that are answered at the same time; more are told 503."""


def door(home: HubHome) -> Door:
    """The parts of the application, over a hub's folder: one engine that cannot write, and the registry."""
    reader = open_engine(home.database_url(), read_only=True)
    key, origin = home.signing_key(), home.settings().name

    def sight(site: str | None) -> Sight:
        return Sight(reader, key, origin, site)

    return Door(sight, open_registry(home), lambda: datetime.now(UTC))


def server(home: HubHome, *, tls: bool) -> uvicorn.Server:
    """A server of the application, to be run on sockets, also beside the hub itself and in several processes."""
    secured = {"ssl_certfile": str(home.server_file), "ssl_keyfile": str(home.server_key)} if tls else {}
    config = uvicorn.Config(
        create(door(home)),
        log_level="warning",
        access_log=False,  # the access log is the registry's
        server_header=False,
        limit_concurrency=_AT_ONCE,
        timeout_keep_alive=5,
        ws="none",
        lifespan="off",
        **secured,  # type: ignore[arg-type]
    )
    return uvicorn.Server(config)


def run(home: HubHome, host: str, port: int, *, tls: bool) -> None:
    """Serve until Ctrl-C.

    Raises:
        BractError: `malformed` for plain HTTP on anything but this machine; `unreachable` when the address is taken.
    """
    if not tls and not _loopback(host):
        raise BractError(MALFORMED, "host: without TLS on this machine only")
    with closing(listen(host, port)) as listening:
        where = address(host, listening.getsockname()[1])
        console.out.print(
            f"the auditor's pages: {'https' if tls else 'http'}://{where}; Ctrl-C ends it", soft_wrap=True
        )
        server(home, tls=tls).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        BractError: `unreachable`.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise BractError(UNREACHABLE, f"port {port} cannot be listened on") from error


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
