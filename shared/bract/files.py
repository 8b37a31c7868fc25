"""Files that are whole or not there, and private files that only their owner can read.

A write goes to a temporary file beside its target, is synced, and is renamed over it; the folder is synced last. After
a crash the old file or the new one is there, never a part.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bract.errors import DISK, KEY_PERMISSIONS, BractError

PRIVATE = 0o600
PRIVATE_FOLDER = 0o700
PUBLIC = 0o644

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}


@contextmanager
def disk_errors() -> Iterator[None]:
    """Within it, a disk that is full, failing or read-only raises `disk`; other errors pass as they are."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise BractError(DISK, errno.errorcode[error.errno]) from error


def sync_folder(folder: Path) -> None:
    """Makes the folder's names durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, path: Path) -> None:
    """Gives a finished and synced file its name, durably, in place of any file of that name."""
    temporary.replace(path)
    sync_folder(path.parent)


def write_atomic(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Writes a whole file or nothing.

    Raises:
        BractError: `disk` when it cannot be written; what was there before stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with disk_errors():
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            publish(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_private(path: Path, data: bytes) -> None:
    """Like `write_atomic`, readable and writable by the owner only.

    Raises:
        BractError: `disk`.
    """
    write_atomic(path, data, PRIVATE)


def check_private(path: Path) -> None:
    """That nobody but the owner can read or write the file.

    Raises:
        BractError: `key-permissions`, naming the file.
        FileNotFoundError: when it is missing.
    """
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise BractError(KEY_PERMISSIONS, path.name)


def read_private(path: Path) -> bytes:
    """A private file's bytes; the check is made on the opened file, so that it cannot be swapped in between.

    Raises:
        BractError: `key-permissions` when the group or others may read or write it.
        FileNotFoundError: when it is missing.
    """
    with path.open("rb") as file:
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise BractError(KEY_PERMISSIONS, path.name)
        return file.read()
