"""A hub's folder: where each thing is, and how a new one is made."""

import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import Digest
from bract.enrolment import hub_fingerprint
from bract.errors import NOT_INITIALISED, BractError
from bract.files import PRIVATE_FOLDER, read_private, write_atomic, write_private
from bract.folders import new_folder
from bract.identity import (
    certificate_pem,
    load_certificate,
    load_signing_key,
    load_tls_key,
    new_authority,
    new_tls_key,
    private_pem,
    public_pem,
    server_certificate,
)
from bract.signing import key_text
from bract.value import decode
from bract_server.settings import HubSettings, binding, read_settings, settings_toml


@dataclass(frozen=True)
class HubHome:
    """The paths of one hub. Keys are read when they are used and held in no field."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """What the operator may set."""
        return self.root / "settings.toml"

    @property
    def authority_key(self) -> Path:
        """Private key of the hub's certificate authority."""
        return self.root / "keys" / "authority.pem"

    @property
    def server_key(self) -> Path:
        """Private TLS key."""
        return self.root / "keys" / "server.pem"

    @property
    def signing_key_file(self) -> Path:
        """Private Ed25519 key."""
        return self.root / "keys" / "signing.pem"

    @property
    def operator_token(self) -> Path:
        """The first operator's token; the hub's own launcher reads it, too."""
        return self.root / "keys" / "operator.token"

    @property
    def superexec_secret(self) -> Path:
        """What Flower's ServerApp processes show to be let in."""
        return self.root / "keys" / "superexec.secret"

    @property
    def operators(self) -> Path:
        """Operators and the sha256 of their tokens."""
        return self.root / "operators.json"

    @property
    def authority_file(self) -> Path:
        """Certificate of the authority."""
        return self.root / "certs" / "authority.pem"

    @property
    def server_file(self) -> Path:
        """The hub's TLS certificate."""
        return self.root / "certs" / "server.pem"

    @property
    def registry_db(self) -> Path:
        """The registry, when it is SQLite."""
        return self.root / "registry.db"

    @property
    def flower_db(self) -> Path:
        """Flower's state."""
        return self.root / "flower.db"

    @property
    def arrays(self) -> Path:
        """Arrays by digest."""
        return self.root / "arrays"

    @property
    def logs(self) -> Path:
        """Logs of the hub's processes."""
        return self.root / "logs"

    @property
    def private_files(self) -> tuple[Path, ...]:
        """Files that only their owner may read."""
        keys = (self.authority_key, self.server_key, self.signing_key_file, self.superexec_secret)
        return (*keys, self.settings_file, self.operators)

    def settings(self) -> HubSettings:
        """The operator's settings.

        Raises:
            BractError: `malformed`.
        """
        return read_settings(self.settings_file)

    def database_url(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.settings().database or f"sqlite:///{self.registry_db}"

    def authority(self) -> x509.Certificate:
        """The hub's own authority."""
        return load_certificate(self.authority_file.read_bytes())

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs what the hub says.

        Raises:
            BractError: `key-permissions`, `malformed`.
        """
        return load_signing_key(read_private(self.signing_key_file))

    def fingerprint(self) -> Digest:
        """What sites confirm before they enrol."""
        return hub_fingerprint(self.authority_file.read_bytes(), key_text(self.signing_key().public_key()))


def create(
    folder: Path,
    *,
    name: str,
    host: str = "127.0.0.1",
    fleet_port: int = 8000,
    wire_port: int = 8001,
    at: datetime,
) -> HubHome:
    """A new hub: its authority, keys, certificate, operator token and settings.

    Args:
        folder: absent or empty.
        name: the hub's public name.
        host: where sites will reach it, a DNS name or an IP address.
        fleet_port: Flower's port.
        wire_port: the port of arrays and registry.
        at: now.

    Raises:
        BractError: `already-exists` for a folder that is not empty; `malformed` for a bad name, host or port; `disk`.
    """
    plain = {"name": name, "host": host, "bind": binding(host), "fleet_port": fleet_port, "wire_port": wire_port}
    settings = decode(HubSettings, plain)
    with new_folder(folder) as scratch:
        _fill(HubHome(scratch), settings, at)
    return HubHome(folder.absolute())


def renew(home: HubHome, at: datetime) -> None:
    """A new key and certificate of the hub's own authority for its server.

    Raises:
        BractError: `key-permissions`, `malformed`, `disk`.
    """
    settings, key = home.settings(), new_tls_key()
    issuer = load_tls_key(read_private(home.authority_key))
    certificate = server_certificate(
        home.authority(), issuer, key.public_key(), [settings.host], at=at, days=settings.certificate_days
    )
    write_private(home.server_key, private_pem(key))
    write_atomic(home.server_file, certificate_pem(certificate))


def open_home(folder: Path) -> HubHome:
    """The hub in that folder.

    Raises:
        BractError: `not-initialised` when there is none.
    """
    home = HubHome(folder.absolute())
    if not all(path.is_file() for path in (home.settings_file, home.authority_key, home.operators)):
        raise BractError(NOT_INITIALISED, f"no hub in {folder.name or 'this folder'}")
    return home


def _fill(home: HubHome, settings: HubSettings, at: datetime) -> None:
    for path in (home.authority_key.parent, home.authority_file.parent, home.arrays, home.logs):
        path.mkdir(mode=PRIVATE_FOLDER)
    authority_key, server_key = new_tls_key(), new_tls_key()
    authority = new_authority(authority_key, settings.name, at)
    certificate = server_certificate(
        authority, authority_key, server_key.public_key(), [settings.host], at=at, days=settings.certificate_days
    )
    signing = Ed25519PrivateKey.generate()
    token = secrets.token_urlsafe(32)
    write_private(home.authority_key, private_pem(authority_key))
    write_private(home.server_key, private_pem(server_key))
    write_private(home.signing_key_file, private_pem(signing))
    write_private(home.operator_token, f"{token}\n".encode())
    write_private(home.superexec_secret, secrets.token_urlsafe(32).encode())
    operators = {"operator": hashlib.sha256(token.encode()).hexdigest()}
    write_private(home.operators, json.dumps(operators, indent=2).encode())
    write_atomic(home.authority_file, certificate_pem(authority))
    write_atomic(home.server_file, certificate_pem(certificate))
    write_atomic(home.authority_file.with_name("signing.pub"), public_pem(signing.public_key()))
    write_private(home.settings_file, settings_toml(settings))
