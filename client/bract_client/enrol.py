"""Enrolment, the site's half: ask a hub to be known, and install its answer."""

from datetime import datetime

from bract.digest import Digest
from bract.enrolment import EnrolBundle, EnrolRequest, open_bundle
from bract.files import write_atomic, write_private
from bract.identity import signing_request
from bract.signing import key_text, sign
from bract_client.home import SiteHome


def request(home: SiteHome, at: datetime) -> bytes:
    """The signed request to take to the hub's operator; it holds public keys only.

    Raises:
        BractError: `key-permissions`, `malformed`.
    """
    settings, signing = home.settings(), home.signing_key()
    asked = EnrolRequest(
        site=settings.name,
        csr=signing_request(home.tls_key(), settings.name).decode(),
        node_key=home.node_public_file.read_text(encoding="ascii"),
        verify_key=key_text(signing.public_key()),
        subjects_floor=settings.subjects_floor,
        created_at=at,
    )
    return sign(asked, signing).to_json()


def install(home: SiteHome, bundle: bytes, confirmed: Digest, at: datetime) -> EnrolBundle:
    """Verifies the hub's answer and installs it; an older one is replaced.

    Args:
        home: the site.
        bundle: what the operator sent.
        confirmed: the hub's fingerprint, as confirmed with the operator over another channel.
        at: now.

    Raises:
        BractError: as `bract.enrolment.open_bundle`; nothing is installed then. `disk`.
    """
    site, key = home.settings().name, home.tls_key().public_key()
    opened = open_bundle(bundle, confirmed=confirmed, site=site, tls_key=key, at=at)
    write_atomic(home.authority_file, opened.authority.encode())
    write_atomic(home.certificate_file, opened.certificate.encode())
    write_private(home.bundle_file, bundle)  # last: it is what says that the site is enrolled
    return opened
