"""Enrolment, the hub's half: check a site's request, register the site, and answer with its certificate."""

from datetime import datetime
from typing import Protocol

from bract.digest import Digest
from bract.enrolment import EnrolBundle, open_request
from bract.files import read_private
from bract.identity import (
    certificate_fingerprint,
    certificate_pem,
    load_tls_key,
    node_fingerprint,
    site_certificate,
)
from bract.signing import key_text, sign
from bract_server.home import HubHome


class SiteBook(Protocol):
    """What enrolment asks of the registry."""

    def add_site(
        self,
        *,
        name: str,
        verify_key: str,
        node_fingerprint: Digest,
        node_public_pem: str,
        certificate_fingerprint: Digest,
        subjects_floor: int,
        at: datetime,
    ) -> None:
        """Registers a site; the same keys again renew its certificate; the old one counts until it expires.

        Raises:
            BractError: `already-exists` when another site has the name or a key; `unknown-site` when it was revoked.
        """
        ...


def approve(home: HubHome, registry: SiteBook, request: bytes, at: datetime) -> bytes:
    """Registers the site that asks, or renews its certificate, and returns the signed bundle for it.

    Raises:
        BractError: as `bract.enrolment.open_request`; `already-exists` when another site has that name or those keys;
            `unknown-site` when the site was revoked; `key-permissions`.
    """
    asked, settings = open_request(request), home.settings()
    key, authority = load_tls_key(read_private(home.authority_key)), home.authority()
    certificate = site_certificate(
        authority, key, asked.csr.encode(), asked.site, at=at, days=settings.certificate_days
    )
    signing = home.signing_key()
    bundle = EnrolBundle(
        site=asked.site,
        certificate=certificate_pem(certificate).decode(),
        authority=certificate_pem(authority).decode(),
        hub_key=key_text(signing.public_key()),
        fleet=settings.fleet,
        wire=settings.wire,
        issued_at=at,
    )
    registry.add_site(
        name=asked.site,
        verify_key=asked.verify_key,
        node_fingerprint=node_fingerprint(asked.node_key.encode()),
        node_public_pem=asked.node_key,
        certificate_fingerprint=certificate_fingerprint(certificate),
        subjects_floor=asked.subjects_floor,
        at=at,
    )
    return sign(bundle, signing).to_json()
