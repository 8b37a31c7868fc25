"""Papers that people carry between hub and site: enrolment requests and bundles, checkpoints of logs, plans and settings."""

import json
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from bract.enrolment import EnrolRequest, hub_fingerprint, open_bundle, open_request
from bract.identity import load_certificate, public_pem
from bract.log.merkle import Frontier, leaf_hash
from bract.log.note import Head, cosign, open_note, parse_note, parse_signature, parse_vkey, sign_head, vkey
from bract.log.witness import Shown, judge
from bract.signing import key_text, parse_envelope, payload_type
from bract.value import encode, plain
from bract_client import enrol as site_enrol
from bract_client import home as site_home
from bract_client.settings import SiteSettings, settings_toml
from bract_client.settings import read_settings as read_site
from bract_client.sources.consent_mapping import load_mapping
from bract_server import enrol as hub_enrol
from bract_server import home as hub_home
from bract_server.campaigns import read_plan
from bract_server.settings import HubSettings
from bract_server.settings import read_settings as read_hub
from bract_server.settings import settings_toml as hub_toml
from tests.hostile.attacks import bent, broken, held, json_bytes, seen, strike
from tests.hostile.oracle import COUNT, NAME, RULES, fields, fits, integer, number, sealed, time
from tests.loopback import Book, now

ROOT = Path(__file__).parents[2]
REQUEST = fields({"site": NAME, "subjects_floor": integer(1, 10**12), "created_at": time})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[hub_home.HubHome, site_home.SiteHome]:
    root = tmp_path_factory.mktemp("papers")
    return hub_home.create(root / "hub", name="hub", at=now()), site_home.create(root / "site", name="clinic")


def test_a_changed_request_is_accepted_only_as_its_site_made_it(
    pair: tuple[hub_home.HubHome, site_home.SiteHome],
) -> None:
    _, site = pair
    made = site_enrol.request(site, now())
    payload = parse_envelope(made).payload

    def right(_: object, value: EnrolRequest) -> bool:
        return encode(value) == payload

    def believing(data: bytes) -> EnrolRequest:
        from bract.value import decode

        return decode(EnrolRequest, parse_envelope(data).payload)

    held(strike("enrolment requests, changed bytes", broken([made]), open_request, right, count=500))
    seen(strike("control", broken([made]), believing, right, count=300, record=False))


def test_a_request_whose_site_means_harm_is_accepted_only_if_its_parts_agree(
    pair: tuple[hub_home.HubHome, site_home.SiteHome],
) -> None:
    """Signed with the very key that it names; the certificate request inside is changed too, to its bytes."""
    hub, site = pair
    made_of = json.loads(parse_envelope(site_enrol.request(site, now())).payload)
    kind, key = payload_type(EnrolRequest), site.signing_key()

    def with_csr(pem: bytes) -> dict[str, Any]:
        return {**made_of, "csr": pem.decode("latin-1")}

    def read(data: dict[str, Any]) -> EnrolRequest:
        asked = open_request(sealed(kind, json_bytes(data), key))
        book = Book()
        hub_enrol.approve(hub, book, sealed(kind, json_bytes(data), key), now())
        return asked

    def right(data: dict[str, Any], value: EnrolRequest) -> bool:
        csr = x509.load_pem_x509_csr(value.csr.encode())
        (name,) = csr.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return (
            REQUEST(data)
            and value.verify_key == key_text(key.public_key())
            and csr.is_signature_valid
            and name.value == value.site
            and "P-384" not in value.csr
        )

    inputs = st.one_of(
        bent([made_of]),
        broken([made_of["csr"].encode()]).map(with_csr),
        broken([_der(made_of["csr"])]).map(lambda der: with_csr(_pem(der))),
    )
    held(strike("enrolment requests, signed by their site", inputs, read, right, count=600))


def _der(pem: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)


def _pem(der: bytes) -> bytes:
    import base64

    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


