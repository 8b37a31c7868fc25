"""Named float32 arrays as safetensors: one content, one sequence of bytes, one digest.

A file is written in one form only: names sorted, no metadata, a compact header padded to eight bytes. The header is
therefore a function of the layout alone, and a reader who knows the layout *compares* it instead of parsing it:
nothing a sender writes there is ever interpreted. Any safetensors reader opens these files.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bract.digest import Digest, digest_file
from bract.errors import BAD_ARRAYS, DISK, NOT_FINITE, BractError

Array = NDArray[np.float32]
Layout = Mapping[str, tuple[int, ...]]
"""Shapes by name: the whole form of a file."""

_FLOAT = np.dtype("<f4")

MAX_HEADER = 16 << 20
"""Bytes of a header that `read_layout` reads at most."""


def layout_of(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    """The layout of these arrays, sorted by name."""
    return {name: tuple(arrays[name].shape) for name in sorted(arrays)}


def size_of(layout: Layout) -> int:
    """Bytes of a file of this layout."""
    return len(_header(layout)) + sum(_bytes(shape) for shape in layout.values())


def count_of(layout: Layout) -> int:
    """Numbers of a file of this layout."""
    return sum(prod(shape) for shape in layout.values())


def to_bytes(arrays: Mapping[str, Array]) -> bytes:
    """The arrays as a safetensors file.

    Raises:
        BractError: `bad-arrays` for anything but float32; `not-finite`.
    """
    layout = layout_of(arrays)
    return b"".join([_header(layout), *(_checked(name, arrays[name], layout[name]).tobytes() for name in layout)])


def from_bytes(data: bytes, layout: Layout) -> dict[str, Array]:
    """The arrays of a safetensors file held in memory.

    Raises:
        BractError: `bad-arrays` when names, shapes, dtypes, order or length are not the layout's; `not-finite`.
    """
    header = _header(layout)
    if len(data) != size_of(layout) or data[: len(header)] != header:
        raise BractError(BAD_ARRAYS, "not a file of this layout")
    arrays, offset = {}, len(header)
    for name in sorted(layout):
        shape = layout[name]
        flat = np.frombuffer(data, _FLOAT, prod(shape), offset)
        arrays[name] = _checked(name, flat.reshape(shape).copy(), shape)
        offset += _bytes(shape)
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> Digest:
    """Write the arrays to `path`, all or nothing, and return the file's digest.

    Raises:
        BractError: `bad-arrays`, `not-finite`, or `disk` when it cannot be written.
    """
    layout = layout_of(arrays)
    return write_stream(path, layout, ((name, arrays[name]) for name in layout))


def write_stream(path: Path, layout: Layout, tensors: Iterable[tuple[str, Array]]) -> Digest:
    """Write tensors that come one by one, in the layout's sorted order, so that memory holds one at a time.

    Raises:
        BractError: `bad-arrays` for another order, shape or dtype; `not-finite`; `disk`. Nothing half-written stays.
    """
    return _write(path, layout, _named(layout, tensors))


def write_blocks(path: Path, layout: Layout, blocks: Iterable[Array]) -> Digest:
    """Write a file's numbers that come block by block: its tensors in sorted order, one after the other, cut anywhere.

    Raises:
        BractError: `bad-arrays` for too few or too many, or another dtype; `not-finite`; `disk`. Nothing half-written stays.
    """
    return _write(path, layout, _flat(layout, blocks))


def read_arrays(path: Path, layout: Layout) -> Iterator[tuple[str, Array]]:
    """The file's tensors one by one, in sorted order; each is checked before it is given.

    Raises:
        BractError: `bad-arrays` when names, shapes, dtypes, order or length are not the layout's; `not-finite`; `disk`.
    """
    header = _header(layout)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size_of(layout) or file.read(len(header)) != header:
                raise BractError(BAD_ARRAYS, "not a file of this layout")
            for name in sorted(layout):
                array = np.empty(layout[name], _FLOAT)
                if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                    raise BractError(BAD_ARRAYS, "the file ended early")
                yield name, _checked(name, array, layout[name])
    except OSError as error:
        raise BractError(DISK, f"arrays not read: {error.strerror}") from error


@dataclass(frozen=True)
class ArraysFile:
    """A file of a known layout, read tensor by tensor and in any order."""

    path: Path
    layout: Layout

    def read(self, name: str) -> Array:
        """One tensor.

        Raises:
            BractError: `bad-arrays` when the file is not of this layout, `not-finite`, `disk`.
        """
        header = _header(self.layout)
        offset = len(header) + sum(_bytes(self.layout[before]) for before in sorted(self.layout) if before < name)
        array = np.empty(self.layout[name], _FLOAT)
        try:
            with self.path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != size_of(self.layout) or file.read(len(header)) != header:
                    raise BractError(BAD_ARRAYS, "not a file of this layout")
                file.seek(offset)
                if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                    raise BractError(BAD_ARRAYS, "the file ended early")
        except OSError as error:
            raise BractError(DISK, f"arrays not read: {error.strerror}") from error
        return _checked(name, array, self.layout[name])

    @contextmanager
    def opened(self) -> Iterator["Numbers"]:
        """The file's numbers while it is open.

        Raises:
            BractError: `bad-arrays` when the file is not of this layout; `disk`.
        """
        header = _header(self.layout)
        try:
            file = self.path.open("rb", buffering=0)
        except OSError as error:
            raise BractError(DISK, f"arrays not read: {error.strerror}") from error
        with file:
            if os.fstat(file.fileno()).st_size != size_of(self.layout) or file.read(len(header)) != header:
                raise BractError(BAD_ARRAYS, "not a file of this layout")
            yield Numbers(file, len(header))


@dataclass(frozen=True)
class Numbers:
    """An open file as one vector: its tensors in sorted order, one after the other."""

    file: FileIO
    offset: int

    def read(self, start: int, stop: int) -> Array:
        """The numbers from `start` to before `stop`.

        Raises:
            BractError: `bad-arrays` when the file ends before, `not-finite`, `disk`.
        """
        array = np.empty(stop - start, _FLOAT)
        room, at = array.view(np.uint8).data, self.offset + start * _FLOAT.itemsize
        try:
            while room and (got := os.preadv(self.file.fileno(), [room], at)):
                room, at = room[got:], at + got
        except OSError as error:
            raise BractError(DISK, f"arrays not read: {error.strerror}") from error
        if room:
            raise BractError(BAD_ARRAYS, "the file ended early")
        return _checked("a block", array, array.shape)


def read_layout(path: Path) -> dict[str, tuple[int, ...]]:
    """The layout of a file that we wrote ourselves; a file from elsewhere is compared with a known layout instead.

    Raises:
        BractError: `bad-arrays` when the header is not the one that we write; `disk`.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= MAX_HEADER else b""
        entries: dict[str, dict[str, list[int]]] = json.loads(text.decode())
        layout = {name: tuple(entry["shape"]) for name, entry in entries.items()}
        ours = _header(layout)
    except OSError as error:
        raise BractError(DISK, f"arrays not read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise BractError(BAD_ARRAYS, "not an arrays file") from error
    if ours != length.to_bytes(8, "little") + text:
        raise BractError(BAD_ARRAYS, "not an arrays file of ours")
    return layout


def _write(path: Path, layout: Layout, parts: Iterable[Array]) -> Digest:
    """The header and then these parts, which were checked against the layout, all or nothing."""
    handle, temporary = _temporary(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_header(layout))
            for part in parts:
                file.write(part.tobytes())
            file.flush()
            os.fsync(file.fileno())
        named = digest_file(Path(temporary))
        Path(temporary).replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BractError(DISK, f"arrays not written: {error.strerror}") from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return named


def _named(layout: Layout, tensors: Iterable[tuple[str, Array]]) -> Iterator[Array]:
    expected = sorted(layout)
    written = 0
    for name, array in tensors:
        if written == len(expected) or name != expected[written]:
            raise BractError(BAD_ARRAYS, "tensors came in another order than the layout's")
        yield _checked(name, array, layout[name])
        written += 1
    if written != len(expected):
        raise BractError(BAD_ARRAYS, f"{len(expected) - written} tensors are missing")


def _flat(layout: Layout, blocks: Iterable[Array]) -> Iterator[Array]:
    left = count_of(layout)
    for block in blocks:
        left -= block.size
        yield _checked("a block", block, (block.size,))
    if left:
        raise BractError(BAD_ARRAYS, f"{-left} numbers too many" if left < 0 else f"{left} numbers are missing")


def _checked(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    if array.dtype != _FLOAT or tuple(array.shape) != tuple(shape):
        raise BractError(
            BAD_ARRAYS, f"{name}: {array.dtype} of shape {tuple(array.shape)}, not float32 of shape {tuple(shape)}"
        )
    if not np.isfinite(array).all():
        raise BractError(NOT_FINITE, name)
    return array


def _header(layout: Layout) -> bytes:
    """The length-prefixed header that the safetensors library itself writes for float32 tensors of these shapes."""
    entries: dict[str, object] = {}
    offset = 0
    for name in sorted(layout):
        end = offset + _bytes(layout[name])
        entries[name] = {"dtype": "F32", "shape": list(layout[name]), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _bytes(shape: tuple[int, ...]) -> int:
    return _FLOAT.itemsize * prod(shape)


def _temporary(path: Path) -> tuple[int, str]:
    try:
        return tempfile.mkstemp(dir=path.parent, prefix=".arrays-")
    except OSError as error:
        raise BractError(DISK, f"arrays not written: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
