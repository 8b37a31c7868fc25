"""How answers to the auditor's questions are shown and written, the same on both sides."""

import getpass
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bract import console
from bract.errors import MALFORMED, BractError
from bract.export.manifest import About, export_table
from bract.export.tabular import table_of
from bract.log.checkpoint import Checkpoint, root_digest
from bract.log.note import open_note, parse_note
from bract.question import QUESTIONS, Answer
from bract.signing import parse_envelope, unseal
from bract.value import plain

_WIDEST = 60
_FEW = 3
_COLUMN = 14
"""Characters that a column needs to be read; with less, rows are shown one field a line."""


def show(told: Answer, as_json: bool) -> None:
    """Print an answer."""
    if as_json:
        console.emit(plain(told))
        return
    title = f"{told.number}. {told.title}"
    if len(told.columns) * _COLUMN <= console.out.width:
        rows = [[_cell(row.get(column)) for column in told.columns] for row in told.rows]
        console.out.print(console.table(title, told.columns, rows))
    else:
        console.out.print(title, style="bold")
        for place, row in enumerate(told.rows, start=1):
            fields = [
                f"{column} {_cell(row[column])}" for column in told.columns if row.get(column) not in (None, [], "")
            ]
            console.out.print(f"{place:>4}  " + "; ".join(fields), soft_wrap=True, markup=False)
    for note in told.notes:
        console.out.print(f"note: {note}", soft_wrap=True, markup=False)
    known = "" if told.known_at == told.valid_at else f", by what was known at {_cell(str(told.known_at))}"
    console.out.print(f"as of {_cell(str(told.valid_at))}{known}. Computed: {told.definition}", soft_wrap=True)
    proof = told.proof
    root = "no root" if proof.root is None else f"root {proof.root}"
    console.out.print(f"log {proof.origin}: {proof.size} entries, {root}, {len(proof.entries)} cited", soft_wrap=True)


def show_questions(as_json: bool, here: Iterable[int] = QUESTIONS) -> None:
    """Print what can be asked."""
    asked = [QUESTIONS[number] for number in here]
    if as_json:
        told = [{"number": q.number, "title": q.title, "where": q.where, "definition": q.definition} for q in asked]
        console.emit(told)
        return
    rows = [(q.number, q.title, q.where) for q in asked]
    console.out.print(console.table("the auditor's questions", ("no", "question", "answered by"), rows))


def write(
    told: Answer, arguments: Mapping[str, Any], targets: Sequence[Path], key: Ed25519PrivateKey, at: datetime
) -> None:
    """Write an answer's rows to files, each in the form that its name's ending tells, with one signed manifest.

    Raises:
        BractError: `already-exists`, `malformed`, `disk`.
    """
    if not targets:
        return
    about = About(
        export=f"question {told.number}",
        definition=told.definition,
        made_by=told.proof.origin,
        known_at=told.known_at,
        valid_at=told.valid_at,
        arguments=dict(arguments),
        checkpoint_size=told.proof.size,
        checkpoint_root=told.proof.root,
    )
    export_table(
        [path.absolute() for path in targets], table_of(told.columns, told.rows, told.definition), about, key, at
    )


def read_checkpoint(path: Path, key: Ed25519PublicKey, at: datetime) -> Checkpoint:
    """A checkpoint that somebody kept, as our envelope or as a C2SP note; it must bear the log's signature.

    Raises:
        BractError: `malformed`; `untrusted`.
    """
    data = read(path)
    if data.lstrip().startswith(b"{"):
        return unseal(Checkpoint, parse_envelope(data), key)
    head = open_note(parse_note(data), key)
    return Checkpoint(head.origin, head.size, root_digest(head.root), at)  # a note carries no time, and none is used


def read(path: Path) -> bytes:
    """A file that somebody named.

    Raises:
        BractError: `malformed` when it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BractError(MALFORMED, f"{path.name}: it cannot be read") from error


def user() -> str:
    """Who runs this command, as the machine knows them."""
    try:
        return getpass.getuser()[:50]
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        shown = ", ".join(map(_cell, value[:_FEW]))
        return shown if len(value) <= _FEW else f"{shown} … ({len(value)})"
    text = str(value)
    if text.startswith("sha256:"):
        return text[:19]
    if text[4:5] == "-" and text[10:11] in ("T", " ") and text[13:14] == ":":  # a time, to the second
        return text[:19]
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
