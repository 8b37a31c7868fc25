"""What a bundle for an auditor holds: a whole log with everything that it commits to, in one archive. Pure.

    log/checkpoint               the newest head as a C2SP note, with witnesses' cosignatures
    log/checkpoint.json          the same, as the log signs and keeps it (a `Checkpoint` in a DSSE envelope)
    log/cosigned/SIZE            an older head that a witness cosigned, for each witness its newest
    log/tile/L/N, log/tile/entries/N      the tree and its entries, 256 in a file (C2SP tlog-tiles)
    log/bodies/N                 a JSON line a body: body, salt, seq
    signed/N                     a JSON line for each entry whose fact somebody signed: the envelope, or the named value
    keys.json                    public keys: the log's owner, those who sign to it, witnesses
    lineage.json                 the edges of lineage (hub)
    rule.txt                     the rule by which consent is resolved
    manifest.json                every other file but the seal: size and sha256; what is withheld
    seal.json                    a `Seal` on the manifest, signed by the owner

`log/` is a tile log that other C2SP software reads. Files of a block have the block's number in the path of its tiles.
"""

import binascii
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from bract.digest import Digest, canonical, digest
from bract.errors import LOG, BractError
from bract.log.entry import SALT
from bract.log.tiles import ENTRIES, WIDTH, path
from bract.signing import verify_key
from bract.value import strict

FORMAT = "bract-bundle/1"
CHECKPOINT, SIGNED_CHECKPOINT, COSIGNED = "log/checkpoint", "log/checkpoint.json", "log/cosigned"
BODIES = "log/bodies"
KEYS, LINEAGE, RULE, MANIFEST, SEAL = "keys.json", "lineage.json", "rule.txt", "manifest.json", "seal.json"
HUB, SITE = "hub", "site"

_BODY, _SALT, _SEQ = b'{"body":', b',"salt":"', b'","seq":'
_ENTRY, _ENVELOPE, _VALUE = b'{"entry":', b',"signed":', b',"value":'


@strict
@dataclass(frozen=True)
class Seal:
    """The owner's word on a bundle: this manifest goes with this head.

    Attributes:
        side: `hub` or `site`.
    """

    origin: Annotated[str, Field(min_length=1, max_length=200)]
    side: Annotated[str, Field(pattern="^(hub|site)$")]
    size: Annotated[int, Field(ge=1)]
    root: Digest
    manifest: Digest


@strict
@dataclass(frozen=True)
class Party:
    """A name and its base64 Ed25519 public key."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    key: Annotated[str, Field(max_length=64)]


@strict
@dataclass(frozen=True)
class Keys:
    """Whose signatures are in a bundle.

    Attributes:
        log: the owner of the log.
        parties: who else signs what the log is about: a hub's sites, a site's hub.
        people: who decides, approves and overrides at a hub.
        witnesses: who cosigned heads.
        authority: PEM of the certificate that is part of a hub's fingerprint; empty for a site.
    """

    log: Party
    parties: tuple[Party, ...]
    people: tuple[Party, ...]
    witnesses: tuple[Party, ...]
    authority: Annotated[str, Field(max_length=16_384)] = ""

    def check(self) -> None:
        """That every key is one, no name stands for two, and witnesses are distinct keys other than the owner's.

        Raises:
            BractError: `malformed`; `log-inconsistent`.
        """
        for group in (self.parties, self.witnesses):
            if len({party.name for party in group}) != len(group):
                raise BractError(LOG, f"{KEYS}: a name stands for two keys")
        if len({party.key for party in (self.log, *self.witnesses)}) != 1 + len(self.witnesses):
            raise BractError(LOG, f"{KEYS}: a witness has the owner's key, or another witness'")
        for party in (self.log, *self.parties, *self.people, *self.witnesses):
            verify_key(party.key)


@strict
@dataclass(frozen=True)
class FileFact:
    """A file's length in bytes and its digest."""

    size: Annotated[int, Field(ge=0)]
    sha256: Digest


