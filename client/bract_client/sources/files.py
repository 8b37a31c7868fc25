"""Files of any kind: a folder with a manifest, whose records are the files' bytes.

The manifest is `manifest.csv` or `manifest.jsonl`, one record a line: file, record_id, subject_id, collected_at, purposes
(in CSV separated by semicolons, in JSON a list) and, if wished, sha256 in hexadecimal digits. Nothing outside the folder, no
link out of it and no device is opened, and files are digested in constant memory.
"""

import os
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from bract.errors import BAD_RECORD, NO_ENCODER, BractError
from bract_client.sources.folder import Folder
from bract_client.sources.json_lines import json_lines
from bract_client.sources.lines import lines
from bract_client.sources.record import BadLine, Payloads, Reason, SourceRecord, Unreadable, fields

MANIFESTS = ("manifest.csv", "manifest.jsonl")
MAX_FILE_BYTES = 1 << 32

_COLUMNS = ("file", "record_id", "subject_id", "collected_at", "purposes")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20

Row = dict[str, object]


class Files:
    """A folder of files with a manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)

    def records(self) -> Iterator[SourceRecord | Unreadable]:
        """See `Source.records`; every file is read once, so that what is recorded is there."""
        for item in self._rows():
            if isinstance(item, Unreadable):
                yield item
                continue
            number, row = item
            try:
                yield self._record(number, row)
            except BadLine as bad:
                yield Unreadable(number, bad.reason)

    def load(self, record_ids: Sequence[str]) -> Payloads:
        """Raises `no-encoder`: there is nothing yet that could take these bytes."""
        raise BractError(NO_ENCODER, f"{len(record_ids)} files were asked for, and nothing reads them for training")

    def _rows(self) -> Iterator[tuple[int, Row] | Unreadable]:
        table, documents = (self._folder.path / name for name in MANIFESTS)
        if table.exists() and documents.exists():
            raise BractError(BAD_RECORD, f"{self._folder.path.name}: has both {' and '.join(MANIFESTS)}")
        if documents.exists():
            yield from json_lines(documents, _COLUMNS, ("sha256",))
            return
        for item in lines(table, _COLUMNS, ("sha256",)):
            if isinstance(item, Unreadable):
                yield item
            else:
                number, row = item
                yield number, {**row, "purposes": row["purposes"].split(";") if row["purposes"] else []}

    def _record(self, number: int, row: Row) -> SourceRecord:
        purposes, name, declared = row["purposes"], row["file"], row.get("sha256") or None
        if not isinstance(purposes, list) or not isinstance(name, str):
            raise BadLine(Reason.BAD_LINE)
        named = fields(row["record_id"], row["subject_id"], row["collected_at"], purposes)
        if declared is not None and (not isinstance(declared, str) or _DIGEST.fullmatch(declared) is None):
            raise BadLine(Reason.WRONG_DIGEST)
        found = self._digest(name)
        if declared not in (None, found.hex()):
            raise BadLine(Reason.WRONG_DIGEST)
        return named.record(found, number)

    def _digest(self, name: str) -> bytes:
        hasher, length = sha256(), 0
        with self._folder.open(name) as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise BadLine(Reason.TOO_LARGE)
            try:
                while block := file.read(_BLOCK):
                    hasher.update(block)
                    length += len(block)
                    if length > MAX_FILE_BYTES:
                        raise BadLine(Reason.TOO_LARGE)
            except OSError as error:
                raise BadLine(Reason.MISSING_FILE) from error
        return hasher.digest()
