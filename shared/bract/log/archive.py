"""A zip archive that can be written in one way only [PKWARE APPNOTE 6.3.10]: stored, without times, comments or extras.

The same files in the same order always give the same bytes, any unzip reads them, and a reader can tell whether a byte
between the files was changed: it writes the directory again and compares. Nothing is compressed, so nothing explodes.
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bract.errors import ALREADY_EXISTS, LOG, MALFORMED, BractError
from bract.files import disk_errors

MAX_FILE = 1 << 28
"""Bytes of one file inside."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(?:/[a-z0-9][a-z0-9._-]{0,63}){0,15}")
_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR = b"PK\x06\x06", b"PK\x06\x07"
_VERSION = 45
_DAY = 0x21  # 1 January 1980, the first that the format knows
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_HEADER = 30


@dataclass(frozen=True)
class Member:
    """One file inside: its name, where its header begins, its length and CRC-32."""

    name: str
    offset: int
    size: int
    crc: int


def zipped(files: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """The archive of these files, in parts.

    Raises:
        BractError: `malformed` for a name that is not plain, comes twice, or a file over `MAX_FILE`.
    """
    members: list[Member] = []
    seen: set[str] = set()
    place = 0
    for name, data in files:
        if _NAME.fullmatch(name) is None or name in seen or len(data) > MAX_FILE:
            raise BractError(MALFORMED, f"{name}: cannot stand in an archive")
        seen.add(name)
        member = Member(name, place, len(data), zlib.crc32(data))
        members.append(member)
        head = _local(member)
        yield head
        yield data
        place += len(head) + len(data)
    yield _directory(members, place)


def members(file: BinaryIO) -> dict[str, Member]:
    """The files of an archive by name, once all that is between them is as `zipped` writes it.

    Raises:
        BractError: `log-inconsistent`, naming the file at which it is not.
    """
    found: dict[str, Member] = {}
    place, last = 0, "its beginning"
    length = file.seek(0, 2)
    while True:
        file.seek(place)
        head = file.read(_HEADER)
        if not head.startswith(_LOCAL) or len(head) < _HEADER:
            break
        crc, size, _, width = struct.unpack("<IIIH", head[14:28])
        raw = file.read(width)
        name = raw.decode("ascii", "replace")
        member = Member(name, place, size, crc)
        if _NAME.fullmatch(name) is None or name in found or size > MAX_FILE or head + raw != _local(member):
            raise BractError(LOG, f"the archive is not one of ours after {last}")
        found[name], last = member, name
        place += _HEADER + width + size
        if place > length:
            raise BractError(LOG, f"the archive ends within {name}")
    file.seek(place)
    directory = _directory(list(found.values()), place)
    if not found or file.read(len(directory) + 1) != directory:
        raise BractError(LOG, f"the archive is not one of ours after {last}")
    return found


def content(file: BinaryIO, member: Member) -> bytes:
    """The bytes of one file, whether or not they are those of its CRC (`Member.crc`): the caller has a better digest."""
    file.seek(member.offset + _HEADER + len(member.name))
    return file.read(member.size)


def write(path: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the archive to a new file, whole or not at all.

    Raises:
        BractError: `already-exists`; `disk`; as `zipped`.
    """
    with disk_errors():
        try:
            out = path.open("xb")
        except FileExistsError as error:
            raise BractError(ALREADY_EXISTS, path.name) from error
        try:
            with out:
                out.writelines(zipped(files))
        except BaseException:
            path.unlink()
            raise


def _local(member: Member) -> bytes:
    fixed = struct.pack(
        "<4sHHHHHIIIHH",
        _LOCAL,
        _VERSION,
        0,
        0,
        0,
        _DAY,
        member.crc,
        member.size,
        member.size,
        len(member.name),
        0,
    )
    return fixed + member.name.encode("ascii", "replace")


def _directory(members: list[Member], start: int) -> bytes:
    parts = [_entry(member) for member in members]
    size = sum(map(len, parts))
    count = len(members)
    if count >= _FULL16 or start >= _FULL32 or size >= _FULL32:
        end = start + size
        parts.append(
            struct.pack("<4sQHHIIQQQQ", _END64, 44, _VERSION, _VERSION, 0, 0, count, count, size, start)
            + struct.pack("<4sIQI", _LOCATOR, 0, end, 1)
        )
    told, length, place = min(count, _FULL16), min(size, _FULL32), min(start, _FULL32)
    parts.append(struct.pack("<4sHHHHIIH", _END, 0, 0, told, told, length, place, 0))
    return b"".join(parts)


def _entry(member: Member) -> bytes:
    far = struct.pack("<HHQ", 1, 8, member.offset) if member.offset >= _FULL32 else b""
    fixed = struct.pack(
        "<4sHHHHHHIIIHHHHHII",
        _CENTRAL,
        _VERSION,
        _VERSION,
        0,
        0,
        0,
        _DAY,
        member.crc,
        member.size,
        member.size,
        len(member.name),
        len(far),
        0,
        0,
        0,
        0,
        min(member.offset, _FULL32),
    )
    return fixed + member.name.encode("ascii") + far
