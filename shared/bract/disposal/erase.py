"""Files out of the world, as far as a program can: overwritten, unlinked, their folder synced, and looked for again.

Overwriting reaches the blocks that the file has now on a disk that writes in place. It gives no guarantee on an SSD, a
copy-on-write or journaling file system, or where a snapshot or backup was made; receipts say so (`old-blocks`).
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from bract.errors import CONCURRENT, DISK, NOT_DELETED, BractError
from bract.files import sync_folder
from bract.retention import Method

_ZEROS = bytes(1 << 20)
_DAY = re.compile(rb"(\d{4})-(\d\d)-(\d\d)[ T]")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_BUSY = {errno.EBUSY, errno.EAGAIN, errno.ETXTBSY}


def erase(path: Path) -> Method:
    """Deletes a file or a folder with all that is in it; what is not there is well. Links are removed, never followed.

    A file of several names keeps its bytes, as they are somebody else's too.

    Raises:
        BractError: `concurrent` while another process holds the file locked; `disk`; `not-deleted`.
    """
    with refusals():
        try:
            found = path.lstat()
        except FileNotFoundError:
            return Method.ABSENT
        if stat.S_ISDIR(found.st_mode):
            return _erase_folder(path)
        overwritten = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and _overwrite(path)
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
        if os.path.lexists(path):
            raise BractError(NOT_DELETED, "it was found again")
        return Method.OVERWRITE if overwritten else Method.UNLINK


def _erase_folder(path: Path) -> Method:
    methods = {erase(one) for one in path.iterdir()}
    path.rmdir()
    sync_folder(path.parent)
    return Method.UNLINK if Method.UNLINK in methods else Method.OVERWRITE


def _overwrite(path: Path) -> bool:
    """Whether the file's bytes are zeros on disk now; a file that may only be unlinked is left to that."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except PermissionError:
        return False
    with os.fdopen(handle, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BractError(CONCURRENT, "another process holds the file") from error
        _zero(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return True


def _zero(handle: int, start: int, end: int, byte: bytes = b"\0") -> None:
    block = _ZEROS if byte == b"\0" else byte * len(_ZEROS)
    while start < end:
        start += os.pwrite(handle, memoryview(block)[: end - start], start)
    os.fsync(handle)


def days(path: Path) -> dict[date, datetime]:
    """The days of a log's lines, and when the last of each is over; a line without a date belongs to the one before.

    A log whose lines have no dates is of the day of its last change. Dates are in this machine's zone, as logging has them.
    """
    found: dict[date, datetime] = {}
    for day, _, _ in _ranges(path):
        found[day] = datetime.combine(day + timedelta(days=1), time()).astimezone().astimezone(UTC)
    return found


def blank(path: Path, day: date) -> Method:
    """Overwrites the lines of a day with empty ones, in place: whoever is writing the log goes on undisturbed.

    Raises:
        BractError: `disk`, `not-deleted`.
    """
    with refusals():
        ranges = [(start, end) for one, start, end in _ranges(path) if one == day]
        if not ranges:
            return Method.ABSENT
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for start, end in ranges:
                _zero(handle, start, end, b"\n")
        finally:
            os.close(handle)
    if day in days(path):
        raise BractError(NOT_DELETED, "it was found again")
    return Method.BLANK


def _ranges(path: Path) -> Iterator[tuple[date, int, int]]:
    """Day, first byte and end of each run of lines of one day; empty lines are of none."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        changed = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC).astimezone().date()
        day: date | None = None
        start = end = place = 0
        for line in file:
            stamped = _stamp(line)
            if end > start and (not line.strip() or stamped not in (None, day)):
                yield day or changed, start, end
                start = end = place
            day = stamped or day
            if line.strip():
                start, end = (start if end > start else place), place + len(line)
            place += len(line)
        if end > start:
            yield day or changed, start, end


def _stamp(line: bytes) -> date | None:
    found = _DAY.match(line)
    if found is None:
        return None
    with suppress(ValueError):
        return date(*(int(part) for part in found.groups()))
    return None


@contextmanager
def overwritten(path: Path) -> Iterator[None]:
    """Within it another file may take this one's name; when that went well, this one's bytes are overwritten."""
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield
        if os.fstat(handle).st_nlink == 0:
            _zero(handle, 0, os.fstat(handle).st_size)
    finally:
        os.close(handle)


@contextmanager
def refusals() -> Iterator[None]:
    """The system's refusals as codes; the path stays out of them."""
    try:
        yield
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        if error.errno in _FULL:
            raise BractError(DISK, name) from error
        if error.errno in _BUSY:
            raise BractError(CONCURRENT, name) from error
        raise BractError(NOT_DELETED, name) from error