@strict
@dataclass(frozen=True)
class Manifest:
    """Every file of a bundle but itself and the seal, and the bodies that its owner keeps to itself.

    Attributes:
        withheld: kinds of entries whose bodies are left out.
        withheld_entries: single entries whose bodies are left out.
    """

    format: Annotated[str, Field(pattern=f"^{FORMAT}$")]
    files: dict[str, FileFact]
    withheld: tuple[str, ...]
    withheld_entries: tuple[int, ...]


def block_names(number: int, width: int) -> tuple[str, str, str, str]:
    """The names of a block's files: tile of leaves, entries, bodies, signed things."""
    tail = path("bodies", number, width).removeprefix("tile/bodies/")
    return (
        f"log/{path(0, number, width)}",
        f"log/{path(ENTRIES, number, width)}",
        f"{BODIES}/{tail}",
        f"signed/{tail}",
    )


def blocks(size: int) -> Iterator[tuple[int, int]]:
    """Number and width of each block of a log of `size` entries."""
    for number in range((size + WIDTH - 1) // WIDTH):
        yield number, min(WIDTH, size - number * WIDTH)


def body_line(seq: int, salt: bytes, body: bytes) -> bytes:
    """A body with what its commitment needs; `body` is canonical JSON, and so is the line."""
    return b"%b%b%b%b%b%d}\n" % (_BODY, body, _SALT, salt.hex().encode(), _SEQ, seq)


def read_body(line: bytes, tail: int) -> tuple[bytes, bytes]:
    """Salt and body from a line without its newline, the last `tail` bytes of which were looked at: quote, seq, brace.

    It is written for speed: what it does not look at, the body's commitment does.

    Raises:
        BractError: `log-inconsistent` when the line is not of its form.
    """
    end = len(line) - tail
    salt, body = end - 2 * SALT, end - 2 * SALT - len(_SALT)
    if line[: len(_BODY)] == _BODY and line[body:salt] == _SALT:
        with suppress(binascii.Error):
            return binascii.unhexlify(line[salt:end]), line[len(_BODY) : body]
    raise BractError(LOG, "a line of bodies is not of its form")


def signed_line(seq: int, data: bytes, *, envelope: bool) -> bytes:
    """The envelope or the named value that an entry is about; `data` is canonical JSON, and so is the line."""
    return b"%b%d%b%b}\n" % (_ENTRY, seq, _ENVELOPE if envelope else _VALUE, data)


def read_signed(line: bytes) -> tuple[int, bytes, bool]:
    """The entry's number, the data, and whether they are an envelope, from a line without its newline.

    Raises:
        BractError: `log-inconsistent` when it is not one.
    """
    comma = line.find(b",", len(_ENTRY), len(_ENTRY) + 20)
    number, rest = line[len(_ENTRY) : comma], line[comma:]
    if line.startswith(_ENTRY) and line.endswith(b"}") and number.isdigit() and not number.startswith(b"0"):
        for head, envelope in ((_ENVELOPE, True), (_VALUE, False)):
            if rest.startswith(head):
                return int(number), rest[len(head) : -1], envelope
    raise BractError(LOG, "a line of signed things is not of its form")


def manifest_of(files: dict[str, bytes]) -> dict[str, Any]:
    """The manifest's part about these files."""
    return {name: {"size": len(data), "sha256": digest(data)} for name, data in files.items()}


def canonical_lines(data: bytes) -> list[bytes]:
    """The lines of a file, each of which ends in a newline."""
    if not data:
        return []
    if not data.endswith(b"\n"):
        raise BractError(LOG, "a file of lines does not end with one")
    return data[:-1].split(b"\n")


def is_canonical(data: bytes) -> bool:
    """Whether these bytes are the canonical JSON of what they say."""
    try:
        return canonical(json.loads(data)) == data
    except (ValueError, RecursionError, BractError):
        return False
