"""One deletion or one placing of a hold at a time, over all processes that share a registry.

A deletion's last look at the holds, the deletion and its receipt are one turn, and so is the placing of a hold: what is
held when the hold is on disk is there, and stays. A turn ends with its process, however that ends.
"""

import fcntl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from sqlalchemy import Engine, text

from bract.database import BUSY_S
from bract.errors import CONCURRENT, DISK, BractError

_LOCK = 0x6272616374  # one of PostgreSQL's advisory locks, which are each database's own
_LOOK_S = 0.02


def turn(engine: Engine) -> AbstractContextManager[None]:
    """Waits for the turn of whoever has it; those who wait get it one after the other.

    Raises:
        BractError: `concurrent` when it takes longer than `BUSY_S`; `disk`.
    """
    if engine.dialect.name == "postgresql":
        return _advisory(engine)
    return _files(Path(engine.url.database or ""))


@contextmanager
def _advisory(engine: Engine) -> Iterator[None]:
    # lock_timeout bounds the wait; the server keeps the order
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield


@contextmanager
def _files(database: Path) -> Iterator[None]:
    """Two locks beside the database: who waits for the second holds the first, so that nobody else is next."""
    with _beside(database, "next") as first, _beside(database, "deleting") as second:
        until = time.monotonic() + BUSY_S
        _lock(first, until)
        _lock(second, until)
        fcntl.flock(first, fcntl.LOCK_UN)
        yield


def _beside(database: Path, name: str) -> IO[str]:
    try:
        return database.with_name(f"{database.name}.{name}").open("w")
    except OSError as error:
        raise BractError(DISK, "no lock beside the registry") from error


def _lock(file: IO[str], until: float) -> None:
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise BractError(CONCURRENT, "a deletion is running") from error
            time.sleep(_LOOK_S)
        else:
            return
