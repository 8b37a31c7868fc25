"""Keys and certificates: who a hub and a site are.

Four kinds of key, each for one thing:
    authority (EC P-256): the hub's own certificate authority; it signs the hub's and the sites' TLS certificates.
    TLS (EC P-256): one for the hub, one for each site, with a certificate of the authority [RFC 5280].
    node (EC P-384): a site's key at Flower, known there by its public half alone.
    signing (Ed25519): what a hub or a site says is signed with it (`bract.signing`).

A private key is created where it is used and never travels.
"""

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bract.digest import Digest, digest
from bract.errors import CERTIFICATE, MALFORMED, UNTRUSTED, BractError

CERTIFICATE_DAYS = 365
AUTHORITY_DAYS = 3650
SKEW = timedelta(minutes=5)
"""A certificate starts this long before it is issued, so that a clock a little behind still accepts it."""

_SITE_URI = "bract:site:"
_LOCAL = ("localhost", "127.0.0.1", "::1")

_X = TypeVar("_X", bound=x509.ExtensionType)


def new_tls_key() -> ec.EllipticCurvePrivateKey:
    """A fresh EC P-256 key, for an authority or for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def new_node_key() -> ec.EllipticCurvePrivateKey:
    """A fresh EC P-384 key for Flower's node authentication."""
    return ec.generate_private_key(ec.SECP384R1())


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """The private key as PKCS #8 PEM, unencrypted: it belongs in a private file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def node_openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The private key in OpenSSH's format, as `flower-supernode --auth-supernode-private-key` reads it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_pem(key: PublicKeyTypes) -> bytes:
    """The public key as SubjectPublicKeyInfo PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_tls_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """An EC private key from PEM.

    Raises:
        BractError: `malformed`.
    """
    key = _load_private(pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BractError(MALFORMED, "not an EC private key")
    return key


def load_signing_key(pem: bytes) -> Ed25519PrivateKey:
    """An Ed25519 private key from PEM.

    Raises:
        BractError: `malformed`.
    """
    key = _load_private(pem)
    if not isinstance(key, Ed25519PrivateKey):
        raise BractError(MALFORMED, "not an Ed25519 private key")
    return key


def _load_private(pem: bytes) -> object:
    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BractError(MALFORMED, "not a private key in PEM") from error


def load_node_public(pem: bytes) -> ec.EllipticCurvePublicKey:
    """A site's node key: EC P-384 in SubjectPublicKeyInfo PEM.

    Raises:
        BractError: `malformed`.
    """
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BractError(MALFORMED, "not a public key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise BractError(MALFORMED, "a node key is EC P-384")
    return key


def node_fingerprint(pem: bytes) -> Digest:
    """The digest of a node key's SubjectPublicKeyInfo in DER: how the registry and Flower's nodes are joined.

    Raises:
        BractError: `malformed`.
    """
    return digest(load_node_public(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def load_certificate(pem: bytes) -> x509.Certificate:
    """A certificate from PEM.

    Raises:
        BractError: `malformed`.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except (ValueError, x509.InvalidVersion) as error:
        raise BractError(MALFORMED, "not a certificate in PEM") from error


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def certificate_fingerprint(certificate: x509.Certificate) -> Digest:
    """The digest of the certificate's DER."""
    return digest(certificate.public_bytes(Encoding.DER))


def new_authority(
    key: ec.EllipticCurvePrivateKey, hub: str, at: datetime, days: int = AUTHORITY_DAYS
) -> x509.Certificate:
    """The hub's self-signed certificate authority; it may sign certificates of ends only, no further authorities."""
    name = _name(f"bract hub {hub}")
    builder = _builder(name, name, key.public_key(), at, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256())


def server_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePublicKey,
    hosts: Iterable[str],
    *,
    at: datetime,
    days: int = CERTIFICATE_DAYS,
) -> x509.Certificate:
    """The hub's TLS certificate for these DNS names and IP addresses, and always for the machine itself."""
    names = tuple(dict.fromkeys((*hosts, *_LOCAL)))
    builder = _end(authority, _name(names[0]), key, at, days)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True)
    return builder.sign(authority_key, hashes.SHA256())


def signing_request(key: ec.EllipticCurvePrivateKey, site: str) -> bytes:
    """A certificate signing request for a site's TLS key, in PEM; it proves possession of the key [RFC 2986]."""
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_SITE_URI + site)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(site)).add_extension(uri, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def check_signing_request(pem: bytes, site: str) -> ec.EllipticCurvePublicKey:
    """The TLS key of a request that was made with that key, for that site.

    Raises:
        BractError: `malformed` when it is not a request for an EC P-256 key; `untrusted` when its signature fails or it
            names another site.
    """
    try:
        request = x509.load_pem_x509_csr(pem)
        key = request.public_key()
        valid, named = request.is_signature_valid, _site_of(request)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise BractError(MALFORMED, "not a certificate signing request") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BractError(MALFORMED, "a TLS key is EC P-256")
    if not valid:
        raise BractError(UNTRUSTED, "the certificate request was not made with its own key")
    if named != site:
        raise BractError(UNTRUSTED, "the certificate request names another site")
    return key


def site_certificate(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    request: bytes,
    site: str,
    *,
    at: datetime,
    days: int = CERTIFICATE_DAYS,
) -> x509.Certificate:
    """A client certificate for the site; of the request only the key is taken, never an extension.

    Raises:
        BractError: as `check_signing_request`.
    """
    builder = _end(authority, _name(site), check_signing_request(request, site), at, days)
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(_SITE_URI + site)])
    builder = builder.add_extension(uri, critical=False)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
    return builder.sign(authority_key, hashes.SHA256())


