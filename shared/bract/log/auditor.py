"""An auditor as a witness, offline: a file that remembers logs' heads, and a key of its own beside it.

What it looks at is a bundle, or a folder of a tile log (`checkpoint`, `tile/…`). It makes the proof itself from the tiles:
whoever gave them need not be trusted, since the proof ends at a signed root.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import Field

from bract.digest import Digest
from bract.errors import FINGERPRINT, MALFORMED, BractError
from bract.files import read_private, write_private
from bract.identity import load_signing_key, private_pem
from bract.log.bundle import Keys
from bract.log.checkpoint import root_digest
from bract.log.note import (
    COSIGNED,
    SIGNED,
    Head,
    Note,
    cosign,
    open_note,
    parse_note,
    parse_vkey,
    valid_name,
    vkey,
)
from bract.log.opened import OpenBundle
from bract.log.tiles import HEIGHT, WIDTH, TiledTree, path
from bract.log.witness import Shown, judge
from bract.signing import key_text, verify_key
from bract.value import decode, encode, strict


@strict
@dataclass(frozen=True)
class Remembered:
    """A log by its key, and the last head of it that was cosigned."""

    origin: Annotated[str, Field(max_length=200)]
    key: Annotated[str, Field(max_length=64)]
    size: Annotated[int, Field(ge=1)]
    root: Digest

    @property
    def head(self) -> Head:
        """The head."""
        return Head(self.origin, self.size, bytes.fromhex(self.root.removeprefix("sha256:")))


@strict
@dataclass(frozen=True)
class State:
    """Who the witness is, and what it has seen."""

    name: Annotated[str, Field(max_length=200)]
    logs: tuple[Remembered, ...] = ()


@dataclass(frozen=True)
class Cosigned:
    """What a witness gives back: the checkpoint with its line, and the verifier key with which the line is checked."""

    head: Head
    note: bytes
    witness: str
    before: int


Files = Callable[[str], bytes]
"""Reads a file of a tile log by its path, such as `checkpoint` or `tile/0/000`."""


def witness(source: Path, state: Path, *, name: str, key: str | None, at: datetime) -> Cosigned:
    """Look at a log, remember its head and cosign it.

    Args:
        source: a bundle or a folder of tiles.
        state: the witness' memory; it and its key (`.key` beside it) are made at the first use. A key that is there
            already is taken: that of an auditor whom a hub has registered counts at its release gate.
        name: the witness' name, at the first use.
        key: the log's fingerprint or verifier key; needed when the log is seen for the first time.
        at: now.

    Raises:
        BractError: `log-forked` when the log does not continue what was seen, and nothing is signed; `untrusted`;
            `fingerprint` for a log that is new and was not named, or is another; `malformed`; `log-inconsistent`.
    """
    memory, mine = _open(state, name)
    files, owner = _source(source, key)
    shown = files("checkpoint")
    head = open_note(parse_note(shown), owner)
    known = next((one for one in memory.logs if one.key == key_text(owner)), None)
    if known is None and key is None:
        raise BractError(FINGERPRINT, f"{head.origin} is new to this witness: give its fingerprint with --key")
    seen = None if known is None else known.head
    old = 0 if seen is None else seen.size
    proof = _tree(files, head.size).consistency(old) if 0 < old < head.size else ()
    judge(Shown(shown, old, proof), owner, seen)
    line = cosign(head, memory.name, mine, int(at.timestamp()))
    now = Remembered(head.origin, key_text(owner), head.size, root_digest(head.root))
    others = tuple(one for one in memory.logs if one.key != now.key)
    write_private(state, encode(replace(memory, logs=(*others, now))))
    own = tuple(one for one in parse_note(shown).signatures if one.name == head.origin)
    note = Note(head, (*own, line)).to_bytes()
    return Cosigned(head, note, vkey(memory.name, COSIGNED, mine.public_key()), old)


def _open(path: Path, name: str) -> tuple[State, Ed25519PrivateKey]:
    key_file = path.with_name(f"{path.name}.key")
    if path.exists():
        memory = decode(State, read_private(path))
        if name and name != memory.name:
            raise BractError(MALFORMED, f"this witness is called {memory.name}")
        return memory, load_signing_key(read_private(key_file))
    if not valid_name(name):
        raise BractError(MALFORMED, "a new witness needs a name of one word (--name)")
    if key_file.exists():
        return State(name), load_signing_key(read_private(key_file))
    key = Ed25519PrivateKey.generate()
    write_private(key_file, private_pem(key))
    return State(name), key


def _source(source: Path, key: str | None) -> tuple[Files, Ed25519PublicKey]:
    """The files of a log and its owner's key, which is the one that was named."""
    if source.is_dir():
        if key is None or "+" not in key:
            raise BractError(FINGERPRINT, "of a folder, give the log's verifier key (name+ID+key) with --key")
        return (lambda name: _file(source, name)), parse_vkey(key, SIGNED)[1]
    with OpenBundle(source) as bundle:
        owner = bundle.key
        if key is not None and "+" in key:
            if key_text(parse_vkey(key, SIGNED)[1]) != key_text(owner):
                raise BractError(FINGERPRINT, "the bundle is of another log than the key given")
        elif key is not None:
            bundle.pin(key)
        keys: Keys = bundle.keys
    return (lambda name: _inside(source, name)), verify_key(keys.log.key)


def _file(folder: Path, name: str) -> bytes:
    try:
        return folder.joinpath(*name.split("/")).read_bytes()
    except OSError as error:
        raise BractError(MALFORMED, f"{name}: cannot be read") from error


def _inside(bundle: Path, name: str) -> bytes:
    with OpenBundle(bundle) as opened:
        return opened.read(f"log/{name}")


def _tree(files: Files, size: int) -> TiledTree:
    def read(level: int, number: int) -> bytes:
        width = min(WIDTH, (size >> (HEIGHT * level)) - number * WIDTH)
        return files(path(level, number, width))

    return TiledTree(size, read)
