"""Certificates: which objectives the falsifier failed to break, in exactly which code. No torch here.

`certificates.json` is made by `python -m bract.dpsgd.falsify --all --write`. A certificate holds the digests of the files
it was made from; when one of them has changed since, the certificate is stale and proves nothing.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Annotated

from pydantic import Field

from bract.digest import Digest, digest
from bract.errors import MALFORMED, NO_CERTIFICATE, BractError
from bract.objectives.spec import PrivacyStructure
from bract.value import decode, plain, strict

FALSIFIER = 1
"""Version of the falsifier's cases; raised whenever it learns to try something new."""

FILE = "certificates.json"


@strict
@dataclass(frozen=True)
class Source:
    """A file of the package, by its path within it, and its digest."""

    path: str
    digest: Digest


@strict
@dataclass(frozen=True)
class Certificate:
    """The falsifier's verdict on one objective: it tried, and the declared bound held.

    Attributes:
        kind: the objective's.
        structure: what it declares.
        declared: Δ/C, how far one subject may move the clipped sum.
        measured: Δ/C, the furthest that the falsifier could move it.
        moment: the furthest that it could move the sum of released moments; at most one. None where none is released.
        cases: neighbouring data sets tried.
        falsifier: `FALSIFIER` when this was made.
        sources: the objective, its encoder and the engine.
    """

    kind: str
    structure: PrivacyStructure
    declared: Annotated[float, Field(gt=0)]
    measured: Annotated[float, Field(ge=0)]
    moment: float | None
    cases: Annotated[int, Field(ge=1)]
    falsifier: int
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]


def certificate(kind: str) -> Certificate:
    """The valid certificate of an objective.

    Raises:
        BractError: `no-certificate` when there is none, or it was made from other code or by an older falsifier.
    """
    found = certificates().get(kind)
    if found is None:
        raise BractError(NO_CERTIFICATE, f"{kind}: the falsifier has not passed it")
    check_fresh(found)
    return found


def check_fresh(one: Certificate) -> None:
    """That a certificate was made from the code that is installed.

    Raises:
        BractError: `no-certificate`, naming the first file that has changed.
    """
    if one.falsifier != FALSIFIER:
        raise BractError(NO_CERTIFICATE, f"{one.kind}: its certificate is of falsifier {one.falsifier}")
    for source in one.sources:
        if source_digest(source.path) != source.digest:
            raise BractError(NO_CERTIFICATE, f"{one.kind}: {source.path} has changed since its certificate was made")


@lru_cache(maxsize=1)
def certificates() -> dict[str, Certificate]:
    """Every certificate that is shipped, fresh or not, by kind.

    Raises:
        BractError: `malformed`.
    """
    file = resources.files("bract.objectives") / FILE
    if not file.is_file():
        return {}
    try:
        listed = json.loads(file.read_bytes())
    except ValueError as error:
        raise BractError(MALFORMED, f"{FILE}: not JSON") from error
    read = [decode(Certificate, one) for one in listed]
    return {one.kind: one for one in read}


@lru_cache(maxsize=256)
def source_digest(path: str) -> Digest:
    """The digest of a file of the package as it is installed; of a missing one, that of nothing."""
    file = resources.files("bract").joinpath(path)
    return digest(file.read_bytes() if file.is_file() else b"")


def page(made: list[Certificate]) -> bytes:
    """The content of `certificates.json`."""
    ordered = sorted(made, key=lambda one: one.kind)
    return json.dumps([plain(one) for one in ordered], indent=1, ensure_ascii=False).encode() + b"\n"
