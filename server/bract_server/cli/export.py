"""`bract export`: lineage and models in formats that others read, each with a signed manifest beside it."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bract import console
from bract.errors import MALFORMED, BractError
from bract.export.manifest import Manifest, manifest_path, public_key, verify
from bract.value import plain
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.export.make import Asked, Maker
from bract_server.export.read import as_of
from bract_server.home import open_home
from bract_server.hub import open_registry

app = typer.Typer(
    help="Lineage and models in formats that others read, each with a signed manifest.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Argument(help="The file to write; its manifest is written beside it.")]
Version = Annotated[
    str | None,
    typer.Option("--version", help="A model: its digest or the beginning of it, CAMPAIGN/ROUND, or its name."),
]
Release = Annotated[str | None, typer.Option("--release", help="A release: its name or digest.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="As it was known then, an ISO 8601 time with its zone.")]


def _verb(name: str, told: str) -> None:
    """A verb that writes one document (`bract_server.export.make.FORMATS`)."""

    def write(
        out: Out,
        version: Version = None,
        release: Release = None,
        known: AsOf = None,
        hub: HubFolder = Path(),
        as_json: AsJson = False,
    ) -> None:
        at = now()
        _show(_maker(hub).single(name, out, _asked(version, release, known, at), at), out.parent, as_json)

    app.command(name, help=told)(write)


_verb("prov", "Write lineage as W3C PROV-JSON: all of it, or what a model or release descends from.")
_verb("openlineage", "Write lineage as OpenLineage 2-0-2 events, one a line.")
_verb("mlbom", "Write a model's bill of materials as CycloneDX 1.6.")
_verb("card", "Write a model's card in Hugging Face's layout, with what is known of its privacy and what is not.")
_verb("annex-iv", "Write a draft of the technical documentation that the EU AI Act's Annex IV asks for.")
_verb("gpai-summary", "Write a draft of the summary of training content that the EU AI Act's article 53 asks for.")


@app.command()
def croissant(
    out: Annotated[Path, typer.Argument(help="The folder to make; it gets a file for each snapshot.")],
    version: Version = None,
    release: Release = None,
    known: AsOf = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Write each snapshot of a data set as Croissant 1.1; no count of persons or records is told."""
    at = now()
    _show(_maker(hub).croissant(out, _asked(version, release, known, at), at), out, as_json)


@app.command()
def edges(
    out: Annotated[
        list[Path], typer.Argument(help="Files to write; the ending tells the form: .csv, .ndjson, .parquet.")
    ],
    version: Version = None,
    release: Release = None,
    known: AsOf = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the edges of lineage as tables."""
    at = now()
    _show(_maker(hub).edges(tuple(out), _asked(version, release, known, at), at), out[0].parent, as_json)


@app.command("verify")
def verify_export(
    manifest: Annotated[Path, typer.Argument(help="The manifest, NAME.manifest.json.")],
    key: Annotated[Path | None, typer.Option(help="The signer's public key, a PEM file; else this hub's.")] = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Check an export's signature and that its files are unchanged; status 1 names the first that differs."""
    told = verify(manifest, _public(key, hub))
    if as_json:
        console.emit(plain(told) | {"verified": True})
        return
    console.out.print(f"{told.about.export} of {told.about.made_by}: {len(told.files)} files are as they were signed.")


def _public(key: Path | None, hub: Path) -> Ed25519PublicKey:
    if key is None:
        return open_home(hub).signing_key().public_key()
    return public_key(key)


def _asked(version: str | None, release: str | None, known: str | None, at: datetime) -> Asked:
    if version is not None and release is not None:
        raise BractError(MALFORMED, "--version and --release: name one")
    return Asked(version or release, as_of(known, at))


def _maker(hub: Path) -> Maker:
    home = open_home(hub)
    return Maker(open_registry(home), home.settings().name, home.signing_key())


def _show(manifest: Manifest, folder: Path, as_json: bool) -> None:
    beside = manifest_path(folder / manifest.files[0].name)
    if as_json:
        console.emit(plain(manifest) | {"folder": str(folder), "manifest": str(beside)})
        return
    for one in manifest.files:
        console.out.print(f"{folder / one.name}  {one.size} bytes  {one.sha256}", soft_wrap=True, markup=False)
    console.out.print(f"{beside}  signed", soft_wrap=True, markup=False)
