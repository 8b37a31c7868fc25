"""The hub's arrays: safetensors files named by digest, here for as long as a round needs them.

Pure files, no database: several threads and processes may use one folder at once.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Lock

from bract.digest import Digest, digest_file, parse_digest
from bract.errors import DISK, MALFORMED, STATE, TOO_LARGE, BractError
from bract.files import PRIVATE_FOLDER, disk_errors, publish, sync_folder
from bract.wire.incoming import receive

HEADER_ROOM = 64 << 10
"""Bytes that an update may be larger than the encoder's own arrays: names and shapes in another order."""

_ZEROS = bytes(1 << 20)


@dataclass(frozen=True)
class Held:
    """How much of an array is here: all of it, or the first `bytes` of a transfer that was cut off."""

    complete: bool
    bytes: int


class ArrayStore:
    """Content-addressed files under one folder, each at most `max_bytes`, together at most `quota_bytes`."""

    def __init__(self, folder: Path, max_bytes: int, quota_bytes: int) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        self._max_bytes = max_bytes
        self._quota_bytes = quota_bytes
        self._arriving: dict[int, tuple[str, int]] = {}  # by receiver: the part's name and its announced size
        self._lock = Lock()
        self._incoming.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)

    def path(self, digest: Digest) -> Path:
        """Where the whole file is, or would be.

        Raises:
            BractError: `malformed` when it is not a digest (nothing else ever becomes part of a path).
        """
        return self._folder / f"{parse_digest(digest).removeprefix('sha256:')}.safetensors"

    @property
    def scratch(self) -> Path:
        """Where files are made that `adopt` will take; a crash leaves nothing here that counts."""
        return self._incoming

    def adopt(self, path: Path) -> Digest:
        """Takes in a finished and synced file from `scratch` under its digest.

        Raises:
            BractError: `disk`.
        """
        named = digest_file(path)
        with disk_errors():
            publish(path, self.path(named))
        return named

    def stat(self, digest: Digest) -> Held:
        """How much of the array is here."""
        for path, complete in ((self.path(digest), True), (self._part(digest), False)):
            with suppress(FileNotFoundError):
                return Held(complete, path.stat().st_size)
        return Held(False, 0)

    def read(self, digest: Digest) -> Path:
        """The path of a whole array.

        Raises:
            BractError: `wrong-state` when there is none of that digest, or no longer.
        """
        path = self.path(digest)
        if not path.exists():
            raise BractError(STATE, "no array of that digest is here")
        return path

    def receive(self, digest: Digest, size: int, chunks: Iterable[bytes | memoryview], offset: int = 0) -> None:
        """Takes in an array; nothing happens when it is here already.

        A transfer that is cut off (the iterator raises or ends early) leaves its part, to be continued at `offset`.

        Args:
            digest: sha256 of the whole file.
            size: of the whole file, in bytes.
            chunks: its bytes from `offset` on.
            offset: at most what `stat` says is here.

        Raises:
            BractError: `too-large`, `disk` (quota, full or failing disk), `digest-mismatch`, `malformed`, or
                `concurrent` (`bract.wire.incoming`); what was refused otherwise than as `malformed` is removed.
        """
        target = self.path(digest)
        if not 0 < size <= self._max_bytes:
            raise BractError(TOO_LARGE, f"an array may have {self._max_bytes} bytes")
        if not 0 <= offset <= size:
            raise BractError(MALFORMED, "the offset is beyond the size")
        if target.exists():
            return
        with self._room(self._part(digest).name, size):
            receive(self._part(digest), target, digest, size, chunks, offset=offset)

    def discard(self, digest: Digest) -> None:
        """Overwrites an array with zeros, syncs, and removes it; likewise what is here of an unfinished one.

        On a disk that writes in place, the bytes are then gone. An SSD's wear levelling, a copy-on-write or journaling
        file system, a snapshot or a backup may still hold the old blocks: against who can read those, only encrypting
        the disk helps. A reader that is still reading gets zeros and refuses them by their digest.
        """
        with disk_errors():
            _erase(self.path(digest))
            for part in self._incoming.glob(f"{self._part(digest).name}*"):
                _erase(part)

    def sweep(self, before: datetime) -> int:
        """Discards what was left unfinished before then: transfers, and files that a killed process was making.

        Returns how many.
        """
        count = 0
        for part in self._incoming.iterdir():
            with suppress(FileNotFoundError), disk_errors():
                if part.stat().st_mtime >= before.timestamp():
                    continue
                for file in [part] if part.is_file() else list(part.iterdir()):
                    _erase(file)
                if part.is_dir():
                    part.rmdir()
                count += 1
        return count

    def whole(self, before: datetime) -> tuple[Digest, ...]:
        """The arrays that have been here since before then."""
        stems = list[str]()
        for path in sorted(self._folder.glob("*.safetensors")):
            with suppress(FileNotFoundError):  # another process may delete it meanwhile
                if path.stat().st_mtime < before.timestamp():
                    stems.append(path.stem)
        return tuple(parse_digest(f"sha256:{stem}") for stem in stems)

    def _part(self, digest: Digest) -> Path:
        return self._incoming / f"{parse_digest(digest).removeprefix('sha256:')}.part"

    @contextmanager
    def _room(self, part: str, size: int) -> Iterator[None]:
        """Keeps room for an arrival while it lasts."""
        ticket = object()
        with self._lock:
            taken = self._taken(part)
            free = os.statvfs(self._folder)
            if taken + size > self._quota_bytes:
                raise BractError(DISK, "the arrays' quota is used up")
            if size - self._size(self._incoming / part) > free.f_bavail * free.f_frsize:
                raise BractError(DISK, "too little space")
            self._arriving[id(ticket)] = (part, size)
        try:
            yield
        finally:
            with self._lock:
                del self._arriving[id(ticket)]

    def _taken(self, part: str) -> int:
        """Bytes of whole files, idle parts other than this one, and what arrivals under way have announced."""
        active = {name for name, _ in self._arriving.values()} | {part}
        whole = sum(self._size(path) for path in self._folder.glob("*.safetensors"))
        idle = sum(self._size(path) for path in self._incoming.glob("*.part") if path.name not in active)
        return whole + idle + sum(size for _, size in self._arriving.values())

    @staticmethod
    def _size(path: Path) -> int:
        with suppress(FileNotFoundError):
            return path.stat().st_size
        return 0


def _erase(path: Path) -> None:
    with suppress(FileNotFoundError):
        with path.open("r+b", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size
            while left > 0:
                left -= file.write(memoryview(_ZEROS)[:left])
            os.fsync(file.fileno())
        path.unlink(missing_ok=True)
        sync_folder(path.parent)
