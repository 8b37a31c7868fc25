"""Enrolment: a site asks to be known to a hub, the hub answers with a certificate. Both values are signed.

Rules for a request: the site's own key signed it; the certificate request inside was made with the TLS key and names
the site; the node key is one that Flower accepts.

Rules for a bundle, in this order: its hub is the one whose fingerprint people confirmed; that hub signed it; the
certificate is of the hub's authority, for this site and this site's own TLS key, and valid now.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import AwareDatetime, Field

from bract.digest import Digest, digest, parse_digest
from bract.errors import CERTIFICATE, FINGERPRINT, BractError
from bract.identity import (
    certificate_site,
    check_issued,
    check_signing_request,
    load_certificate,
    node_fingerprint,
    public_pem,
)
from bract.plan import Name
from bract.signing import key_text, parse_envelope, unseal, verify_key
from bract.value import decode, strict

Address = Annotated[str, Field(pattern=r"^(\[[0-9a-f:]+\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}$")]
"""`host:port`; an IPv6 host stands in brackets."""

Pem = Annotated[str, Field(max_length=16_384)]


@strict
@dataclass(frozen=True)
class EnrolRequest:
    """What a site asks a hub to know it by.

    Attributes:
        csr: certificate signing request (PEM) of its TLS key, for the site's name.
        node_key: public node key (EC P-384, SPKI PEM) for Flower.
        verify_key: base64 of its raw Ed25519 public key; the request is signed with the private half.
        subjects_floor: the *declared* public lower bound on its subjects.
    """

    site: Name
    csr: Pem
    node_key: Pem
    verify_key: Annotated[str, Field(max_length=64)]
    subjects_floor: Annotated[int, Field(ge=1, le=10**12)]
    created_at: AwareDatetime


@strict
@dataclass(frozen=True)
class EnrolBundle:
    """What a hub answers an approved request with.

    Attributes:
        certificate: the site's TLS client certificate, PEM.
        authority: the hub's certificate authority, PEM.
        hub_key: base64 of the hub's raw Ed25519 public key; the bundle is signed with the private half.
        fleet: where the hub's Flower listens.
        wire: where the hub's arrays and registry services listen.
    """

    site: Name
    certificate: Pem
    authority: Pem
    hub_key: Annotated[str, Field(max_length=64)]
    fleet: Address
    wire: Address
    issued_at: AwareDatetime


def open_request(data: bytes) -> EnrolRequest:
    """The request inside a signed envelope, once every rule for requests holds.

    Raises:
        BractError: `malformed`, or `untrusted` when a signature or name inside does not agree with the rest.
    """
    envelope = parse_envelope(data)
    # the key comes with the request: its signature proves possession, and the operator vouches for the site
    claimed = decode(EnrolRequest, envelope.payload)
    request = unseal(EnrolRequest, envelope, verify_key(claimed.verify_key))
    check_signing_request(request.csr.encode(), request.site)
    node_fingerprint(request.node_key.encode())
    return request


def open_bundle(
    data: bytes, *, confirmed: Digest, site: str, tls_key: ec.EllipticCurvePublicKey, at: datetime
) -> EnrolBundle:
    """The bundle inside a signed envelope, once every rule for bundles holds.

    Args:
        data: the envelope's JSON.
        confirmed: the hub's fingerprint, as people confirmed it over another channel.
        site: the site that asked.
        tls_key: the public half of its own TLS key.
        at: now.

    Raises:
        BractError: `malformed`; `fingerprint` for another hub; `untrusted` when the hub did not sign it; `certificate`
            when the certificate is foreign, of another site or key, or not valid now.
    """
    envelope = parse_envelope(data)
    claimed = decode(EnrolBundle, envelope.payload)
    shown = hub_fingerprint(claimed.authority.encode(), claimed.hub_key)
    if not hmac.compare_digest(shown, confirmed):
        raise BractError(FINGERPRINT, f"the bundle is of hub {grouped(shown)}")
    bundle = unseal(EnrolBundle, envelope, verify_key(claimed.hub_key))
    certificate = load_certificate(bundle.certificate.encode())
    check_issued(certificate, load_certificate(bundle.authority.encode()), at)
    if bundle.site != site or certificate_site(certificate) != site:
        raise BractError(CERTIFICATE, "the certificate is of another site")
    if public_pem(certificate.public_key()) != public_pem(tls_key):
        raise BractError(CERTIFICATE, "the certificate is not for this site's key; was the site made anew?")
    return bundle


def hub_fingerprint(authority: bytes, hub_key: str) -> Digest:
    """The digest over a hub's certificate authority (DER) and its raw verify key: all that a site will trust.

    Args:
        authority: PEM.
        hub_key: base64 of the raw Ed25519 public key.

    Raises:
        BractError: `malformed`.
    """
    der = load_certificate(authority).public_bytes(Encoding.DER)
    key = key_text(verify_key(hub_key)).encode()
    return digest(b"bract hub\n%d\n%b%b" % (len(der), der, key))


def grouped(fingerprint: Digest, groups: int | None = None) -> str:
    """The fingerprint as people compare it: groups of four hexadecimal digits, the first `groups` or all sixteen."""
    text = fingerprint.removeprefix("sha256:")
    return " ".join(text[i : i + 4] for i in range(0, 64, 4)[:groups])


def read_fingerprint(text: str) -> Digest:
    """A whole fingerprint as people type or paste it: grouped or not, in either case, with or without `sha256:`.

    Raises:
        BractError: `malformed`; a shortened one too, since it could be matched by trying keys.
    """
    bare = "".join(text.lower().split()).removeprefix("sha256:").replace(":", "").replace("-", "")
    return parse_digest(f"sha256:{bare}")
