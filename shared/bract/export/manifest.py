"""The manifest beside every export: what was asked, of which state, which bytes came out, and who signs for it.

It lies beside its files as `NAME.manifest.json`, holds itself in the clear and in a DSSE envelope, and is written last.
What `verify` checks, in this order:
    1. The owner's key signed the manifest as a manifest.
    2. The manifest in the clear is the signed one.
    3. Every file it names lies beside it, with that size and digest.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import Field

from bract import __version__
from bract.digest import Digest, canonical, digest_file
from bract.errors import DIGEST_MISMATCH, MALFORMED, TOO_LARGE, UNTRUSTED, BractError
from bract.export.staging import free, staged
from bract.export.tabular import MEDIA, Table, write_tables
from bract.files import PRIVATE, PUBLIC, write_atomic
from bract.signing import parse_envelope, sign, unseal
from bract.value import encode, plain, strict

SUFFIX = ".manifest.json"
LARGEST = 4 << 20
"""Bytes of a manifest that is read."""

MOST_FILES = 2000
"""In one export, so that its manifest stays below what an envelope may hold."""


@strict
@dataclass(frozen=True)
class ExportedFile:
    """A file's name in the manifest's folder, and its bytes; `rows` of a table."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]{1,255}$")]
    media_type: str
    sha256: Digest
    size: Annotated[int, Field(ge=0)]
    rows: int | None = None


@strict
@dataclass(frozen=True)
class About:
    """What was exported, and of which state.

    Attributes:
        export: which one, as `prov` or `question 5`.
        definition: what it is and how it was computed, in words.
        arguments: what it was asked with; plain JSON data that name nobody.
        made_by: the name of the hub or site, as in its log's checkpoints.
        known_at: only what had been recorded by then is in it.
        valid_at: the moment that is asked about, where that is another.
        checkpoint_size: of the newest checkpoint by `known_at`; 0 before there was one.
        checkpoint_root: its root.
    """

    export: str
    definition: str
    made_by: str
    known_at: datetime
    arguments: dict[str, Any] = field(default_factory=dict)
    valid_at: datetime | None = None
    checkpoint_size: Annotated[int, Field(ge=0)] = 0
    checkpoint_root: Digest | None = None


@strict
@dataclass(frozen=True)
class Manifest:
    """The signed word of whoever exported."""

    about: About
    files: Annotated[tuple[ExportedFile, ...], Field(min_length=1)]
    made_at: datetime
    software: str


def manifest_path(target: Path) -> Path:
    """Where the manifest of an export lies whose first file is this one."""
    return target.with_name(target.name + SUFFIX)


def export_table(targets: Sequence[Path], table: Table, about: About, key: Ed25519PrivateKey, at: datetime) -> Manifest:
    """Write a table in the forms that the names' endings tell, and the signed manifest beside the first file.

    All targets lie in one folder.

    Raises:
        BractError: `malformed`, `already-exists`, `disk`, as `bract.export.tabular.write_tables`.
    """
    _check_targets(targets)
    rows = write_tables(targets, table)
    return _signed(targets, {target: MEDIA[target.suffix] for target in targets}, rows, about, key, at)


def export_documents(
    documents: Mapping[Path, "Document"],
    about: About,
    key: Ed25519PrivateKey,
    at: datetime,
    *,
    private: bool = False,
) -> Manifest:
    """Write finished documents, and the signed manifest beside the first one. All lie in one folder.

    Args:
        documents: by their file.
        about: what they are.
        key: signs the manifest.
        at: now.
        private: only the owner of the files may read them.

    Raises:
        BractError: `malformed`, `already-exists`, `disk`.
    """
    targets = tuple(documents)
    _check_targets(targets)
    with staged(targets) as temporaries:
        for temporary, document in zip(temporaries, documents.values(), strict=True):
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE if private else PUBLIC)
            with os.fdopen(handle, "wb") as file:
                file.write(document.data)
    return _signed(targets, {target: one.media_type for target, one in documents.items()}, None, about, key, at)


@dataclass(frozen=True)
class Document:
    """A finished file: its bytes, and of what kind they are."""

    media_type: str
    data: bytes


def verify(manifest: Path, key: Ed25519PublicKey) -> Manifest:
    """The manifest, if key, text and files are what they should be (see the module's rules).

    Raises:
        BractError: `malformed` when it is no manifest or a file is missing; `untrusted`; `digest-mismatch`, naming the
            first file that differs.
    """
    try:
        if manifest.stat().st_size > LARGEST:
            raise BractError(MALFORMED, "the manifest is too long")
        read = json.loads(manifest.read_bytes())
        clear, sealed = canonical(read["manifest"]), json.dumps(read["envelope"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError, FileNotFoundError) as error:
        raise BractError(MALFORMED, f"{manifest.name} is no manifest") from error
    told = unseal(Manifest, parse_envelope(sealed), key)
    if encode(told) != clear:
        raise BractError(UNTRUSTED, "the manifest in the clear is not the signed one")
    for one in told.files:
        path = manifest.with_name(one.name)
        if not path.is_file():
            raise BractError(MALFORMED, f"{one.name} is missing")
        if path.stat().st_size != one.size or digest_file(path) != one.sha256:
            raise BractError(DIGEST_MISMATCH, one.name)
    return told


def public_key(path: Path) -> Ed25519PublicKey:
    """The Ed25519 key in a PEM file.

    Raises:
        BractError: `malformed`.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except (ValueError, FileNotFoundError, UnsupportedAlgorithm) as error:
        raise BractError(MALFORMED, f"{path.name}: no public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BractError(MALFORMED, f"{path.name}: not an Ed25519 key")
    return key


def _check_targets(targets: Sequence[Path]) -> None:
    if not targets:
        raise BractError(MALFORMED, "no file to write")
    if len(targets) > MOST_FILES:
        raise BractError(TOO_LARGE, f"{len(targets)} files; ask for less than all, {MOST_FILES} at most")
    if len({target.parent for target in targets}) != 1:
        raise BractError(MALFORMED, "the files of one export lie in one folder")
    free((*targets, manifest_path(targets[0])))


def _signed(
    targets: Sequence[Path],
    media: Mapping[Path, str],
    rows: int | None,
    about: About,
    key: Ed25519PrivateKey,
    at: datetime,
) -> Manifest:
    files = tuple(
        ExportedFile(target.name, media[target], digest_file(target), target.stat().st_size, rows) for target in targets
    )
    manifest = Manifest(about, files, at, f"bract {__version__}")
    envelope = sign(manifest, key)
    told = {"manifest": plain(manifest), "envelope": json.loads(envelope.to_json())}
    page = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False)
    write_atomic(manifest_path(targets[0]), page.encode() + b"\n")
    return manifest
