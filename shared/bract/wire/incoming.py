"""A file that arrives in pieces: hashed as it is written, and given its name only when every byte is right.

Rules:
    1. No byte beyond the announced size is kept.
    2. The file gets its name only if its sha256 is the announced one, and only after it was synced.
    3. What was refused, or met a full disk, is removed. What was cut off stays, to be continued; an end that comes too
       early is a cut, since a server may see a broken call as the caller's last word.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from bract.digest import Digest, blocks
from bract.errors import CONCURRENT, DIGEST_MISMATCH, MALFORMED, TOO_LARGE, BractError
from bract.files import PRIVATE, disk_errors, publish


def receive(
    part: Path, target: Path, digest: Digest, size: int, chunks: Iterable[bytes | memoryview], *, offset: int = 0
) -> None:
    """Continues `part` at `offset` with the chunks and makes it `target`.

    Several writers of the same part do not disturb each other: the second gets a file of its own if it starts at 0.

    Args:
        part: where the bytes wait until they are complete, in the same file system as `target`.
        target: the name of the whole file.
        digest: of the whole file.
        size: of the whole file, in bytes.
        chunks: its bytes from `offset` on.
        offset: how many bytes of `part` to keep.

    Raises:
        BractError: `too-large` for more bytes than announced; `malformed` for fewer, or an offset beyond what is there,
            which leave the part; `digest-mismatch`; `concurrent` when another writer holds the part and `offset` is not
            0; `disk`.
    """
    with _opened(part, offset) as (path, file):
        try:
            with disk_errors():
                if _fill(path, file, size, chunks, offset) != digest:
                    raise BractError(DIGEST_MISMATCH)
                os.fsync(file.fileno())
                publish(path, target)
        except BractError as error:
            if error.code != MALFORMED:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise


def _fill(path: Path, file: FileIO, size: int, chunks: Iterable[bytes | memoryview], offset: int) -> str:
    """Writes the chunks; the digest of the whole file."""
    hasher, done = hashlib.sha256(), offset
    if offset:
        if offset > file.seek(0, os.SEEK_END):
            raise BractError(MALFORMED, "the offset is beyond what was received")
        file.truncate(offset)
        for block in blocks(path):
            hasher.update(block)
    else:
        file.truncate(0)
    file.seek(offset)
    for chunk in chunks:
        done += len(chunk)
        if done > size:
            raise BractError(TOO_LARGE, "more bytes than were announced")
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]
        hasher.update(chunk)
    if done < size:
        raise BractError(MALFORMED, "fewer bytes than were announced")
    return f"sha256:{hasher.hexdigest()}"


@contextmanager
def _opened(part: Path, offset: int) -> Iterator[tuple[Path, FileIO]]:
    """The part locked for this writer, or a file of its own when another one holds it."""
    file = _locked(part)
    if file is None and offset:
        raise BractError(CONCURRENT, "the same array is arriving already")
    alone = file is None
    path = part.with_name(f"{part.name}.{secrets.token_hex(4)}") if alone else part
    if file is None:
        with disk_errors():
            file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE), "r+")
    try:
        yield path, file
    finally:
        file.close()
        if alone:
            path.unlink(missing_ok=True)


def _locked(part: Path) -> FileIO | None:
    while True:
        with disk_errors():
            file = FileIO(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # between open and lock the former holder may have given the file its final name: then it is not ours
        with suppress(FileNotFoundError):
            if part.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        file.close()
