"""No site takes more than its share: of calls, uploads, room and patience. The sums by property, the door by real calls."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from bract.digest import Digest, digest
from bract.errors import CERTIFICATE, CLOCK, CONCURRENT, DISK, MALFORMED, TOO_OFTEN, UNREACHABLE, BractError
from bract.files import read_private
from bract.signing import sign
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS, CLIENT_OPTIONS, UNARY
from bract.wire.chunks import pack, pack_header
from bract.wire.progress import STEP, Progress
from bract.wire.refusals import KEY, refusal
from bract_client.hub import HubClient, connect
from bract_server import home as homes
from bract_server.gateway import take_renewed
from bract_server.limits import Bucket, Limits, Share
from tests.client.test_hub import BadLine
from tests.loopback import Loopback, loopback, now
from tests.server.test_service import clearance

A, B = digest(b"a"), digest(b"b")
times = st.lists(st.floats(0, 100), min_size=1, max_size=60).map(sorted)


@given(st.floats(0.1, 50), st.integers(1, 20), times)
def test_a_bucket_lets_no_more_through_than_its_depth_and_what_flowed_in(
    rate: float, depth: int, at: list[float]
) -> None:
    bucket, through = Bucket(depth, at[0]), 0
    for moment in at:
        with suppress(BractError):
            bucket = bucket.taken(rate, depth, moment)
            through += 1
        assert through <= depth + rate * (moment - at[0]) + 1e-6


@given(st.floats(0.1, 50), st.integers(1, 20), st.floats(0, 100), st.floats(0, 100))
def test_a_clock_that_goes_back_fills_no_bucket(rate: float, depth: int, later: float, back: float) -> None:
    full = Bucket(depth, later).taken(rate, depth, later)
    again = Bucket(full.level, full.at)
    with suppress(BractError):
        again = full.taken(rate, depth, later - back)
        assert again.level == full.level - 1
    assert again.at == later


@given(st.lists(st.tuples(st.integers(0, 2 * STEP), st.floats(0, 5)), max_size=30), st.floats(0.5, 20))
def test_only_a_whole_step_of_bytes_is_progress(moves: list[tuple[int, float]], stall_s: float) -> None:
    one, at, since, rest = Progress(lambda: None, 0.0), 0.0, 0.0, 0
    for count, pause in moves:
        at += pause
        assert one.stalled(stall_s, at) == (at - since > stall_s)
        one.moved(count, at)
        rest += count
        if rest >= STEP:
            rest, since = 0, at


class Clockwork:
    """A share with a clock and a store that the test turns by hand."""

    def __init__(self, **limits: Any) -> None:
        self.at, self.held = 0.0, set[Digest]()
        self.share = Share(Limits(**limits), lambda one: one in self.held, lambda: self.at)


def refused(call: Any) -> str:
    with pytest.raises(BractError) as caught:
        call()
    return caught.value.code


def test_one_sites_calls_and_turns_are_not_anothers() -> None:
    world = Clockwork(calls=2, burst=3, calls_per_s=1.0)
    for _ in range(3):
        world.share.call("greedy")
    assert refused(lambda: world.share.call("greedy")) == TOO_OFTEN
    world.share.call("other")
    world.at = 1.0
    world.share.call("greedy")
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(world.share.turn("greedy"))
        assert refused(lambda: held.enter_context(world.share.turn("greedy"))) == CONCURRENT
        held.enter_context(world.share.turn("other"))
    with world.share.turn("greedy"):
        pass


def test_what_a_site_sent_counts_until_the_hub_has_it_no_more() -> None:
    world = Clockwork(site_bytes=10)
    with world.share.upload("one", A, 6):
        world.held.add(A)
    assert refused(lambda: ExitStack().enter_context(world.share.upload("one", B, 5))) == DISK
    with world.share.upload("two", B, 5), world.share.upload("one", A, 6):
        pass
    world.held.clear()
    with world.share.upload("one", B, 10):
        assert refused(lambda: ExitStack().enter_context(world.share.upload("one", A, 1))) == DISK


def test_what_stalls_is_cut_and_what_moves_is_not() -> None:
    world, cut = Clockwork(stall_s=10.0), list[str]()
    with world.share.moving(lambda: cut.append("slow")), world.share.moving(lambda: cut.append("quick")) as moved:
        world.at = 9.0
        moved(STEP)
        assert world.share.cut_stalled() == 0
        world.at = 11.0
        assert (world.share.cut_stalled(), cut) == (1, ["slow"])
    world.at = 100.0
    assert world.share.cut_stalled() == 0


TIGHT = Limits(calls=6, uploads=2, calls_per_s=500, burst=500, stall_s=1.0, site_bytes=3 << 20, keepalive_s=0.6)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with loopback(tmp_path_factory.mktemp("tight"), "clinic", "bank", limits=TIGHT, threads=12) as hub:
        yield hub


def line(hub: Loopback, site: str, **more: Any) -> HubClient:
    home = hub.sites[site]
    return HubClient(
        f"127.0.0.1:{more.pop('port', hub.server.port)}",
        key=read_private(home.tls_key_file),
        certificate=home.certificate_file.read_bytes(),
        authority=hub.hub.authority_file.read_bytes(),
        **{"patience_s": 0.5, **more},
    )


def raw(hub: Loopback, site: str) -> Any:
    home = hub.sites[site]
    credentials = grpc.ssl_channel_credentials(
        hub.hub.authority_file.read_bytes(), read_private(home.tls_key_file), home.certificate_file.read_bytes()
    )
    return grpc.secure_channel(f"127.0.0.1:{hub.server.port}", credentials, CLIENT_OPTIONS)


def told(take: Any, call: Any = None) -> tuple[str, grpc.StatusCode]:
    with pytest.raises(grpc.RpcError) as caught:
        take.result() if call is None else take(call)
    error: Any = caught.value
    return str(dict(error.trailing_metadata() or ()).get(KEY, "")), error.code()


def silent(stop: threading.Event) -> Iterator[bytes]:
    stop.wait(30)
    yield from ()


def test_calls_that_never_send_their_request_hold_only_their_own_sites_turns_and_not_for_long(tight: Loopback) -> None:
    stop = threading.Event()
    with raw(tight, "clinic") as channel, line(tight, "bank") as other:
        ask = channel.stream_unary("/bract.wire.Registry/Status")
        start = time.monotonic()
        calls = [ask.future(silent(stop), timeout=20) for _ in range(12)]
        assert other.status().hub == "hub", "the others are served meanwhile"
        answers = [told(call) for call in calls]
        assert time.monotonic() - start < 15
        stop.set()
    assert {code for code, _ in answers} <= {CONCURRENT, ""}
    assert (CONCURRENT, grpc.StatusCode.ABORTED) in answers and ("", grpc.StatusCode.CANCELLED) in answers


def trickle(header: bytes, piece: bytes, pause_s: float) -> Iterator[bytes]:
    yield header
    while True:
        time.sleep(pause_s)
        yield piece


@pytest.mark.parametrize("piece", [pack(b""), pack(b"x" * 100)])
def test_a_put_that_trickles_is_cut_off_and_keeps_what_came(tight: Loopback, piece: bytes) -> None:
    header = pack_header(pb.PutHeader(digest=A, size=1 << 20))
    with raw(tight, "clinic") as channel:
        start = time.monotonic()
        put = channel.stream_unary(f"/{ARRAYS}/Put").future(trickle(header, piece, 0.05), timeout=20)
        assert told(put) == ("", grpc.StatusCode.CANCELLED)
        assert 0.8 < time.monotonic() - start < 15
    with line(tight, "clinic") as client:
        until = time.monotonic() + 15  # the caller hears of the end before the hub has put away what came
        while len(piece) > 10 and not client.stat(A)[1] and time.monotonic() < until:
            time.sleep(0.1)
        assert (client.stat(A)[1] > 0) == (len(piece) > 10)
    tight.store.discard(A)


def test_a_get_that_nobody_reads_is_cut_off(tight: Loopback) -> None:
    data = bytes(64 << 20)
    tight.store.receive(digest(data), len(data), [data])
    with raw(tight, "clinic") as channel:
        get = channel.unary_stream(f"/{ARRAYS}/Get")(pb.GetRequest(digest=digest(data)).SerializeToString(), timeout=20)
        next(get)
        time.sleep(2.5)
        assert told(list, get) == ("", grpc.StatusCode.CANCELLED)
    tight.store.discard(digest(data))


def test_no_site_sends_more_at_once_than_its_uploads(tmp_path: Path) -> None:
    stop = threading.Event()
    with loopback(tmp_path, "clinic", limits=replace(TIGHT, stall_s=60.0)) as hub, raw(hub, "clinic") as channel:
        put = channel.stream_unary(f"/{ARRAYS}/Put")
        under_way = []
        for n in range(2):
            header = pack_header(pb.PutHeader(digest=digest(b"%d" % n), size=100))
            under_way.append(put.future(itertools.chain([header], silent(stop)), timeout=20))
        hub.wait_for(2, "uploads", "clinic")
        header = pack_header(pb.PutHeader(digest=B, size=100))
        assert told(put.future(iter([header]), timeout=20))[0] == CONCURRENT
        stop.set()
        assert {told(one)[0] for one in under_way} == {MALFORMED}


def test_no_site_holds_more_than_its_room(tight: Loopback, tmp_path: Path) -> None:
    for n, size in enumerate((2 << 20, 2 << 20)):
        (tmp_path / str(n)).write_bytes(bytes([n]) * size)
    with line(tight, "bank") as client:
        names = [digest((tmp_path / str(n)).read_bytes()) for n in range(2)]
        client.put(tmp_path / "0", names[0])
        assert refused(lambda: client.put(tmp_path / "1", names[1])) == DISK
        tight.store.discard(names[0])
        client.put(tmp_path / "1", names[1])
        tight.store.discard(names[1])


def test_a_site_that_calls_too_often_is_told_so_and_its_client_waits(tmp_path: Path) -> None:
    with loopback(tmp_path, "clinic", "bank", limits=Limits(calls_per_s=5, burst=3)) as hub:
        with line(hub, "clinic", patience_s=0.0) as hasty, line(hub, "bank") as other:
            for _ in range(3):
                hasty.status()
            assert refused(hasty.status) == TOO_OFTEN
            assert other.status().hub
        with line(hub, "clinic", patience_s=10.0) as patient:
            for _ in range(5):
                assert patient.status().hub == "hub"


def test_a_line_that_dies_half_way_is_noticed_and_its_turn_is_free_again(tight: Loopback, tmp_path: Path) -> None:
    """No FIN, no RST: the proxy stops forwarding, as a lost VPN does. The hub's pings find out."""
    relay = Blackhole(tight.server.port)
    with line(tight, "clinic", port=relay.port) as client:
        client.status()
        waiting = threading.Thread(target=lambda: suppress_all(lambda: client.proposals(20.0)))
        waiting.start()
        tight.wait_for(1, "calls", "clinic")
        relay.silent.set()
        deadline = time.monotonic() + 20
        while tight.server._share._under_way and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not tight.server._share._under_way
        relay.close()
        client.close()
        waiting.join(10)


