"""Records out of their source's own files: rows of a table, lines of a manifest and their images.

Only for sources in the site's own folder, or where a steward asks for it: files elsewhere belong to whoever supplied
them. A file is written anew without the records and put in the old one's place; the old one's bytes are overwritten then.
"""

import csv
import io
import json
import os
import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bract.disposal.erase import erase, overwritten, refusals
from bract.errors import CONCURRENT, NOT_DELETED, BractError
from bract.files import PRIVATE, publish, sync_folder
from bract_client.sources.files import MANIFESTS
from bract_client.sources.lines import lines as read_lines
from bract_client.sources.location import AnyLocation, FilesLocation, ImagesLocation, TableLocation
from bract_client.sources.record import Unreadable

_BATCH = 4096
_MARK = ".disposal-"


def remove(location: AnyLocation, names: frozenset[str]) -> None:
    """Deletes the records of these names from their source and looks for them again; a source that is gone is well.

    Raises:
        BractError: `disk`, `concurrent` when the source changed meanwhile, `not-deleted` when it cannot be rewritten or
            still holds one of them.
    """
    path = Path(location.path)
    if not names or not path.exists():
        return
    with refusals():
        match location:
            case TableLocation():
                _sweep(path)
                _from_table(path, names)
            case ImagesLocation() | FilesLocation():
                for manifest in (path / name for name in MANIFESTS):
                    _sweep(manifest)
                    if manifest.exists():
                        _from_folder(manifest, names)


def _from_table(path: Path, names: Collection[str]) -> None:
    try:
        if not _rows(path, names):
            return
        with _replacing(path) as new, pq.ParquetFile(path) as file, pq.ParquetWriter(new, file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=_BATCH):
                writer.write_batch(batch.filter(pc.invert(_named(batch, names))))
        if _rows(path, names):
            raise BractError(NOT_DELETED, "the table still has them")
    except pa.ArrowException as error:
        raise BractError(NOT_DELETED, "the table cannot be rewritten") from error


def _rows(path: Path, names: Collection[str]) -> int:
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=_BATCH, columns=["record_id"])
        return sum(pc.sum(_named(batch, names)).as_py() or 0 for batch in batches)


def _named(batch: pa.RecordBatch, names: Collection[str]) -> pa.Array:
    wanted = pa.array(sorted(names), pa.string())
    return pc.fill_null(pc.is_in(batch.column("record_id").cast(pa.string()), value_set=wanted), fill_value=False)


def _from_folder(manifest: Path, names: frozenset[str]) -> None:
    """Files first, as only the manifest tells which they are; a file that another line names stays."""
    try:
        lines = _documents(manifest) if manifest.suffix == ".jsonl" else _table(manifest)
    except (csv.Error, ValueError, LookupError, TypeError) as error:
        raise BractError(NOT_DELETED, "the manifest cannot be rewritten") from error
    kept = [line for line in lines if line.record not in names]
    files = {line.file for line in lines if line.record in names} - {line.file for line in kept}
    for name in sorted(files):
        _erase_inside(manifest.parent, name)
    if len(kept) < len(lines):
        with _replacing(manifest) as new:
            new.write_bytes(b"".join(line.text for line in kept))
    if manifest.suffix == ".csv" and not names.isdisjoint(_named_in(manifest)):
        raise BractError(NOT_DELETED, "the manifest still has them")


def _named_in(manifest: Path) -> Iterator[str]:
    """The records of a table as an ingest reads it: line by line, whatever quotation marks stand open in others."""
    for item in read_lines(manifest, ("record_id",), others=True):
        if not isinstance(item, Unreadable):
            yield item[1]["record_id"]


@dataclass(frozen=True)
class _Line:
    """A line of a manifest as it is written anew; the header names no record and no file."""

    text: bytes
    record: str | None = None
    file: str = ""


def _table(manifest: Path) -> list[_Line]:
    with manifest.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file, strict=True)
    which, where = header.index("record_id"), header.index("file")
    return [_Line(_csv(header)), *(_Line(_csv(row), row[which], row[where]) for row in rows if row)]


def _csv(row: list[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue().encode()


def _documents(manifest: Path) -> list[_Line]:
    """A line that is no object names nothing that was taken; it stays as it is."""
    found = []
    for text in manifest.read_bytes().splitlines(keepends=True):
        row = json.loads(text) if text.strip() else None
        found.append(_Line(text, row["record_id"], str(row["file"])) if isinstance(row, dict) else _Line(text))
    return found


def _erase_inside(folder: Path, name: str) -> None:
    """A name that leads out of the folder was never taken as a record, and is left alone."""
    path = folder / name
    if name and not Path(name).is_absolute() and path.parent.resolve().is_relative_to(folder.resolve()):
        erase(path)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A new file to fill; it takes the old one's place, whose bytes are then overwritten.

    Raises:
        BractError: `concurrent` when somebody changed the old one meanwhile; it is left as it is then.
    """
    before = path.stat()
    new = path.with_name(f".{path.name}{_MARK}{secrets.token_hex(8)}")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
    try:
        yield new
        new.chmod(before.st_mode & 0o777)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        with overwritten(path):
            now = path.stat()
            if (now.st_ino, now.st_mtime_ns, now.st_size) != (before.st_ino, before.st_mtime_ns, before.st_size):
                raise BractError(CONCURRENT, "the source changed meanwhile")
            publish(new, path)
    finally:
        new.unlink(missing_ok=True)


def _sweep(path: Path) -> None:
    """What a run that was killed left half written holds records, too."""
    for left in path.parent.glob(f".{path.name}{_MARK}*"):
        erase(left)
    sync_folder(path.parent)
