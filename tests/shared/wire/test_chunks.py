"""What is packed by hand is the message that protobuf would write."""

from pathlib import Path

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from bract.wire.chunks import MAX_MESSAGE, pack, pack_header, packed, unpack, unpack_put
from bract.wire.hub_pb2 import Chunk, PutChunk, PutHeader


@given(st.binary(min_size=1, max_size=20_000))
def test_a_packed_chunk_is_what_protobuf_writes(data: bytes) -> None:
    assert pack(data) == pack(memoryview(data)) == Chunk(data=data).SerializeToString()
    assert pack(data) == PutChunk(data=data).SerializeToString()
    assert unpack(pack(data)) == data
    assert unpack_put(pack(data)) == data


@pytest.mark.parametrize("size", [127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_lengths_on_either_side_of_a_varints_byte(size: int) -> None:
    data = bytes(size)
    assert pack(data) == Chunk(data=data).SerializeToString()
    assert unpack(pack(data)) == data


@given(st.text(max_size=80), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_header_is_never_taken_for_data(digest: str, size: int, offset: int) -> None:
    header = PutHeader(digest=digest, size=size, offset=offset)
    assert unpack_put(pack_header(header)) == header


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(message: bytes) -> None:
    try:
        expected = Chunk.FromString(message).data
    except DecodeError:
        with pytest.raises(DecodeError):
            unpack(message)
    else:
        assert unpack(message) == expected


def test_a_file_is_packed_from_an_offset_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = bytes(range(256)) * 40
    path.write_bytes(data)
    messages = list(packed(path, offset=1000, size=4096))
    assert [len(unpack(m)) for m in messages] == [4096, 4096, 1048]
    assert b"".join(unpack(m) for m in messages) == data[1000:]
    assert max(map(len, packed(path))) < MAX_MESSAGE
