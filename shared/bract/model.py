"""Lineage as public values: what there is besides rounds and encoders, and how things came from one another.

Edges carry the relations of W3C PROV-DM and point from the newer thing to the older one; a role says what the older one
was for.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from bract.digest import Digest
from bract.plan import Name
from bract.value import strict
from bract.vocabulary.modifiers import Modifier
from bract.vocabulary.purposes import Purpose

Text = Annotated[str, Field(min_length=1, max_length=2000)]
Hash = Annotated[Digest, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class NodeKind(StrEnum):
    """What a node of lineage is."""

    DATASET = "dataset"
    SNAPSHOT = "snapshot"
    EXTERNAL = "external-source"
    BASE = "base-model"
    ROUND = "round"
    CONTRIBUTION = "contribution"
    VERSION = "version"
    FINETUNE = "fine-tune"
    STUDENT = "student"
    EVALUATION = "evaluation"
    RELEASE = "release"


MODELS = frozenset({NodeKind.BASE, NodeKind.VERSION, NodeKind.FINETUNE, NodeKind.STUDENT})
"""The kinds that have weights: what can be trained on from."""

SOURCES = frozenset({NodeKind.SNAPSHOT, NodeKind.EXTERNAL, NodeKind.BASE})
"""The kinds at which a path of ancestry may end."""


class Relation(StrEnum):
    """PROV-DM's relations between an activity and what it used, what it made, and between two entities."""

    USED = "used"
    GENERATED = "wasGeneratedBy"
    DERIVED = "wasDerivedFrom"


class Role(StrEnum):
    """What the older thing was for."""

    INITIALISED = "initialisedFrom"
    DISTILLED = "distilledFrom"
    TRAINED = "trainedOn"
    EVALUATED = "evaluated"
    EVALUATED_ON = "evaluatedOn"
    DRAWN = "drawnFrom"
    """A snapshot, from its data set."""
    EVIDENCE = "evidence"
    """An evaluation, of a release: it is told with it and not in it, so its purposes do not narrow the release."""


@dataclass(frozen=True)
class Node:
    """A thing in lineage.

    Attributes:
        ref: its name among machines: a digest, `SITE/DIGEST` of a snapshot, `SITE/NAME` of a data set.
        name: its name among people.
        at: when it became known; None where no record tells.
        body: public facts about it, plain JSON data.
        permits: the uses that everything above it still allows.
        modifiers: what goes along with it from the data above it.
    """

    kind: NodeKind
    ref: str
    name: str
    at: datetime | None
    body: dict[str, Any]
    permits: tuple[str, ...]
    modifiers: tuple[str, ...]


@dataclass(frozen=True)
class Edge:
    """`src` `relation` `dst`, each by kind and reference."""

    src_kind: NodeKind
    src: str
    relation: Relation
    role: Role | None
    dst_kind: NodeKind
    dst: str


@dataclass(frozen=True)
class Overriding:
    """A signed override that stands: what it is about, which criterion, why, and whose it is."""

    digest: Digest
    about: Digest
    criterion: str
    reason: str
    by: str
    roles: tuple[str, ...]
    at: datetime
    envelope: bytes


@dataclass(frozen=True)
class Lineage:
    """A part of the graph, oldest nodes first, with every override that bears on a node in it."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    overrides: tuple[Overriding, ...] = ()


@strict
@dataclass(frozen=True)
class Signal:
    """What a publisher said about text and data mining when the source was fetched, as it was said.

    Attributes:
        source: where it was said: `tdmrep` (W3C TDM Reservation Protocol), `aipref` (`Content-Usage`), or `none` found.
    """

    source: Literal["tdmrep", "aipref", "none"]
    raw: Annotated[str, Field(max_length=10_000)]
    fetched_at: datetime

    @property
    def reserved(self) -> bool | None:
        """Whether rights are reserved, read from the raw words each time; None when they do not tell."""
        if self.source == "tdmrep":
            found = re.findall(r"tdm-reservation[\"']?\s*[:=]\s*[\"']?([01])", self.raw, re.IGNORECASE)
            return "1" in found if found else None
        if self.source == "aipref":
            said = re.findall(r"\btrain-ai\s*=\s*([yn])\b", self.raw, re.IGNORECASE)
            return "n" in [word.lower() for word in said] if said else None
        return None


@strict
@dataclass(frozen=True)
class ExternalSource:
    """Data from elsewhere that no site holds: licensed or open.

    Attributes:
        content: digest of what was fetched.
        permits: the uses that its licence allows.
    """

    name: Name
    url: Text
    licence: Text
    content: Hash
    permits: tuple[Purpose, ...]
    modifiers: tuple[Modifier, ...] = ()
    signal: Signal | None = None


@strict
@dataclass(frozen=True)
class PublicWeights:
    """Weights from elsewhere that something starts from."""

    name: Name
    url: Text
    licence: Text
    weights: Hash
    permits: tuple[Purpose, ...]
    modifiers: tuple[Modifier, ...] = ()


@strict
@dataclass(frozen=True)
class DatasetTerms:
    """What may be done with a data set of a site beyond what its consents cover, or what not, in the words of its notice.

    Attributes:
        declares: further uses, which the notice to the persons named.
        modifiers: conditions of all its data; some take uses away (`bract.use.TAKES`), consented ones too.
        document: digest of that notice or agreement.
    """

    site: Name
    dataset: Name
    declares: tuple[Purpose, ...]
    modifiers: tuple[Modifier, ...]
    document: Hash
    given_at: datetime


@strict
@dataclass(frozen=True)
class Input:
    """Something that a derived thing was made from."""

    kind: NodeKind
    ref: Annotated[str, Field(min_length=1, max_length=160)]
    role: Role


@strict
@dataclass(frozen=True)
class Derived:
    """A fine-tune, a student or an evaluation, as the operator registers it.

    Attributes:
        purpose: for which it was made; everything above it must allow that.
        content: digest of its weights, or of an evaluation's report.
        measures: of an evaluation, its figures by name.
        code: the commit or the program that made it.
    """

    kind: Literal[NodeKind.FINETUNE, NodeKind.STUDENT, NodeKind.EVALUATION]
    name: Name
    purpose: Purpose
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=1000)]
    content: Hash
    content_bytes: Annotated[int, Field(ge=1)]
    measures: dict[Annotated[str, Field(max_length=100)], float] | None = None
    code: Annotated[str, Field(max_length=200)] = ""


@strict
@dataclass(frozen=True)
class ModelCard:
    """The card of a model or encoder version; a later one takes an earlier one's place."""

    about: Hash
    text: Annotated[str, Field(min_length=1, max_length=500_000)]
