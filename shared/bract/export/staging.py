"""Files that appear together when all of them are finished, and otherwise not at all."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from bract.errors import ALREADY_EXISTS, MALFORMED, BractError
from bract.files import disk_errors, publish


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Temporary files, one a target and beside it, in their order; each gets its name when the block ends well.

    Nothing is overwritten. A crash may leave some of the files; the manifest, written last, is then missing.

    Raises:
        BractError: `already-exists` when a target is there; `malformed` when its folder is not; `disk`.
    """
    free(targets)
    temporaries = tuple(target.with_name(f".{token_hex(8)}.part") for target in targets)
    with disk_errors():
        try:
            yield temporaries
            for temporary in temporaries:
                _sync(temporary)
            free(targets)
            for temporary, target in zip(temporaries, targets, strict=True):
                publish(temporary, target)
        finally:
            for temporary in temporaries:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)


def free(targets: Sequence[Path]) -> None:
    """That these files can be made: each has a folder, and none is there.

    Raises:
        BractError: `already-exists`, `malformed`.
    """
    if len(set(targets)) != len(targets):
        raise BractError(MALFORMED, "two files of one name")
    for target in targets:
        if not target.parent.is_dir():
            raise BractError(MALFORMED, f"{target.name}: no such folder")
        if target.exists() or target.is_symlink():
            raise BractError(ALREADY_EXISTS, target.name)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
