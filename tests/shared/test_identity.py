"""Keys and certificates say who holds them, for what, and until when."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bract.digest import digest
from bract.errors import CERTIFICATE, MALFORMED, UNTRUSTED, BractError
from bract.identity import (
    certificate_site,
    check_issued,
    check_signing_request,
    load_signing_key,
    load_tls_key,
    new_authority,
    new_node_key,
    new_tls_key,
    node_fingerprint,
    node_openssh,
    private_pem,
    public_pem,
    server_certificate,
    signing_request,
    site_certificate,
)

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = new_tls_key()
AUTHORITY = new_authority(KEY, "hub", AT)


def refused_with(code: str) -> "pytest.RaisesExc[BractError]":
    return pytest.raises(BractError, match=rf"\[{code}\]")


def test_the_authority_signs_certificates_and_no_further_authorities() -> None:
    usage = AUTHORITY.extensions.get_extension_for_class(x509.KeyUsage)
    constraints = AUTHORITY.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (usage.value.key_cert_sign, usage.value.digital_signature, usage.critical) == (True, False, True)
    assert (constraints.value.ca, constraints.value.path_length, constraints.critical) == (True, 0, True)
    AUTHORITY.verify_directly_issued_by(AUTHORITY)


def test_the_servers_certificate_is_for_its_hosts_and_the_machine_itself() -> None:
    made = server_certificate(AUTHORITY, KEY, new_tls_key().public_key(), ["hub.example", "10.0.0.7"], at=AT)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["hub.example", "localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1", "::1"]
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    with refused_with(CERTIFICATE):
        certificate_site(made)


def test_a_sites_certificate_is_for_the_site_and_for_speaking_to_a_hub_only() -> None:
    key = new_tls_key()
    made = site_certificate(AUTHORITY, KEY, signing_request(key, "clinic"), "clinic", at=AT)
    assert certificate_site(made) == "clinic"
    assert public_pem(made.public_key()) == public_pem(key.public_key())
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.not_valid_after_utc == AT + timedelta(days=365)


def test_of_a_request_only_the_key_is_taken() -> None:
    key = new_tls_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clinic")])
    uri = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("bract:site:clinic")])
    greedy = x509.CertificateSigningRequestBuilder().subject_name(name).add_extension(uri, critical=False)
    greedy = greedy.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = greedy.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    made = site_certificate(AUTHORITY, KEY, pem, "clinic", at=AT)
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("after", [timedelta(minutes=-6), timedelta(days=365), timedelta(days=4000)])
def test_a_certificate_counts_only_in_its_time(after: timedelta) -> None:
    made = site_certificate(AUTHORITY, KEY, signing_request(new_tls_key(), "clinic"), "clinic", at=AT)
    check_issued(made, AUTHORITY, AT)
    with refused_with(CERTIFICATE):
        check_issued(made, AUTHORITY, AT + after)


def test_a_certificate_of_another_authority_does_not_count() -> None:
    foreign_key = new_tls_key()
    foreign = new_authority(foreign_key, "hub", AT)
    made = site_certificate(foreign, foreign_key, signing_request(new_tls_key(), "clinic"), "clinic", at=AT)
    with refused_with(CERTIFICATE):
        check_issued(made, AUTHORITY, AT)
    forged = site_certificate(AUTHORITY, foreign_key, signing_request(new_tls_key(), "clinic"), "clinic", at=AT)
    with refused_with(CERTIFICATE):
        check_issued(forged, AUTHORITY, AT)


def test_a_sites_certificate_is_no_authority() -> None:
    key = new_tls_key()
    clinic = site_certificate(AUTHORITY, KEY, signing_request(key, "clinic"), "clinic", at=AT)
    made = site_certificate(clinic, key, signing_request(new_tls_key(), "bank"), "bank", at=AT)
    with refused_with(CERTIFICATE):
        check_issued(made, clinic, AT)


def test_a_request_for_another_name_is_refused() -> None:
    with refused_with(UNTRUSTED):
        check_signing_request(signing_request(new_tls_key(), "bank"), "clinic")


def test_a_request_that_its_own_key_did_not_sign_is_refused() -> None:
    made = x509.load_pem_x509_csr(signing_request(new_tls_key(), "clinic"))
    der = bytearray(made.public_bytes(serialization.Encoding.DER))
    der[-5] ^= 1
    pem = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM)
    with refused_with(UNTRUSTED):
        check_signing_request(pem, "clinic")


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_a_request_for_another_kind_of_key_is_refused(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clinic")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    with refused_with(MALFORMED):
        check_signing_request(made.public_bytes(serialization.Encoding.PEM), "clinic")


def test_a_node_key_is_in_openssh_format_as_flower_reads_it() -> None:
    key = new_node_key()
    again = serialization.load_ssh_private_key(node_openssh(key), None)
    assert isinstance(again, ec.EllipticCurvePrivateKey)
    assert again.private_numbers() == key.private_numbers()


def test_a_node_fingerprint_is_of_the_key_and_not_of_its_text() -> None:
    key = new_node_key().public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pem = public_pem(key)
    assert node_fingerprint(pem) == node_fingerprint(pem.strip() + b"\n\n") == digest(der)


@pytest.mark.parametrize("pem", [b"", b"junk", public_pem(KEY.public_key()), private_pem(KEY)])
def test_what_is_no_node_key_is_refused(pem: bytes) -> None:
    with refused_with(MALFORMED):
        node_fingerprint(pem)


def test_private_keys_survive_their_files_and_are_not_confused() -> None:
    signing = Ed25519PrivateKey.generate()
    assert load_signing_key(private_pem(signing)).private_bytes_raw() == signing.private_bytes_raw()
    assert load_tls_key(private_pem(KEY)).private_numbers() == KEY.private_numbers()
    for load, pem in ((load_signing_key, private_pem(KEY)), (load_tls_key, private_pem(signing)), (load_tls_key, b"x")):
        with refused_with(MALFORMED):
            load(pem)