def certificate_site(certificate: x509.Certificate) -> str:
    """The site that a client certificate names.

    Raises:
        BractError: `certificate` when it names none, several, or different ones in its name and its URI.
    """
    site = _site_of(certificate)
    if site is None:
        raise BractError(CERTIFICATE, "the certificate names no site")
    return site


def check_time(certificate: x509.Certificate, at: datetime) -> None:
    """That the certificate is valid at that time.

    Raises:
        BractError: `certificate`.
    """
    if at < certificate.not_valid_before_utc:
        raise BractError(CERTIFICATE, "not valid yet: is this machine's clock right?")
    if at >= certificate.not_valid_after_utc:
        raise BractError(CERTIFICATE, f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}")


def check_issued(certificate: x509.Certificate, authority: x509.Certificate, at: datetime) -> None:
    """That this authority issued the certificate, and that both are valid at that time.

    Raises:
        BractError: `certificate`.
    """
    constraints = _extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise BractError(CERTIFICATE, "the issuer is not a certificate authority")
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BractError(CERTIFICATE, "issued by another authority") from error
    check_time(authority, at)
    check_time(certificate, at)


def check_pair(key: bytes, certificate: bytes, authority: x509.Certificate, at: datetime) -> None:
    """That a private key and a certificate (PEM) belong together, and the authority issued it and it is valid at that time.

    Raises:
        BractError: `certificate`; `malformed` when one is no such thing.
    """
    loaded = load_certificate(certificate)
    if public_pem(load_tls_key(key).public_key()) != public_pem(loaded.public_key()):
        raise BractError(CERTIFICATE, "key and certificate do not belong together: was their renewal cut short?")
    check_issued(loaded, authority, at)


def _site_of(value: x509.Certificate | x509.CertificateSigningRequest) -> str | None:
    """The site in the common name, if the one URI says the same; None otherwise."""
    common = [str(part.value) for part in value.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    names = _extension(value, x509.SubjectAlternativeName)
    if names is None or len(list(names)) != 1 or len(common) != 1:
        return None
    return common[0] if names.get_values_for_type(x509.UniformResourceIdentifier) == [_SITE_URI + common[0]] else None


def _extension(value: x509.Certificate | x509.CertificateSigningRequest, kind: type[_X]) -> _X | None:
    try:
        return value.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise BractError(MALFORMED, "extensions that cannot be read in one way only") from error


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime, days: int
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(at - SKEW).not_valid_after(at + timedelta(days=days))


def _end(
    authority: x509.Certificate, subject: x509.Name, key: ec.EllipticCurvePublicKey, at: datetime, days: int
) -> x509.CertificateBuilder:
    issuer_key = authority.public_key()
    if not isinstance(issuer_key, ec.EllipticCurvePublicKey):
        raise BractError(CERTIFICATE, "the authority's key is not EC")
    builder = _builder(subject, authority.subject, key, at, days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
    return builder.add_extension(identifier, critical=False)
