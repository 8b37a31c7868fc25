"""The exports of a hub by name: which facts each needs, and which files it makes."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import digest
from bract.errors import MALFORMED, BractError
from bract.export.aiact import annex_iv, training_content
from bract.export.card import card
from bract.export.croissant import croissant, snapshots
from bract.export.edges import edge_table
from bract.export.facts import Facts
from bract.export.manifest import About, Document, Manifest, export_documents, export_table
from bract.export.mlbom import mlbom
from bract.export.names import document
from bract.export.openlineage import events, ndjson
from bract.export.prov import prov_json
from bract.export.staging import free
from bract_server.export.read import plain_arguments, read_facts
from bract_server.registry.store import HubRegistry


@dataclass(frozen=True)
class Format:
    """One export that is a single document.

    Attributes:
        model: whether it is about one model, which must be named.
    """

    media_type: str
    definition: str
    model: bool
    make: Callable[[Facts], bytes]


FORMATS: dict[str, Format] = {
    "prov": Format(
        "application/json",
        "Lineage as W3C PROV-JSON.",
        False,
        lambda facts: document(prov_json(facts)),
    ),
    "openlineage": Format(
        "application/x-ndjson",
        "Lineage as OpenLineage 2-0-2 events, one a line.",
        False,
        lambda facts: ndjson(events(facts)),
    ),
    "mlbom": Format(
        "application/vnd.cyclonedx+json; version=1.6",
        "A model as a CycloneDX 1.6 machine-learning bill of materials.",
        True,
        lambda facts: document(mlbom(facts)),
    ),
    "card": Format("text/markdown; charset=utf-8", "A model card from the registry's facts.", True, card),
    "annex-iv": Format(
        "text/markdown; charset=utf-8",
        "A draft of the technical documentation of Regulation (EU) 2024/1689, Annex IV.",
        True,
        annex_iv,
    ),
    "gpai-summary": Format(
        "text/markdown; charset=utf-8",
        "A draft of the summary of training content of Regulation (EU) 2024/1689, Art. 53(1)(d).",
        True,
        training_content,
    ),
}

CROISSANT = "application/ld+json; profile=http://mlcommons.org/croissant/1.1"


@dataclass(frozen=True)
class Asked:
    """What is exported: of one thing (`ref`) or of all, as known at a time."""

    ref: str | None
    known_at: datetime


@dataclass(frozen=True)
class Maker:
    """A hub's registry with its name and key."""

    registry: HubRegistry
    origin: str
    key: Ed25519PrivateKey

    def single(self, name: str, out: Path, asked: Asked, at: datetime) -> Manifest:
        """Write one of `FORMATS`, with its manifest beside it.

        Raises:
            BractError: `malformed` when a model must be named, or there is none of that name; `already-exists`; `disk`.
        """
        form = FORMATS[name]
        if form.model and asked.ref is None:
            raise BractError(MALFORMED, "name a model: --version or --release")
        facts = self._facts(asked, model=form.model)
        documents = {out: Document(form.media_type, form.make(facts))}
        return export_documents(documents, self._about(name, form.definition, facts, asked), self.key, at)

    def croissant(self, folder: Path, asked: Asked, at: datetime) -> Manifest:
        """Write a Croissant file for each snapshot into a new folder, with one manifest.

        Raises:
            BractError: `malformed` when there is no snapshot; `already-exists`; `disk`.
        """
        facts = self._facts(asked)
        if not (found := snapshots(facts)):
            raise BractError(MALFORMED, "lineage has no snapshot at that time")
        free((folder,))
        documents = {
            folder / f"snapshot-{digest(node.ref.encode())[7:23]}.json": Document(
                CROISSANT, document(croissant(facts, node))
            )
            for node in found
        }
        definition = "Snapshots of data sets as Croissant 1.1 JSON-LD; no count of persons or records."
        folder.mkdir()
        try:
            return export_documents(documents, self._about("croissant", definition, facts, asked), self.key, at)
        except BaseException:
            with suppress(OSError):
                folder.rmdir()
            raise

    def edges(self, targets: tuple[Path, ...], asked: Asked, at: datetime) -> Manifest:
        """Write the edges of lineage as tables.

        Raises:
            BractError: `malformed`, `already-exists`, `disk`.
        """
        facts = self._facts(asked)
        table = edge_table(facts)
        return export_table(targets, table, self._about("edges", table.definition, facts, asked), self.key, at)

    def _facts(self, asked: Asked, *, model: bool = False) -> Facts:
        return read_facts(self.registry, self.origin, asked.ref, asked.known_at, model=model)

    def _about(self, name: str, definition: str, facts: Facts, asked: Asked) -> About:
        return About(
            export=name,
            definition=definition,
            made_by=self.origin,
            known_at=facts.known_at,
            arguments=plain_arguments(ref=asked.ref, about=None if facts.about is None else facts.about[1]),
            checkpoint_size=facts.checkpoint_size,
            checkpoint_root=facts.checkpoint_root,
        )
