"""Chunks of a file as protobuf messages, packed and unpacked with as few copies as Python allows.

`Chunk.data` and `PutChunk.data` are both field 1 of type bytes, so one form serves both: the tag, the length as a
varint, the bytes. Protobuf's own classes would copy each megabyte twice more on either side; what is written and read
here is the same message.
"""

from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from bract.wire.hub_pb2 import Chunk, PutChunk, PutHeader

CHUNK = 1 << 20
"""Bytes of a file in one message."""
MAX_MESSAGE = (4 << 20) + 4096
"""Bytes of one message, in either direction; a larger one is refused before it is read whole."""

_DATA = 0x0A


def pack(data: bytes | memoryview) -> bytes:
    """The `Chunk` (and `PutChunk`) message that holds these bytes."""
    head, rest = bytearray((_DATA,)), len(data)
    while rest > 0x7F:
        head.append(rest & 0x7F | 0x80)
        rest >>= 7
    head.append(rest)
    return b"".join((head, data))


def unpack(message: bytes) -> memoryview:
    """The data of a `Chunk` message, as a view of it.

    Raises:
        DecodeError: when the bytes are no such message.
    """
    fast = _view(message)
    return fast if fast is not None else memoryview(Chunk.FromString(message).data)


def unpack_put(message: bytes) -> memoryview | PutHeader:
    """The data of a `PutChunk` message, as a view of it, or its header.

    Raises:
        DecodeError: when the bytes are no such message.
    """
    fast = _view(message)
    if fast is not None:
        return fast
    parsed = PutChunk.FromString(message)
    return parsed.header if parsed.WhichOneof("part") == "header" else memoryview(parsed.data)


def pack_header(header: PutHeader) -> bytes:
    """The `PutChunk` message that opens a `Put`."""
    message: bytes = PutChunk(header=header).SerializeToString()
    return message


def packed(path: Path, offset: int = 0, size: int = CHUNK) -> Iterator[bytes]:
    """A file's bytes from `offset` on, as packed messages."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while data := file.read(size):
            yield pack(data)


def _view(message: bytes) -> memoryview | None:
    """The data of a message that is field 1 and nothing else; None for any other."""
    if not message or message[0] != _DATA:
        return None
    length, at = 0, 1
    for shift in range(0, 35, 7):
        if at >= len(message):
            raise DecodeError("a length is cut short")
        byte = message[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return memoryview(message)[at:] if at + length == len(message) else None
    return None
