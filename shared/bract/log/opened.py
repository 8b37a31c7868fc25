"""A bundle as a verifier opens it: every file against the manifest, the manifest against the owner's seal. No database.

A file that was changed is not refused at once: what is in it is looked at first, so that the entry can be named.
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bract.digest import digest
from bract.enrolment import hub_fingerprint
from bract.errors import LOG, UNTRUSTED, BractError
from bract.log import archive
from bract.log.bundle import (
    CHECKPOINT,
    COSIGNED,
    HUB,
    KEYS,
    LINEAGE,
    MANIFEST,
    RULE,
    SEAL,
    SIGNED_CHECKPOINT,
    Keys,
    Manifest,
    Seal,
    block_names,
    blocks,
)
from bract.log.tiles import WIDTH, tiles
from bract.log.tiles import path as tile_path
from bract.signing import key_id, parse_envelope, unseal, verify_key
from bract.value import decode, encode

T = TypeVar("T")


@contextmanager
def inside(where: str) -> Iterator[None]:
    """Errors within tell where they are, as `log-inconsistent`."""
    try:
        yield
    except BractError as error:
        text = error.detail or error.cause
        raise BractError(LOG, text if text.startswith(where) else f"{where}: {text}") from error


class OpenBundle:
    """A bundle whose archive, manifest and seal are sound. Use it as a context.

    Raises:
        BractError: `log-inconsistent`, naming the file; `malformed` when the path is no file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._members = archive.members(self._file)
            self.changed: list[str] = []
            self.keys = self._value(Keys, KEYS)
            with inside(KEYS):
                self.keys.check()
            self.key: Ed25519PublicKey = verify_key(self.keys.log.key)
            with inside(SEAL):
                self.seal = unseal(Seal, parse_envelope(self._raw(SEAL)), self.key)
                if parse_envelope(self._raw(SEAL)).to_json() != self._raw(SEAL):
                    raise BractError(LOG, "not in canonical form")
                if self.seal.origin != self.keys.log.name:
                    raise BractError(LOG, "the seal is of another log")
            with inside(MANIFEST):
                if digest(self._raw(MANIFEST)) != self.seal.manifest:
                    raise BractError(LOG, "not the one that its owner sealed")
            self.manifest = self._value(Manifest, MANIFEST)
            self._check_names()
            self.read(KEYS)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._file.close()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """What may be compared with what the owner says of itself: the hub's fingerprint, if it is one, and its key's."""
        own = str(key_id(self.key))
        if not self.keys.authority:
            return (own,)
        return (str(hub_fingerprint(self.keys.authority.encode(), self.keys.log.key)), own)

    def pin(self, fingerprint: str | None) -> bool:
        """Whether the owner is the one who was meant; without a fingerprint nobody was.

        Raises:
            BractError: `untrusted` when it is another.
        """
        if fingerprint is not None and fingerprint not in self.fingerprints:
            raise BractError(UNTRUSTED, f"the bundle is of {self.fingerprints[0]}, not of the fingerprint given")
        return fingerprint is not None

    def names(self, prefix: str) -> tuple[str, ...]:
        """The files under a folder."""
        return tuple(name for name in self.manifest.files if name.startswith(f"{prefix}/"))

    def read(self, name: str) -> bytes:
        """A file of the manifest; one that differs from it is noted in `changed`.

        Raises:
            BractError: `log-inconsistent` when it is missing.
        """
        member, told = self._members.get(name), self.manifest.files.get(name)
        if member is None or told is None:
            raise BractError(LOG, f"{name}: missing")
        data = archive.content(self._file, member)
        if f"sha256:{sha256(data).hexdigest()}" != told.sha256 or zlib.crc32(data) != member.crc:
            self.changed.append(name)
        return data

    def unchanged(self) -> None:
        """That every file that was read is the one that the manifest names.

        Raises:
            BractError: `log-inconsistent`, naming the first that is not.
        """
        if self.changed:
            raise BractError(LOG, f"{self.changed[0]}: changed since the bundle was sealed")

    def _raw(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise BractError(LOG, f"{name}: missing")
        data = archive.content(self._file, member)
        if zlib.crc32(data) != member.crc:
            raise BractError(LOG, f"{name}: changed")
        return data

    def _value(self, cls: type[T], name: str) -> T:
        with inside(name):
            data = self._raw(name)
            value = decode(cls, data)
            if encode(value) != data:
                raise BractError(LOG, "not in canonical form")
            return value

    def _check_names(self) -> None:
        """That the files are those of a log of the sealed size: none missing, none more."""
        there, told = set(self._members) - {MANIFEST, SEAL}, set(self.manifest.files)
        if self.seal.size > WIDTH * len(there):  # before names of files are made that no archive could hold
            raise BractError(LOG, f"{SEAL}: of more entries than are here")
        wanted = {CHECKPOINT, SIGNED_CHECKPOINT, KEYS, RULE} | ({LINEAGE} if self.seal.side == HUB else set())
        for number, width in blocks(self.seal.size):
            wanted.update(block_names(number, width))
        wanted.update(f"log/{tile_path(t.level, t.number, t.width)}" for t in tiles(self.seal.size))
        wanted.update(name for name in told if name.startswith(f"{COSIGNED}/"))
        for name in sorted(there ^ told | told ^ wanted):
            missing = name in wanted and name not in (there & told)
            raise BractError(LOG, f"{name}: {'missing' if missing else 'does not belong here'}")
