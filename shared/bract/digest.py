"""Names by content: canonical JSON and sha256 digests.

Canonical JSON is RFC 8785 (JCS), so that any other implementation can recompute a digest.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import rfc8785
from pydantic_core import core_schema

from bract.errors import MALFORMED, BractError

_FORM = re.compile(r"sha256:[0-9a-f]{64}")
_BLOCK = 1 << 20


class Digest(str):
    """`sha256:` and 64 lower-case hexadecimal digits; a value that is decoded with anything else in its place is refused."""

    __slots__ = ()

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> core_schema.CoreSchema:
        """How a value's field of this type is checked."""
        return core_schema.str_schema(pattern=f"^{_FORM.pattern}$")


def canonical(value: object) -> bytes:
    """The RFC 8785 form of a JSON value.

    Raises:
        BractError: `malformed` for NaN, infinities, integers beyond 2^53 or anything that is not JSON.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError as error:
        raise BractError(MALFORMED, f"no canonical form: {error}") from error


def digest(data: bytes) -> Digest:
    """The digest of these bytes."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def digest_of(value: object) -> Digest:
    """The digest of a JSON value's canonical form."""
    return digest(canonical(value))


def blocks(path: Path, offset: int = 0) -> Iterator[bytes]:
    """A file's bytes from `offset`, one MiB at a time."""
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_BLOCK):
            yield block


def digest_file(path: Path) -> Digest:
    """The digest of a file's bytes, read in constant memory."""
    hasher = hashlib.sha256()
    for block in blocks(path):
        hasher.update(block)
    return Digest(f"sha256:{hasher.hexdigest()}")


def parse_digest(text: str) -> Digest:
    """The text as a digest.

    Raises:
        BractError: `malformed` when it is not `sha256:` and 64 lower-case hexadecimal digits.
    """
    if _FORM.fullmatch(text) is None:
        raise BractError(MALFORMED, "not a sha256 digest")
    return Digest(text)