def suppress_all(call: Any) -> None:
    with suppress(BractError, ValueError, grpc.RpcError):
        call()


class Blackhole(BadLine):
    """A TCP proxy that, once `silent`, keeps its connections open and forwards nothing."""

    def __init__(self, target: int) -> None:
        self.silent, self._ended = threading.Event(), threading.Event()
        super().__init__(target, limit=1 << 60, cuts=0)

    def _pump(self, way: str, source: Any, sink: Any) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if self.silent.is_set():
                    self._ended.wait(30)
                    break
                sink.sendall(data)
        for end in (source, sink):
            end.close()

    def close(self) -> None:
        self._ended.set()
        super().close()


def test_a_site_is_not_held_by_a_hub_that_stalls(tight: Loopback, tmp_path: Path) -> None:
    data = bytes(range(256)) * (8 << 12)
    tight.store.receive(digest(data), len(data), [data])
    relay = Blackhole(tight.server.port)
    with line(tight, "bank", port=relay.port, stall_s=0.5, patience_s=0.0) as client:
        client.status()
        relay.silent.set()
        start = time.monotonic()
        assert refused(lambda: client.get(digest(data), len(data), tmp_path / "down")) == UNREACHABLE
        assert time.monotonic() - start < 15
        relay.close()
    tight.store.discard(digest(data))


