"""Checkpoints as signed notes, and what witnesses add to them (C2SP signed-note, tlog-checkpoint, tlog-cosignature). Pure.

    origin                       the log's name, the key name of its own signature
    12                           how many entries
    CsUYapGGPo4dkMgIAUqo…        the root, base64

    — origin Az3grlgtzPICa5…     base64 of the key's 4-byte ID and the signature
    — witness jWbPPwAAAABkGF…    likewise, with a time: "the largest tree that I have seen continues all before it"

The log signs its `Checkpoint` in a DSSE envelope, as everything of ours, and that is what is kept: it has the time. The
note says the same tree in the form that any C2SP witness reads; Ed25519 [RFC 8032] is deterministic, so that it can be
made again whenever it is asked for.
"""

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bract.errors import MALFORMED, UNTRUSTED, BractError
from bract.log.merkle import SIZE

SIGNED, COSIGNED = 1, 4
"""Signature types: Ed25519 over the text, and a witness' timestamped cosignature."""

COSIGNATURE = "cosignature/v1"
MAX_NOTE = 1 << 16
"""Bytes; a longer note is refused before it is parsed."""

_LINE = re.compile(r"\u2014 (\S+) (\S+)")
_NAME = re.compile(r"[^\s+\x00-\x20\x7f\ud800-\udfff]{1,200}")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_ID = 4


@dataclass(frozen=True)
class Head:
    """The head of a log's tree: `size` entries, and their root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> bytes:
        """The note's text (C2SP tlog-checkpoint).

        Raises:
            BractError: `malformed` for an origin that cannot stand in a note.
        """
        if not valid_name(self.origin):
            raise BractError(MALFORMED, "the origin of a checkpoint is one word")
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()


@dataclass(frozen=True)
class Signature:
    """One signature line: who, the key's 4-byte ID, and the bytes behind it."""

    name: str
    key_id: bytes
    data: bytes

    @property
    def line(self) -> str:
        """As it stands in a note, with its newline."""
        return f"\u2014 {self.name} {base64.b64encode(self.key_id + self.data).decode()}\n"


@dataclass(frozen=True)
class Note:
    """A checkpoint with its signatures; nothing is verified yet."""

    head: Head
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The note as text."""
        return self.head.text + b"\n" + "".join(one.line for one in self.signatures).encode()


def valid_name(name: str) -> bool:
    """Whether a log or witness may have this name: one word, no `+`, and not what opens a cosigned message."""
    return _NAME.fullmatch(name) is not None and name != COSIGNATURE


def key_id(name: str, kind: int, key: Ed25519PublicKey) -> bytes:
    """The 4 bytes that name a key of that name and kind in a signature line (C2SP signed-note, "Signatures")."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key.public_bytes_raw()).digest()[:_ID]


def vkey(name: str, kind: int, key: Ed25519PublicKey) -> str:
    """The key in the form in which notes' verifiers are told it: `name+ID+base64(kind, key)`."""
    material = base64.b64encode(bytes([kind]) + key.public_bytes_raw()).decode()
    return f"{name}+{key_id(name, kind, key).hex()}+{material}"


def parse_vkey(text: str, kind: int) -> tuple[str, Ed25519PublicKey]:
    """The name and key in a `vkey` of that kind.

    Raises:
        BractError: `malformed`.
    """
    try:
        name, told, material = text.split("+", 2)
        raw = base64.b64decode(material, validate=True)
        key = Ed25519PublicKey.from_public_bytes(raw[1:])
    except (ValueError, binascii.Error) as error:
        raise BractError(MALFORMED, "not a verifier key") from error
    if raw[0] != kind or not valid_name(name) or told != key_id(name, kind, key).hex():
        raise BractError(MALFORMED, "not a verifier key of this kind")
    return name, key


def sign_head(head: Head, key: Ed25519PrivateKey) -> Note:
    """The checkpoint under its log's own signature."""
    mine = Signature(head.origin, key_id(head.origin, SIGNED, key.public_key()), key.sign(head.text))
    return Note(head, (mine,))


def cosign(head: Head, name: str, key: Ed25519PrivateKey, time_s: int) -> Signature:
    """A witness' word that it has seen this tree, and that it continues every one of this log that it saw before.

    Args:
        head: what it saw.
        name: the witness'.
        key: the witness'.
        time_s: POSIX seconds.
    """
    data = struct.pack(">Q", time_s) + key.sign(_cosigned(head, time_s))
    return Signature(name, key_id(name, COSIGNED, key.public_key()), data)


def parse_note(data: bytes) -> Note:
    """A checkpoint note; nothing is verified yet. It has no extension lines: we would sign what we do not understand.

    Raises:
        BractError: `malformed`.
    """
    if len(data) > MAX_NOTE:
        raise BractError(MALFORMED, "the note is too long")
    try:
        text, signed = data.decode().rsplit("\n\n", 1)
        origin, size, root = text.split("\n")
        if not valid_name(origin) or _SIZE.fullmatch(size) is None:
            raise ValueError("lines")
        head = Head(origin, int(size), base64.b64decode(root, validate=True))
        note = Note(head, tuple(_signature(line) for line in signed.removesuffix("\n").split("\n")))
    except (ValueError, UnicodeDecodeError, binascii.Error) as error:
        raise BractError(MALFORMED, "not a checkpoint note") from error
    if len(head.root) != SIZE or note.to_bytes() != data:
        raise BractError(MALFORMED, "not a checkpoint note")
    return note


def parse_signature(line: str) -> Signature:
    """One signature line, with or without its newline.

    Raises:
        BractError: `malformed`.
    """
    try:
        one = _signature(line.removesuffix("\n"))
    except (ValueError, binascii.Error) as error:
        raise BractError(MALFORMED, "not a signature line") from error
    if one.line.removesuffix("\n") != line.removesuffix("\n"):
        raise BractError(MALFORMED, "a signature line in another form than ours")
    return one


def open_note(note: Note, key: Ed25519PublicKey) -> Head:
    """The head, if its log signed it with this key.

    Raises:
        BractError: `untrusted`.
    """
    head = note.head
    wanted = (head.origin, key_id(head.origin, SIGNED, key))
    mine = [one for one in note.signatures if (one.name, one.key_id) == wanted]
    if not mine or not all(_verified(key, one.data, head.text) for one in mine):
        raise BractError(UNTRUSTED, "the checkpoint is not signed by its log's key")
    return head


def check_cosignature(head: Head, one: Signature, name: str, key: Ed25519PublicKey) -> int:
    """When the witness of that name and key cosigned the head, in POSIX seconds.

    Raises:
        BractError: `untrusted` unless it did.
    """
    if (one.name, one.key_id) != (name, key_id(name, COSIGNED, key)) or len(one.data) != 8 + 64:
        raise BractError(UNTRUSTED, "the cosignature is of another witness")
    (time_s,) = struct.unpack(">Q", one.data[:8])
    if not _verified(key, one.data[8:], _cosigned(head, time_s)):
        raise BractError(UNTRUSTED, "the cosignature does not verify")
    return int(time_s)


def _cosigned(head: Head, time_s: int) -> bytes:
    return f"{COSIGNATURE}\ntime {time_s}\n".encode() + head.text


def _signature(line: str) -> Signature:
    match = _LINE.fullmatch(line)
    if match is None or not valid_name(match[1]):
        raise ValueError("signature")
    raw = base64.b64decode(match[2], validate=True)
    if len(raw) <= _ID:
        raise ValueError("signature")
    return Signature(match[1], raw[:_ID], raw[_ID:])


def _verified(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True
