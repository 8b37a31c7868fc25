"""A site's folder: where each thing is, and how a new one is made. Its keys are created here and never leave."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.enrolment import EnrolBundle
from bract.errors import NOT_ENROLLED, NOT_INITIALISED, BractError
from bract.files import PRIVATE_FOLDER, read_private, write_atomic, write_private
from bract.folders import new_folder
from bract.identity import (
    load_signing_key,
    load_tls_key,
    new_node_key,
    new_tls_key,
    node_openssh,
    private_pem,
    public_pem,
)
from bract.signing import parse_envelope
from bract.value import decode
from bract_client.settings import SiteSettings, read_settings, settings_toml


@dataclass(frozen=True)
class SiteHome:
    """The paths of one site. Keys are read when they are used and held in no field."""

    root: Path

    @property
    def settings_file(self) -> Path:
        """What the steward may set."""
        return self.root / "settings.toml"

    @property
    def signing_key_file(self) -> Path:
        """Private Ed25519 key."""
        return self.root / "keys" / "signing.pem"

    @property
    def tls_key_file(self) -> Path:
        """Private TLS key."""
        return self.root / "keys" / "tls.pem"

    @property
    def node_key_file(self) -> Path:
        """Private node key, in OpenSSH's format, for `flower-supernode`."""
        return self.root / "keys" / "node"

    @property
    def node_public_file(self) -> Path:
        """Public node key, SPKI PEM."""
        return self.root / "keys" / "node.pub"

    @property
    def subject_key_file(self) -> Path:
        """32 random bytes that turn subjects' identifiers into handles. Whoever has them can recognise people."""
        return self.root / "keys" / "subject.key"

    @property
    def superexec_secret(self) -> Path:
        """What the site's executor shows to `flower-supernode`."""
        return self.root / "keys" / "superexec.secret"

    @property
    def bundle_file(self) -> Path:
        """The enrolment bundle that was accepted, as the hub signed it."""
        return self.root / "certs" / "bundle.json"

    @property
    def certificate_file(self) -> Path:
        """The site's client certificate."""
        return self.root / "certs" / "site.pem"

    @property
    def authority_file(self) -> Path:
        """The hub's certificate authority."""
        return self.root / "certs" / "authority.pem"

    @property
    def registry_db(self) -> Path:
        """The site's registry, when it is SQLite."""
        return self.root / "registry.db"

    @property
    def data(self) -> Path:
        """Records that were taken in."""
        return self.root / "data"

    @property
    def outbox(self) -> Path:
        """Arrays on their way in or out."""
        return self.root / "outbox"

    @property
    def logs(self) -> Path:
        """Logs of the site's processes."""
        return self.root / "logs"

    @property
    def private_files(self) -> tuple[Path, ...]:
        """Files that only their owner may read."""
        keys = (self.signing_key_file, self.tls_key_file, self.node_key_file, self.subject_key_file)
        return (*keys, self.superexec_secret, self.settings_file)

    def settings(self) -> SiteSettings:
        """The steward's settings.

        Raises:
            BractError: `malformed`.
        """
        return read_settings(self.settings_file)

    def database_url(self) -> str:
        """SQLAlchemy URL of the site's registry."""
        return self.settings().database or f"sqlite:///{self.registry_db}"

    def signing_key(self) -> Ed25519PrivateKey:
        """The key that signs what the site says.

        Raises:
            BractError: `key-permissions`, `malformed`.
        """
        return load_signing_key(read_private(self.signing_key_file))

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of the site's TLS certificate.

        Raises:
            BractError: `key-permissions`, `malformed`.
        """
        return load_tls_key(read_private(self.tls_key_file))

    def subject_key(self) -> bytes:
        """The 32-byte key of subjects' handles.

        Raises:
            BractError: `key-permissions`.
        """
        return read_private(self.subject_key_file)

    def bundle(self) -> EnrolBundle:
        """What the hub answered; it was verified when it was installed.

        Raises:
            BractError: `not-enrolled`; `key-permissions` when others could have changed it.
        """
        try:
            data = read_private(self.bundle_file)
        except FileNotFoundError as error:
            raise BractError(NOT_ENROLLED) from error
        return decode(EnrolBundle, parse_envelope(data).payload)


def create(folder: Path, *, name: str, settings: SiteSettings | None = None) -> SiteHome:
    """A new site with fresh keys and the default settings, or those given.

    Raises:
        BractError: `already-exists` for a folder that is not empty; `malformed` for a bad name; `disk`.
    """
    chosen = settings or decode(SiteSettings, {"name": name})
    with new_folder(folder) as scratch:
        _fill(SiteHome(scratch), chosen)
    return SiteHome(folder.absolute())


def open_home(folder: Path) -> SiteHome:
    """The site in that folder.

    Raises:
        BractError: `not-initialised` when there is none.
    """
    home = SiteHome(folder.absolute())
    if not all(path.is_file() for path in (home.settings_file, home.signing_key_file, home.subject_key_file)):
        raise BractError(NOT_INITIALISED, f"no site in {folder.name or 'this folder'}")
    return home


def _fill(home: SiteHome, settings: SiteSettings) -> None:
    for path in (home.signing_key_file.parent, home.bundle_file.parent, home.data, home.outbox, home.logs):
        path.mkdir(mode=PRIVATE_FOLDER)
    node = new_node_key()
    write_private(home.signing_key_file, private_pem(Ed25519PrivateKey.generate()))
    write_private(home.tls_key_file, private_pem(new_tls_key()))
    write_private(home.node_key_file, node_openssh(node))
    write_atomic(home.node_public_file, public_pem(node.public_key()))
    write_private(home.subject_key_file, secrets.token_bytes(32))
    write_private(home.superexec_secret, secrets.token_urlsafe(32).encode())
    write_private(home.settings_file, settings_toml(settings))