def test_more_calls_than_the_hub_serves_are_waited_for_and_not_mistaken_for_large_messages(tmp_path: Path) -> None:
    stop = threading.Event()
    with loopback(tmp_path, "clinic", "bank", threads=4) as hub, raw(hub, "clinic") as channel:
        calls = [channel.stream_unary("/bract.wire.Registry/Status").future(silent(stop), timeout=20) for _ in range(4)]
        hub.wait_for(4, "calls", "clinic")
        with line(hub, "bank", patience_s=0.0) as client:
            assert refused(client.status) == UNREACHABLE
        stop.set()
        with line(hub, "bank", patience_s=10.0) as client:
            assert client.status().hub
        assert {told(call)[0] for call in calls} == {MALFORMED}


def test_a_frame_that_is_no_message_is_refused_by_its_code_on_every_method(tight: Loopback) -> None:
    junk = b"\x0a\xff\xff\xff\xff\x0f"
    with raw(tight, "clinic") as channel:
        for name, (service, _, _) in UNARY.items():
            assert told(channel.stream_unary(f"/{service}/{name}").future(iter([junk]), timeout=5))[0] == MALFORMED
            assert told(channel.stream_unary(f"/{service}/{name}").future(iter([]), timeout=5))[0] == MALFORMED
        assert told(list, channel.stream_stream(f"/{ARRAYS}/Get")(iter([junk]), timeout=5))[0] == MALFORMED
        assert told(channel.stream_unary(f"/{ARRAYS}/Put").future(iter([junk]), timeout=5))[0] == MALFORMED