def test_a_bundle_is_installed_only_if_the_confirmed_hub_made_it_for_this_site_and_key(
    pair: tuple[hub_home.HubHome, site_home.SiteHome],
) -> None:
    hub, site = pair
    book, at = Book(), now()
    made = hub_enrol.approve(hub, book, site_enrol.request(site, at), at)
    other = site_home.create(site.root.parent / "other", name="other")
    foreign = hub_enrol.approve(hub, book, site_enrol.request(other, at), at)
    made_of = json.loads(parse_envelope(made).payload)
    payload, kind, key = parse_envelope(made).payload, parse_envelope(made).payload_type, hub.signing_key()
    confirmed, tls = hub.fingerprint(), site.tls_key().public_key()

    def read(data: bytes) -> bytes:
        return encode(open_bundle(data, confirmed=confirmed, site="clinic", tls_key=tls, at=at))

    def unconfirmed(data: bytes) -> bytes:
        from bract.enrolment import EnrolBundle
        from bract.value import decode

        return encode(decode(EnrolBundle, parse_envelope(data).payload))

    def right(_: object, value: bytes) -> bool:
        return value == payload

    def for_this_site(_: object, value: bytes) -> bool:
        """Its hub may write other addresses into it, never another site, key or hub."""
        told = json.loads(value)
        certificate = load_certificate(told["certificate"].encode())
        return (
            told["site"] == "clinic"
            and public_pem(certificate.public_key()) == public_pem(tls)
            and hub_fingerprint(told["authority"].encode(), told["hub_key"]) == confirmed
            and all(
                re.fullmatch(r"(\[[0-9a-f:]+\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}", told[n]) for n in ("fleet", "wire")
            )
        )

    inputs = broken([made, foreign])
    held(strike("enrolment bundles, changed bytes", inputs, read, right, count=500))
    seen(strike("control", inputs, unconfirmed, right, count=200, record=False))
    own = bent([made_of]).map(lambda one: sealed(kind, json_bytes(one), key))
    held(strike("enrolment bundles, signed by their hub", own, read, for_this_site, count=400))


LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34)))


def tree(size: int) -> Frontier:
    grown = Frontier()
    for n in range(size):
        grown = grown.add(leaf_hash(b"%d" % n))
    return grown


SIZES = (1, 5, 8, 13)
HEADS = [Head("bract.example/hub", size, tree(size).root) for size in SIZES]
NOTES = [sign_head(head, LOG).to_bytes() + cosign(head, "w1", WITNESS, 1_700_000_000).line.encode() for head in HEADS]


def test_of_a_changed_checkpoint_only_what_the_log_signed_is_accepted() -> None:
    key = LOG.public_key()
    heads = {(head.size, head.root) for head in HEADS}

    def right(_: bytes, head: Head) -> bool:
        return head.origin == "bract.example/hub" and (head.size, head.root) in heads

    def believing(data: bytes) -> Head:
        return parse_note(data).head

    inputs = broken(NOTES)
    held(strike("checkpoints", inputs, lambda data: open_note(parse_note(data), key), right, count=600))
    seen(strike("control", inputs, believing, right, count=500, record=False))
    lines = broken([cosign(HEADS[1], "w1", WITNESS, 5).line.encode()])

    def as_text(data: bytes) -> str:
        return parse_signature(data.decode("utf-8", "surrogateescape")).line

    held(
        strike("cosignature lines", lines, as_text, lambda data, line: line.encode().strip() == data.strip(), count=300)
    )
    keys = broken([vkey("w1", 4, WITNESS.public_key()).encode()])

    def name_and_key(data: bytes) -> str:
        return vkey(*_swapped(parse_vkey(data.decode("utf-8", "surrogateescape"), 4)))

    held(strike("verifier keys", keys, name_and_key, lambda data, text: text.encode() == data, count=300))


def _swapped(found: tuple[str, Any]) -> tuple[str, int, Any]:
    return found[0], 4, found[1]


def proof(old: int, new: int) -> list[bytes]:
    """A consistency proof by RFC 9162 §2.1.4.1's recursion, written down anew."""
    leaves = [leaf_hash(b"%d" % n) for n in range(new)]

    def root(part: list[bytes]) -> bytes:
        grown = Frontier()
        for leaf in part:
            grown = grown.add(leaf)
        return grown.root

    def sub(m: int, part: list[bytes], whole: bool) -> list[bytes]:
        if m == len(part):
            return [] if whole else [root(part)]
        k = 1
        while k * 2 < len(part):
            k *= 2
        if m <= k:
            return [*sub(m, part[:k], whole), root(part[k:])]
        return [*sub(m - k, part[k:], False), root(part[:k])]

    return sub(old, leaves, True)


