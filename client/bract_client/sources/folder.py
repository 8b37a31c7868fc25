"""Files of a folder, opened so that nothing outside it, and nothing but a regular file, is ever read."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bract.errors import BAD_RECORD, BractError
from bract_client.sources.record import BadLine, Reason


class Folder:
    """A folder whose files are named by paths relative to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path.resolve()

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes.

        Raises:
            BadLine: for a path that leads out of the folder, absolute or by `..` or a link; for anything that is no regular
                file; for more than `limit` bytes.
        """
        with self.open(name) as file:
            try:
                data = file.read(limit + 1)
            except OSError as error:
                raise BadLine(Reason.MISSING_FILE) from error
        if len(data) > limit:
            raise BadLine(Reason.TOO_LARGE)
        return data

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file, open for reading; a pipe or a device is not waited for.

        Raises:
            BadLine: as `read`.
        """
        if not name or not name.isprintable():
            raise BadLine(Reason.BAD_PATH)
        try:
            path = (self._root / name).resolve()
            if Path(name).is_absolute() or not path.is_relative_to(self._root):
                raise BadLine(Reason.BAD_PATH)
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadLine(Reason.MISSING_FILE) from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise BadLine(Reason.MISSING_FILE)
        with os.fdopen(handle, "rb") as file:
            yield file

    def names(self, suffix: str) -> list[str]:
        """The names in the folder itself that end so, sorted.

        Raises:
            BractError: `bad-record` when it cannot be listed.
        """
        try:
            with os.scandir(self._root) as entries:
                return sorted(entry.name for entry in entries if entry.name.endswith(suffix))
        except OSError as error:
            raise BractError(BAD_RECORD, f"{self.path.name}: not a folder that can be read") from error