def test_a_hub_shows_a_renewed_certificate_without_a_restart_and_no_broken_one(tmp_path: Path) -> None:
    with loopback(tmp_path, "clinic") as hub, line(hub, "clinic") as standing:
        standing.status()
        before = shown(hub)
        homes.renew(hub.hub, now())
        key = read_private(hub.hub.server_key)
        homes.renew(hub.hub, now())
        assert refused(lambda: hub.server.renew(key, hub.hub.server_file.read_bytes())) == CERTIFICATE
        assert shown(hub) == before
        take_renewed(hub.hub, hub.server)
        assert shown(hub) != before
        assert standing.status().hub == "hub", "a connection that stands goes on"
        with line(hub, "clinic") as fresh:
            assert fresh.status().hub == "hub"


def shown(hub: Loopback) -> int:
    import socket
    import ssl

    home = hub.sites["clinic"]
    context = ssl.create_default_context(cafile=hub.hub.authority_file)
    context.load_cert_chain(home.certificate_file, home.tls_key_file)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", hub.server.port), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_a_site_takes_up_its_renewed_certificate_and_keeps_the_old_one_while_the_new_is_not_good(
    tmp_path: Path,
) -> None:
    from bract_client import enrol as site_enrol
    from bract_client.renewal import Renewal
    from bract_server import enrol as hub_enrol

    with loopback(tmp_path, "clinic") as hub:
        home = hub.sites["clinic"]
        with connect(home, now()) as client:
            renewal = Renewal(home, client)
            home.certificate_file.write_bytes(b"half a certif")
            renewal.look(now())
            assert client.status().hub
            bundle = hub_enrol.approve(hub.hub, hub.book, site_enrol.request(home, now()), now())
            site_enrol.install(home, bundle, hub.hub.fingerprint(), now())
            # the registry of this test knows only the newest certificate: with the old one the call would be refused
            assert refused(client.status) == "unknown-site"
            renewal.look(now())
            assert client.status().hub == "hub"


def test_an_answer_dated_by_a_wrong_clock_is_refused_by_its_code(tight: Loopback) -> None:
    from dataclasses import replace
    from datetime import timedelta

    from bract.update import Clearance
    from bract.value import decode

    home = tight.sites["clinic"]
    value = decode(Clearance, clearance("clinic", home).payload)
    with line(tight, "clinic") as client:
        ahead = replace(value, issued_at=now() + timedelta(minutes=6), expires_at=now() + timedelta(hours=2))
        assert refused(lambda: client.clear(sign(ahead, home.signing_key()))) == CLOCK
        near = replace(value, issued_at=now() + timedelta(minutes=4), expires_at=now() + timedelta(hours=2))
        client.clear(sign(near, home.signing_key()))


def test_grpcs_own_refusals_are_told_apart() -> None:
    assert refusal(grpc.RpcError()).code == UNREACHABLE
