"""`bract-site registry`: recompute what is derived."""

from pathlib import Path

import typer

from bract import console
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import open_home
from bract_client.site import open_registry

app = typer.Typer(help="The registry's derived state.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def check(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Rebuild everything that is derived beside the registry and compare; nothing is changed."""
    open_registry(open_home(site)).check()
    if as_json:
        console.emit({"agrees": True})
        return
    console.out.print("Consent state, privacy accounts and the events that the log commits to all agree.")


@app.command()
def rebuild(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Derive the consent state again from the events."""
    open_registry(open_home(site)).rebuild(now())
    if as_json:
        console.emit({"rebuilt": True})
        return
    console.out.print("Rebuilt from the events.")
