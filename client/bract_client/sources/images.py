"""Images: a folder of PNG files and a manifest.csv (record_id,subject_id,collected_at,purposes,file).

Purposes are separated by semicolons. A file must lie in the folder, be a PNG of exactly the declared shape with 8 bits
a channel, and not exceed the size limit; anything else makes its record unreadable.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from bract_client.sources.folder import Folder
from bract_client.sources.lines import lines
from bract_client.sources.record import (
    BadLine,
    Payloads,
    Reason,
    SourceRecord,
    Unreadable,
    fields,
)

MANIFEST = "manifest.csv"
MAX_FILE_BYTES = 16 << 20

_COLUMNS = ("record_id", "subject_id", "collected_at", "purposes", "file")
_PNG = b"\x89PNG\r\n\x1a\n"
_MODES = {1: "L", 3: "RGB"}


class Images:
    """A folder of PNG images of one shape (channels, height, width)."""

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self._folder = Folder(folder)
        self._shape = shape

    def records(self) -> Iterator[SourceRecord | Unreadable]:
        """See `Source.records`; every image is decoded once, so that what is recorded can be read."""
        for item in lines(self._folder.path / MANIFEST, _COLUMNS):
            if isinstance(item, Unreadable):
                yield item
                continue
            number, row = item
            try:
                named = fields(row["record_id"], row["subject_id"], row["collected_at"], _purposes(row))
                data = self._folder.read(row["file"], MAX_FILE_BYTES)
                decode_png(data, self._shape)
                yield named.record(sha256(data).digest(), number)
            except BadLine as bad:
                yield Unreadable(number, bad.reason)

    def load(self, record_ids: Sequence[str]) -> Payloads:
        """See `Source.load`; float32 (n, C, H, W) in [0, 1]."""
        files = {
            item[1]["record_id"]: item[1]["file"]
            for item in lines(self._folder.path / MANIFEST, _COLUMNS)
            if not isinstance(item, Unreadable)
        }
        values = np.zeros((len(record_ids), *self._shape), dtype=np.float32)
        digests: list[bytes | None] = [None] * len(record_ids)
        for place, record_id in enumerate(record_ids):
            if record_id not in files:
                continue
            try:
                data = self._folder.read(files[record_id], MAX_FILE_BYTES)
                values[place] = decode_png(data, self._shape)
                digests[place] = sha256(data).digest()
            except BadLine:
                continue
        return Payloads(values, tuple(digests))


def decode_png(data: bytes, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """PNG bytes as float32 (C, H, W) in [0, 1].

    The size is read from the file's first bytes before anything is unpacked, so that a small file cannot become a huge
    image.

    Raises:
        BadLine: for anything but a sound PNG of this shape with 8 bits a channel.
    """
    channels, height, width = shape
    if data[:8] != _PNG or data[12:16] != b"IHDR" or len(data) < 33:
        raise BadLine(Reason.BAD_PAYLOAD)
    if struct.unpack(">II", data[16:24]) != (width, height):
        raise BadLine(Reason.WRONG_SHAPE)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode != _MODES.get(channels) or image.size != (width, height):
                raise BadLine(Reason.WRONG_SHAPE)
            pixels = np.asarray(image, dtype=np.float32) / np.float32(255)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError) as error:
        raise BadLine(Reason.BAD_PAYLOAD) from error
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def _purposes(row: dict[str, str]) -> list[str]:
    return row["purposes"].split(";") if row["purposes"] else []
