"""`bract-site export`: a person's own record as a receipt, and the check of an export."""

from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.export.manifest import manifest_path, public_key, verify
from bract.roles import Role
from bract.value import plain, utc
from bract_client.auditor.sight import open_sight
from bract_client.cli.ask import As, Why, reader
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.export.receipt import write_receipt
from bract_client.home import open_home
from bract_client.site import open_registry

app = typer.Typer(help="Documents for others.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def receipt(
    subject_id: Annotated[
        str,
        typer.Argument(
            help="The person's identifier as in your own records; it stands in the receipt and is not stored."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="The file to write for the person; its manifest is written beside it.")],
    known: Annotated[
        str | None, typer.Option("--as-of", help="As it was known then, an ISO 8601 time with its zone.")
    ] = None,
    why: Why = "not stated",
    role: As = Role.SITE,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Write a person's decisions as an ISO/IEC TS 27560 receipt for that person; the reading is recorded."""
    home, at = open_home(site), now()
    known_at = None if known is None else utc(known)
    registry, sight = open_registry(home), open_sight(home)
    manifest = write_receipt(registry, sight, home.signing_key(), subject_id, out, reader(role, why), at, known_at)
    if as_json:
        console.emit(plain(manifest) | {"file": str(out), "manifest": str(manifest_path(out))})
        return
    console.out.print(f"{out} is for that person; delete it once it is handed over.", soft_wrap=True, markup=False)


@app.command("verify")
def verify_export(
    manifest: Annotated[Path, typer.Argument(help="The manifest, NAME.manifest.json.")],
    key: Annotated[Path | None, typer.Option(help="The signer's public key, a PEM file; else this site's.")] = None,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Check an export's signature and that its files are unchanged; status 1 names the first that differs."""
    signer = open_home(site).signing_key().public_key() if key is None else public_key(key)
    told = verify(manifest, signer)
    if as_json:
        console.emit(plain(told) | {"verified": True})
        return
    console.out.print(f"{told.about.export} of {told.about.made_by}: {len(told.files)} files are as they were signed.")
