"""Frames: raw bytes to every parser of the wire, and to every method of a real hub over mutual TLS."""

import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import strategies as st

from bract.digest import digest
from bract.errors import CODES, HUB_FAILED, MALFORMED, BractError
from bract.files import read_private
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS, CLIENT_OPTIONS, UNARY
from bract.wire.chunks import pack, pack_header, unpack, unpack_put
from bract.wire.refusals import KEY
from bract.wire.witnessing import reply_value, word_value
from bract_server.limits import Limits
from tests.hostile.attacks import broken, held, seen, strike
from tests.loopback import Loopback, loopback
from tests.server.test_service import clearance

DATA = bytes(range(256)) * 20
NAME = digest(DATA)
FRAMES = [
    pack(b""),
    pack(b"x" * 100),
    pack(DATA),
    pack_header(pb.PutHeader(digest=NAME, size=len(DATA))),
    pb.PutChunk(data=b"x" * 130).SerializeToString(),
    pb.WitnessRequest(
        shown=pb.Shown(note=b"n", old=3, proof=[b"p" * 32]), remembered=4, cosignature="c"
    ).SerializeToString(),
    pb.WantedRequest(campaign=NAME, number=1).SerializeToString(),
]


def test_chunks_are_read_as_protobuf_reads_them() -> None:
    def right(data: bytes, found: memoryview) -> bool:
        return bytes(found) == pb.Chunk.FromString(data).data

    def right_put(data: bytes, found: Any) -> bool:
        there = pb.PutChunk.FromString(data)
        return found == there.header if isinstance(found, pb.PutHeader) else bytes(found) == there.data

    def careless(data: bytes) -> memoryview:
        return memoryview(data)[2:]

    inputs = broken(FRAMES)
    held(strike("frames, chunks", inputs, unpack, right, count=800, refusals=(DecodeError,)))
    held(strike("frames, puts", inputs, unpack_put, right_put, count=800, refusals=(DecodeError,)))
    sound = inputs.filter(_reads)
    seen(strike("control", sound, careless, right, count=50, record=False))


def _reads(data: bytes) -> bool:
    try:
        pb.Chunk.FromString(data)
    except DecodeError:
        return False
    return True


def test_a_witness_word_off_the_wire_is_taken_as_it_stands() -> None:
    def read(data: bytes) -> Any:
        return word_value(pb.WitnessRequest.FromString(data)), reply_value(pb.WitnessReply.FromString(data))

    def right(data: bytes, found: Any) -> bool:
        there = pb.WitnessRequest.FromString(data)
        return bool(found[0].shown.note == there.shown.note and found[0].remembered == there.remembered)

    held(strike("frames, witness", broken(FRAMES), read, right, count=400, refusals=(DecodeError,)))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    limits = Limits(calls_per_s=1e6, burst=10**6, stall_s=5.0, calls=64, uploads=32)
    with loopback(tmp_path_factory.mktemp("hub"), "clinic", "bank", limits=limits, max_bytes=1 << 20) as running:
        yield running


class Line:
    """A site that holds a good certificate and keeps to no protocol."""

    def __init__(self, hub: Loopback, site: str) -> None:
        home = hub.sites[site]
        credentials = grpc.ssl_channel_credentials(
            hub.hub.authority_file.read_bytes(), read_private(home.tls_key_file), home.certificate_file.read_bytes()
        )
        options = [(name, value) for name, value in CLIENT_OPTIONS if "message_length" not in name]
        self.channel: Any = grpc.secure_channel(f"127.0.0.1:{hub.server.port}", credentials, options)

    def say(self, call: tuple[str, tuple[bytes, ...]]) -> list[bytes]:
        """What the hub answers; its refusal as an error, anything else as a crash."""
        method, frames = call
        try:
            return list(self.channel.stream_stream(method)(iter(frames), timeout=10))
        except grpc.RpcError as error:
            told: Any = error
            code = str(dict(told.trailing_metadata() or ()).get(KEY, ""))
            if code in CODES and code != HUB_FAILED:
                raise BractError(code) from error
            if told.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in told.details():
                raise BractError(MALFORMED) from error
            raise AssertionError(f"{told.code()}: {told.details()} {code}") from error


def requests(hub: Loopback) -> list[tuple[str, bytes]]:
    """A valid request of each method, as bytes."""
    signed = pb.Signed(envelope=clearance("clinic", hub.sites["clinic"]).to_json())
    made = {
        "Stat": pb.StatRequest(digest=NAME),
        "Proposals": pb.ProposalsRequest(wait_s=0.0),
        "Receipts": pb.ReceiptsRequest(after=1),
        "Wanted": pb.WantedRequest(campaign=NAME, number=1),
        "Witness": pb.WitnessRequest.FromString(FRAMES[5]),
        "Status": pb.StatusRequest(),
    }
    unary = [(f"/{UNARY[name][0]}/{name}", made.get(name, signed).SerializeToString()) for name in UNARY]
    return [*unary, (f"/{ARRAYS}/Get", pb.GetRequest(digest=NAME).SerializeToString())]