def shown(seed: int) -> tuple[Shown, int]:
    """A hub's word to a witness, true or not: another history, a proof of something else, a size that shrank."""
    random = Random(seed)
    old, new = sorted(random.sample(SIZES, 2))
    head, parts = HEADS[SIZES.index(new)], proof(old, new)
    seen_at = old
    match random.randrange(7):
        case 0:
            parts = [bytes(32) if random.random() < 0.3 else part for part in parts]
        case 1:
            head = Head(head.origin, new, leaf_hash(random.randbytes(3)))
        case 2:
            parts = parts[: random.randrange(len(parts) + 1)]
        case 3:
            old = random.choice((0, old + 1, new, 2**53))
        case 4:
            head, seen_at = HEADS[SIZES.index(old)], new
        case 5:
            parts = parts + [random.randbytes(random.choice((0, 31, 32)))] * random.choice((1, 64))
        case _:
            pass
    return Shown(sign_head(head, LOG).to_bytes(), old, tuple(parts)), seen_at


def test_a_witness_cosigns_only_what_continues_what_it_saw() -> None:
    key = LOG.public_key()

    def read(one: tuple[Shown, int]) -> Head:
        return judge(one[0], key, HEADS[SIZES.index(one[1])])

    def forgetful(one: tuple[Shown, int]) -> Head:
        return judge(one[0], key, None)

    def right(one: tuple[Shown, int], head: Head) -> bool:
        return head.size >= one[1] and head.root == tree(head.size).root

    inputs = st.integers(0, 2**64 - 1).map(shown)
    held(strike("words to a witness", inputs, read, right, count=500))
    seen(strike("control", inputs, forgetful, right, count=300, record=False))


POLICY = fields(
    {"min_noise_multiplier": number(0, 1e6, above=True), "max_delta": number(0, 0.1, above=True, below=True)}
)
SITE = fields(
    {"name": NAME, "subjects_floor": integer(1, 10**12), "runtime_port": integer(1, 65_535), "policy": POLICY}
)
HUB = fields(
    {"name": NAME, "fleet_port": integer(1, 65_535), "wire_port": integer(1, 65_535), "array_quota_bytes": COUNT}
)


def test_plans_and_settings_are_taken_only_as_they_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"

    def reading(read: Any) -> Any:
        def from_file(data: bytes) -> Any:
            file.write_bytes(data)
            return read(file)

        return from_file

    def toml(data: bytes) -> dict[str, Any]:
        return tomllib.loads(data.decode())

    def plan_right(data: bytes, value: Any) -> bool:
        told = plain(value)
        return RULES["CampaignPlan"](told) and fits(told) and _within(toml(data), told)

    def site_right(data: bytes, value: Any) -> bool:
        return SITE(plain(value)) and _within(toml(data), plain(value))

    def hub_right(data: bytes, value: Any) -> bool:
        return HUB(plain(value)) and _within(toml(data), plain(value))

    plans = [path.read_bytes() for path in sorted((ROOT / "deploy" / "plans").glob("*.toml"))]
    held(strike("plans in TOML", broken(plans), reading(read_plan), plan_right, count=350))
    sites = broken([settings_toml(SiteSettings("north"))])
    held(strike("a site's settings", sites, reading(read_site), site_right, count=300))
    held(strike("a hub's settings", broken([hub_toml(HubSettings("hub"))]), reading(read_hub), hub_right, count=300))
    mapping = (ROOT / "deploy" / "mappings" / "consent.toml").read_bytes()
    held(
        strike(
            "consent mappings", broken([mapping]), reading(load_mapping), lambda data, _: bool(toml(data)), count=200
        )
    )

    def deaf(data: bytes, value: Any) -> bool:
        try:
            return site_right(data, value)
        except ValueError:
            return False

    seen(strike("control", sites, reading(lambda _: SiteSettings("north")), deaf, count=200, record=False))


def _within(part: Any, whole: Any) -> bool:
    """Whatever the file says, the value says; what a file leaves out has its default."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(name in whole and _within(part[name], whole[name]) for name in part)
    if isinstance(part, list):
        return isinstance(whole, list) and len(part) == len(whole) and all(map(_within, part, whole))
    if isinstance(part, datetime):
        return bool(datetime.fromisoformat(whole) == part.astimezone(UTC))
    return bool(part == whole)
