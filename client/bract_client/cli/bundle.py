"""`bract-site audit`: the site's log as one file for an auditor, and an auditor's word on it."""

from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.errors import NOT_ENROLLED, BractError
from bract.log import archive
from bract.signing import key_id, verify_key
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import open_home
from bract_client.site import open_registry

app = typer.Typer(
    help="What an auditor verifies without trusting the site.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="A new .zip file.")],
    counts: Annotated[
        bool, typer.Option("--counts", help="Also bodies that count people, records or decisions.")
    ] = False,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the log with everything signed that it tells of into one file; nothing in it is about one person."""
    home = open_home(site)
    registry = open_registry(home)
    registry.checkpoint(now())
    try:
        hub = verify_key(home.bundle().hub_key)
    except BractError as error:
        if error.code != NOT_ENROLLED:
            raise
        hub = None
    archive.write(out, registry.bundle(hub, counts=counts))
    fingerprint = key_id(registry.verify_key)
    if as_json:
        console.emit({"bundle": str(out), "fingerprint": fingerprint})
        return
    console.out.print(f"{out}\nAnywhere: bract audit verify {out} --key {fingerprint}", soft_wrap=True)


@app.command()
def cosign(
    path: Annotated[Path, typer.Argument(help="A checkpoint that a witness cosigned.", metavar="FILE")],
    witness_key: Annotated[str, typer.Option("--witness", help="The witness' verifier key, known by another channel.")],
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Keep an auditor's cosignature of this site's log."""
    new = open_registry(open_home(site)).take_cosignatures(path.read_bytes(), witness_key, now())
    if as_json:
        console.emit({"kept": new})
        return
    console.out.print("The cosignature is kept." if new else "It was kept before.")
