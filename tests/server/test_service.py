"""The door on loopback, with real certificates: who may speak, for whom, and what a refusal says."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from google.protobuf.message import Message

from bract.consent import Purpose
from bract.digest import Digest, digest
from bract.errors import (
    CERTIFICATE,
    CONCURRENT,
    DIGEST_MISMATCH,
    HUB_FAILED,
    MALFORMED,
    NO_CLEARANCE,
    STATE,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNREACHABLE,
    UNTRUSTED,
    BractError,
)
from bract.files import read_private
from bract.identity import (
    certificate_fingerprint,
    load_tls_key,
    new_authority,
    new_tls_key,
    private_pem,
    signing_request,
    site_certificate,
)
from bract.identity import certificate_pem as pem
from bract.signing import Envelope, sign
from bract.update import Clearance, Refusal, WithdrawalNotice
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS, CLIENT_OPTIONS, unary_call
from bract.wire.chunks import MAX_MESSAGE, pack, pack_header
from bract.wire.refusals import KEY
from bract_client.home import SiteHome
from bract_client.hub import HubClient, connect
from bract_client.patience import refusals
from bract_server.limits import Limits
from bract_server.service import HubServer
from tests.loopback import Loopback, loopback, now

DATA = bytes(range(256)) * 30_000
NAME = digest(DATA)
CALLS_A_SITE = Limits().calls
ROUND = Digest("sha256:" + "1" * 64)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with loopback(tmp_path_factory.mktemp("hub"), "clinic", "bank", max_bytes=20_000_000) as hub:
        yield hub


@pytest.fixture
def clinic(running: Loopback) -> Iterator[HubClient]:
    with connect(running.sites["clinic"], now(), patience_s=1.0) as client:
        yield client


def clearance(site: str, home: SiteHome) -> Envelope:
    value = Clearance(
        site, ROUND, 1, "images", Purpose.PRETRAINING, ROUND, ROUND, 100, now(), now() + timedelta(hours=1)
    )
    return sign(value, home.signing_key())


def code_of(client: HubClient) -> str:
    with pytest.raises(BractError) as refused:
        client.status()
    return refused.value.code


def test_the_hub_says_who_it_is_and_what_time_it_is(clinic: HubClient, running: Loopback) -> None:
    status = clinic.status()
    assert status.hub == "hub"
    assert abs(status.at - now()) < timedelta(seconds=5)
    assert running.book.calls[-1] == "clinic"


def with_certificate(running: Loopback, key: bytes, certificate: x509.Certificate) -> HubClient:
    authority = running.hub.authority_file.read_bytes()
    return HubClient(
        f"127.0.0.1:{running.server.port}", key=key, certificate=pem(certificate), authority=authority, patience_s=0.5
    )


def test_a_certificate_of_a_foreign_authority_is_refused(running: Loopback) -> None:
    theirs, key = new_tls_key(), new_tls_key()
    foreign = new_authority(theirs, "hub", now())
    made = site_certificate(foreign, theirs, signing_request(key, "clinic"), "clinic", at=now())
    before = len(running.book.calls)
    with with_certificate(running, private_pem(key), made) as client:
        assert code_of(client) in {CERTIFICATE, UNREACHABLE}
    assert len(running.book.calls) == before


def test_an_expired_certificate_is_refused(running: Loopback) -> None:
    home = running.sites["clinic"]
    authority, key = running.hub.authority(), read_private(running.hub.authority_key)
    csr = signing_request(home.tls_key(), "clinic")
    made = site_certificate(authority, load_tls_key(key), csr, "clinic", at=now() - timedelta(days=400))
    running.book.certificates[certificate_fingerprint(made)] = "clinic"
    with with_certificate(running, read_private(home.tls_key_file), made) as client:
        assert code_of(client) in {CERTIFICATE, UNREACHABLE}


def test_a_certificate_that_expires_while_connected_is_refused(tmp_path: Path) -> None:
    ahead = [timedelta()]
    with (
        loopback(tmp_path, "clinic", clock=lambda: now() + ahead[0]) as hub,
        connect(hub.sites["clinic"], now(), patience_s=0.5) as client,
    ):
        client.status()
        ahead[0] = timedelta(days=366)
        assert code_of(client) == CERTIFICATE


def test_a_site_does_not_even_call_with_its_own_expired_certificate(running: Loopback) -> None:
    with pytest.raises(BractError) as refused:
        connect(running.sites["clinic"], now() + timedelta(days=366))
    assert refused.value.code == CERTIFICATE


def test_a_hub_of_another_authority_is_not_trusted(running: Loopback) -> None:
    home = running.sites["clinic"]
    foreign = pem(new_authority(new_tls_key(), "hub", now()))
    client = HubClient(
        f"127.0.0.1:{running.server.port}",
        key=read_private(home.tls_key_file),
        certificate=home.certificate_file.read_bytes(),
        authority=foreign,
        patience_s=0.5,
    )
    with client:
        assert code_of(client) == CERTIFICATE


def test_no_certificate_no_answer(running: Loopback) -> None:
    credentials = grpc.ssl_channel_credentials(running.hub.authority_file.read_bytes())
    target = f"127.0.0.1:{running.server.port}"
    with grpc.secure_channel(target, credentials, CLIENT_OPTIONS) as channel, pytest.raises(grpc.RpcError):
        unary_call(channel, "Status")(pb.StatusRequest(), timeout=5)


def test_a_certificate_that_the_registry_does_not_know_is_refused(tmp_path: Path) -> None:
    with loopback(tmp_path, "clinic") as hub, connect(hub.sites["clinic"], now(), patience_s=0.5) as client:
        client.status()
        hub.book.certificates.clear()
        assert code_of(client) == UNKNOWN_SITE


def test_a_certificate_known_for_another_site_is_refused(tmp_path: Path) -> None:
    with loopback(tmp_path, "clinic") as hub, connect(hub.sites["clinic"], now(), patience_s=0.5) as client:
        hub.book.certificates = dict.fromkeys(hub.book.certificates, "bank")
        assert code_of(client) == UNKNOWN_SITE


def test_a_site_speaks_for_itself(clinic: HubClient, running: Loopback) -> None:
    home = running.sites["clinic"]
    sealed = clearance("clinic", home)
    clinic.clear(sealed)
    clinic.refuse(no := sign(Refusal("clinic", ROUND, 1, "policy"), home.signing_key()))
    clinic.withdraw(gone := sign(WithdrawalNotice("clinic", "n1", (ROUND,), now()), home.signing_key()))
    assert running.book.taken[-3:] == [
        ("clear", "clinic", sealed),
        ("refuse", "clinic", no),
        ("withdraw", "clinic", gone),
    ]


def test_a_site_cannot_speak_for_another(clinic: HubClient, running: Loopback) -> None:
    before = list(running.book.taken)
    for key_of in ("bank", "clinic"):
        with pytest.raises(BractError) as refused:
            clinic.clear(clearance("bank", running.sites[key_of]))
        assert refused.value.code == UNTRUSTED
    with pytest.raises(BractError) as refused:
        clinic.reserve(clearance("clinic", running.sites["clinic"]))
    assert refused.value.code == UNTRUSTED
    with pytest.raises(BractError) as refused:
        clinic.clear(Envelope("x", b"junk", "k", b"s"))
    assert refused.value.code == UNTRUSTED
    assert running.book.taken == before


def test_proposals_come_as_soon_as_there_are_any(clinic: HubClient, running: Loopback) -> None:
    home = running.sites["clinic"]
    pair = (clearance("clinic", home).to_json(), clearance("clinic", home).to_json())
    start = time.monotonic()
    assert clinic.proposals(wait_s=0.3) == []
    assert 0.25 < time.monotonic() - start < 10
    threading.Timer(0.5, lambda: running.book.offers.update(clinic=[pair])).start()
    start = time.monotonic()
    (offer,) = clinic.proposals(wait_s=20)
    assert time.monotonic() - start < 15
    assert (offer.proposal.to_json(), offer.campaign.to_json()) == pair
    running.book.offers.clear()


def test_receipts_are_those_after_a_number(clinic: HubClient, running: Loopback) -> None:
    sealed = clearance("clinic", running.sites["clinic"])
    running.book.issued = [(n, sealed.to_json()) for n in (1, 2, 5)]
    assert [r.number for r in clinic.receipts()] == [1, 2, 5]
    assert [(r.number, r.envelope) for r in clinic.receipts(after=2)] == [(5, sealed)]


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Receipts", pb.ReceiptsRequest(after=2**63)),
        ("Wanted", pb.WantedRequest(campaign=ROUND, number=2**64 - 1)),
        ("Witness", pb.WitnessRequest(shown=pb.Shown(note=b"n"), remembered=2**63)),
        ("Witness", pb.WitnessRequest(shown=pb.Shown(note=b"n", old=2**63))),
    ],
)
def test_a_number_that_no_database_holds_is_refused_at_the_door(
    clinic: HubClient, method: str, request_: Message
) -> None:
    with pytest.raises(BractError) as refused, refusals():
        unary_call(clinic._channel, method)(request_, timeout=5)
    assert refused.value.code == MALFORMED


def test_an_array_travels_there_and_back(clinic: HubClient, running: Loopback, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(DATA)
    clinic.put(tmp_path / "up", NAME)
    assert clinic.stat(NAME) == (True, len(DATA))
    clinic.put(tmp_path / "up", NAME)
    clinic.get(NAME, len(DATA), tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == DATA
    running.store.discard(NAME)


def test_arrays_are_for_the_sites_that_the_registry_lets(clinic: HubClient, running: Loopback, tmp_path: Path) -> None:
    running.store.receive(NAME, len(DATA), [DATA])
    running.book.readable[NAME] = {"bank"}
    (tmp_path / "up").write_bytes(DATA)
    with pytest.raises(BractError) as refused:
        clinic.get(NAME, len(DATA), tmp_path / "down")
    assert refused.value.code == NO_CLEARANCE
    running.store.discard(NAME)
    with pytest.raises(BractError) as refused:
        clinic.put(tmp_path / "up", NAME)
    assert refused.value.code == NO_CLEARANCE
    running.book.readable.clear()
    with pytest.raises(BractError) as refused:
        clinic.get(NAME, len(DATA), tmp_path / "down")
    assert refused.value.code == STATE
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith(".part")] == ["up"]


def incoming(running: Loopback) -> list[str]:
    return [p.name for p in running.hub.arrays.rglob("*") if p.is_file()]


def test_what_was_put_under_a_wrong_digest_is_gone(clinic: HubClient, running: Loopback, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(DATA)
    with pytest.raises(BractError) as refused:
        clinic.put(tmp_path / "up", ROUND)
    assert refused.value.code == DIGEST_MISMATCH
    assert incoming(running) == []


def test_what_is_too_large_is_refused_before_it_is_sent(clinic: HubClient, running: Loopback, tmp_path: Path) -> None:
    with (tmp_path / "up").open("wb") as file:
        file.truncate(20_000_001)
    with pytest.raises(BractError) as refused:
        clinic.put(tmp_path / "up", ROUND)
    assert refused.value.code == TOO_LARGE
    assert incoming(running) == []


class RawPut:
    """A site that does not keep to the protocol."""

    def __init__(self, running: Loopback) -> None:
        home = running.sites["clinic"]
        credentials = grpc.ssl_channel_credentials(
            running.hub.authority_file.read_bytes(),
            read_private(home.tls_key_file),
            home.certificate_file.read_bytes(),
        )
        options = [(k, v) for k, v in CLIENT_OPTIONS if "message_length" not in k]
        self._channel = grpc.secure_channel(f"127.0.0.1:{running.server.port}", credentials, options)

    def code(self, messages: list[bytes]) -> tuple[str, str]:
        with self._channel as channel, pytest.raises(grpc.RpcError) as refused:
            put: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{ARRAYS}/Put", None, None)
            put(iter(messages), timeout=20)
        error: Any = refused.value
        return str(dict(error.trailing_metadata() or ()).get(KEY, "")), error.details() or ""


HEADER = pack_header(pb.PutHeader(digest=NAME, size=len(DATA)))


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([], MALFORMED),
        ([pack(DATA[:100])], MALFORMED),
        ([HEADER, HEADER], MALFORMED),
        ([HEADER, pack(DATA[:100])], MALFORMED),
        ([pack_header(pb.PutHeader(digest="../x", size=1)), pack(b"x")], MALFORMED),
        ([pack_header(pb.PutHeader(digest=NAME, size=10)), pack(DATA[:100])], TOO_LARGE),
        ([pack_header(pb.PutHeader(digest=NAME, size=10, offset=5)), pack(DATA[:5])], MALFORMED),
    ],
)
def test_a_put_that_breaks_the_protocol_is_refused(running: Loopback, messages: list[bytes], code: str) -> None:
    told, details = RawPut(running).code(messages)
    assert (told, details) == (code, code)
    for part in running.hub.arrays.rglob("*.part"):
        assert DATA.startswith(part.read_bytes()), "what is kept is the beginning of what was announced"
    running.store.discard(NAME)
    assert incoming(running) == []


def test_a_message_over_the_limit_is_refused(running: Loopback) -> None:
    told, details = RawPut(running).code([HEADER, pack(bytes(MAX_MESSAGE + 1))])
    assert told == ""
    assert "larger than max" in details
    for part in running.hub.arrays.rglob("*.part"):
        assert part.stat().st_size == 0
    running.store.discard(NAME)


def test_an_error_inside_tells_a_site_its_code_and_nothing_else(
    clinic: HubClient, running: Loopback, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(list[tuple[int, bytes]]):
        def __iter__(self) -> Iterator[tuple[int, bytes]]:
            raise RuntimeError("a secret")

    running.book.issued = Broken()
    with pytest.raises(BractError) as refused:
        clinic.receipts()
    running.book.issued = []
    assert refused.value.code == HUB_FAILED
    assert "secret" not in str(refused.value)
    assert "a secret" in caplog.text


def test_two_hubs_cannot_share_a_port(running: Loopback, tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        HubServer(
            running.book,
            running.store,
            hub="other",
            listen=f"127.0.0.1:{running.server.port}",
            key=read_private(running.hub.server_key),
            certificate=running.hub.server_file.read_bytes(),
            authority=running.hub.authority(),
            clock=lambda: datetime.now(UTC),
        )
    assert refused.value.code == UNREACHABLE


def test_one_site_cannot_take_every_thread(tmp_path: Path) -> None:
    with loopback(tmp_path, "clinic", "bank", threads=4 * CALLS_A_SITE) as running:

        def line(site: str) -> HubClient:
            home = running.sites[site]
            return HubClient(
                f"127.0.0.1:{running.server.port}",
                key=read_private(home.tls_key_file),
                certificate=home.certificate_file.read_bytes(),
                authority=running.hub.authority_file.read_bytes(),
            )

        with line("clinic") as greedy, line("bank") as other, ThreadPoolExecutor(CALLS_A_SITE) as pool:
            waiting = [pool.submit(greedy.proposals, 12.0) for _ in range(CALLS_A_SITE)]
            running.wait_for(CALLS_A_SITE, "calls", "clinic")
            with pytest.raises(BractError) as refused:
                greedy.status()
            assert refused.value.code == CONCURRENT
            assert other.status().hub
            assert [one.result() for one in waiting] == [[]] * CALLS_A_SITE
            assert greedy.status().hub
