"""Making a hub's or a site's folder: whole, private, and never over something that is there."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bract.errors import ALREADY_EXISTS, BractError
from bract.files import PRIVATE_FOLDER, disk_errors, sync_folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A scratch folder to fill; it becomes `folder` when all went well, and vanishes otherwise.

    Raises:
        BractError: `already-exists` when `folder` is there and not empty; `disk`.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BractError(ALREADY_EXISTS, f"{folder.name} is not an empty folder")
    folder = folder.absolute()
    scratch = folder.parent / f".{folder.name}.{secrets.token_hex(8)}"
    with disk_errors():
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(mode=PRIVATE_FOLDER)
        try:
            yield scratch
            scratch.rename(folder)  # onto an empty folder or none; the system refuses any other
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
