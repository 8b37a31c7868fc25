"""A hub's settings: what `settings.toml` in its folder says, checked once."""

import ipaddress
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bract.plan import Name
from bract.value import decode, plain, read_toml, strict
from bract_server.limits import Limits
from bract_server.patience import Patience

Port = Annotated[int, Field(ge=1, le=65_535)]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9:][A-Za-z0-9.:-]{0,252}$")]


@strict
@dataclass(frozen=True)
class HubSettings:
    """What an operator may set.

    Attributes:
        name: the hub's public name.
        host: where sites reach it: a DNS name or an IP address; the server certificate is for it.
        bind: the address it listens on.
        fleet_port: Flower's port.
        wire_port: the port of arrays and registry.
        max_array_bytes: of one array.
        array_quota_bytes: of all arrays together.
        certificate_days: how long the certificates of sites and hub are valid.
        database: SQLAlchemy URL of the registry; None is the SQLite file in the folder.
        limits: what one site may take.
        quarantine: what a hub bears of a site before it is set apart.
    """

    name: Name
    host: Host = "127.0.0.1"
    bind: Host = "127.0.0.1"
    fleet_port: Port = 8000
    wire_port: Port = 8001
    max_array_bytes: Annotated[int, Field(ge=1, le=1 << 50)] = 8 << 30
    array_quota_bytes: Annotated[int, Field(ge=1, le=1 << 50)] = 64 << 30
    certificate_days: Annotated[int, Field(ge=1, le=825)] = 365
    database: str | None = None
    limits: Limits = field(default_factory=Limits)
    quarantine: Patience = field(default_factory=Patience)

    @property
    def fleet(self) -> str:
        """Where sites reach Flower: `host:port`."""
        return address(self.host, self.fleet_port)

    @property
    def near_fleet(self) -> str:
        """Where the hub's own processes reach Flower: on this machine, whatever its name leads to elsewhere."""
        own = {"0.0.0.0": "127.0.0.1", "::": "::1", "127.0.0.1": "127.0.0.1", "::1": "::1"}.get(self.bind, self.host)  # noqa: S104 - asked, not bound
        return address(own, self.fleet_port)

    @property
    def wire(self) -> str:
        """Where sites reach arrays and registry: `host:port`."""
        return address(self.host, self.wire_port)

    @property
    def listen(self) -> str:
        """Where arrays and registry listen: `host:port`."""
        return address(self.bind, self.wire_port)


def address(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def binding(host: str) -> str:
    """The address to listen on for a hub that is reached by `host`: the machine itself, or everywhere."""
    try:
        return host if ipaddress.ip_address(host).is_loopback else "0.0.0.0"  # noqa: S104 - TLS and certificates guard it
    except ValueError:
        return "127.0.0.1" if host == "localhost" else "0.0.0.0"  # noqa: S104 - as above


def read_settings(path: Path) -> HubSettings:
    """The settings in a TOML file.

    Raises:
        BractError: `malformed`, naming each unknown, missing or wrong field.
    """
    return decode(HubSettings, read_toml(path))


def settings_toml(settings: HubSettings) -> bytes:
    """The settings as the TOML file that `read_settings` reads, with a word on each."""
    lines = [
        "# A bract hub. Unknown names are refused. Restart the hub after a change.",
        f"name = {json.dumps(settings.name)}",
        "# Where sites reach the hub. The server certificate is for this name: `bract renew` after a change.",
        f"host = {json.dumps(settings.host)}",
        "# The address it listens on.",
        f"bind = {json.dumps(settings.bind)}",
        f"fleet_port = {settings.fleet_port}",
        f"wire_port = {settings.wire_port}",
        "# Bytes of one array, and of all together.",
        f"max_array_bytes = {settings.max_array_bytes}",
        f"array_quota_bytes = {settings.array_quota_bytes}",
        f"certificate_days = {settings.certificate_days}",
        "# SQLAlchemy URL of the registry; without it, registry.db in this folder.",
        f"{'' if settings.database else '# '}database = "
        f"{json.dumps(settings.database or 'postgresql+psycopg://bract@localhost/bract')}",
        "",
        "# What one site may take: calls and uploads at once, calls a second, seconds without progress, bytes held;",
        "# and what one address moves through Flower's door, in bytes.",
        "[limits]",
        *(f"{name} = {json.dumps(value)}" for name, value in plain(settings.limits).items()),
        "",
        "# A site takes part in nothing more after so many refused contributions in so many of its newest rounds.",
        "[quarantine]",
        *(f"{name} = {json.dumps(value)}" for name, value in plain(settings.quarantine).items()),
    ]
    return ("\n".join(lines) + "\n").encode()