def test_no_frame_makes_a_hub_fail_or_take_what_nobody_signed(hub: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    valid = requests(hub)
    hub.store.receive(NAME, len(DATA), [DATA])
    line, before = Line(hub, "clinic"), len(hub.book.taken)

    def one(method_and_data: tuple[str, bytes], seed: int) -> tuple[str, tuple[bytes, ...]]:
        random, (method, data) = Random(seed), method_and_data
        changed = _changed(data, [other for _, other in valid], random)
        return method, random.choice(((changed,), (changed,), (changed, data), (), (changed,) * 3))

    def right(call: tuple[str, tuple[bytes, ...]], answer: list[bytes]) -> bool:
        """Only what is another's or nobody's may not be taken; an array is given as it is or not at all."""
        if call[0].endswith("Get"):
            offset = pb.GetRequest.FromString(call[1][0]).offset
            return b"".join(pb.Chunk.FromString(part).data for part in answer) == DATA[offset:]
        return len(answer) == 1

    inputs = st.builds(one, st.sampled_from(valid), st.integers(0, 2**64 - 1))
    with caplog.at_level(logging.ERROR):
        held(strike("frames, every method over TLS", inputs, line.say, right, count=700))
    assert caplog.records == [], "the hub met nothing that it had not foreseen"
    for _, site, envelope in hub.book.taken[before:]:
        assert site == "clinic" and envelope.payload_type.startswith("application/vnd.bract.")
    line.channel.close()
    hub.store.discard(NAME)


def _changed(data: bytes, others: list[bytes], random: Random) -> bytes:
    from tests.hostile.attacks import _break

    return _break(data, others, random) if data else random.choice((b"", b"\x08", b"\xff" * 9, b"\x0a\x00"))


def put_calls(seed: int) -> tuple[str, tuple[bytes, ...]]:
    """Puts whose header and chunks come wrong: order, number, size, offset, digest, or bytes."""
    random = Random(seed)
    size = random.choice((len(DATA), len(DATA), len(DATA) - 1, len(DATA) + 1, 0, 1 << 21, 2**64 - 1))
    name = random.choice((NAME, NAME, digest(b"other"), "sha256:..", "", "../x"))
    offset = random.choice((0, 0, 0, 1, len(DATA), 2**63))
    frames = [pack_header(pb.PutHeader(digest=name, size=size, offset=offset)), pack(DATA[:2000]), pack(DATA[2000:])]
    match random.randrange(8):
        case 0:
            random.shuffle(frames)
        case 1:
            frames.insert(random.randrange(4), random.choice(frames))
        case 2:
            del frames[random.randrange(3)]
        case 3:
            at = random.randrange(3)
            frames[at] = _changed(frames[at], frames, random)
        case 4:
            frames[0] = frames[0][: random.randrange(len(frames[0]))]
        case _:
            pass
    return f"/{ARRAYS}/Put", tuple(frames)


def test_no_put_leaves_anything_but_what_its_digest_names(hub: Loopback, caplog: pytest.LogCaptureFixture) -> None:
    line = Line(hub, "bank")

    def say(call: tuple[str, tuple[bytes, ...]]) -> list[Path]:
        try:
            line.say(call)
        finally:
            whole = sorted(hub.hub.arrays.glob("*.safetensors"))
            data = [path.read_bytes() for path in whole]
            for path in whole:
                path.unlink()
        return data  # type: ignore[return-value]

    def right(_: object, left: list[Any]) -> bool:
        return left in ([DATA], [])

    def wrong(_: object, left: list[Any]) -> bool:
        return left == []

    inputs = st.integers(0, 2**64 - 1).map(put_calls)
    with caplog.at_level(logging.ERROR):
        held(strike("frames, puts over TLS", inputs, say, right, count=400))
        seen(strike("control", inputs, say, wrong, count=150, record=False))
    assert caplog.records == []
    line.channel.close()


def test_a_message_over_the_limit_is_refused_before_it_is_read_whole(hub: Loopback) -> None:
    line = Line(hub, "clinic")
    for method in ("/bract.wire.Registry/Clear", f"/{ARRAYS}/Get", f"/{ARRAYS}/Put"):
        with pytest.raises(BractError):
            line.say((method, (bytes(6 << 20),)))
    line.channel.close()
