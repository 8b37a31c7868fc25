"""One entry of the log. It holds a salted commitment to its body, so that the body can be erased and the tree stays."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json.encoder import encode_basestring as _quoted
from typing import Annotated, Any

from pydantic import Field

from bract.digest import Digest, canonical
from bract.log.merkle import leaf_hash
from bract.value import strict

SALT = 32
"""Bytes; without its salt a commitment tells nothing about a body, however few bodies there could be."""


@strict
@dataclass(frozen=True)
class LogEntry:
    """A fact, in its place.

    Attributes:
        seq: its place, from 1 without gaps.
        kind: what happened, as `noun.verb`.
        actor: who did it: a site, an operator, the hub itself; never a data subject.
        about: the public name or digest of what it happened to.
        commitment: sha256 over the salt and the canonical JSON of the body.
    """

    seq: Annotated[int, Field(ge=1)]
    kind: Annotated[str, Field(pattern=r"^[a-z][a-z-]*\.[a-z][a-z-]*$")]
    at: datetime
    actor: Annotated[str, Field(min_length=1, max_length=200)]
    about: Annotated[str, Field(max_length=200)]
    commitment: Digest

    @property
    def data(self) -> bytes:
        """The entry's canonical JSON: what its leaf is the hash of."""
        return entry_data(self.seq, self.kind, self.at, self.actor, self.about, self.commitment)

    @property
    def leaf(self) -> bytes:
        """The entry's hash in the tree."""
        return leaf_hash(self.data)


def entry_data(seq: int, kind: str, at: datetime, actor: str, about: str, commitment: str) -> bytes:
    """The canonical JSON (RFC 8785) of an entry, written out by hand: a log has millions of them.

    The fields stand in the order of their names; strings are quoted as JSON.stringify does, and times are in UTC.
    """
    moment = (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat()
    return (
        f'{{"about":{_quoted(about)},"actor":{_quoted(actor)},"at":"{moment[:-6]}Z",'
        f'"commitment":{_quoted(commitment)},"kind":{_quoted(kind)},"seq":{seq}}}'
    ).encode()


def new_salt() -> bytes:
    """A fresh salt."""
    return secrets.token_bytes(SALT)


def commitment(salt: bytes, body: Mapping[str, Any] | bytes) -> Digest:
    """The salted commitment to a body, given as plain data or as its canonical JSON."""
    data = body if isinstance(body, bytes) else canonical(dict(body))
    return Digest(f"sha256:{hashlib.sha256(salt + data).hexdigest()}")
