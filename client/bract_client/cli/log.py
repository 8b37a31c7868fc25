"""`bract-site log`: recompute it, show its head, erase a body, and lift a fork."""

from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.errors import LOG_FORKED, BractError
from bract.log.note import SIGNED, vkey
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import open_home
from bract_client.site import open_registry

app = typer.Typer(help="The site's tamper-evident log.", no_args_is_help=True, rich_markup_mode=None)

Person = Annotated[str, typer.Option("--by", help="Who decides this; it stands in the log.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the log and names no data subject.")]


@app.command()
def verify(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Recompute the whole log, and everything that is derived from events. Status 1 at the first that differs."""
    registry = open_registry(open_home(site))
    report = registry.verify_log()
    registry.check()
    forks = [fork for fork in registry.forks() if fork.accepted_by is None]
    if as_json:
        told = {"entries": report.entries, "root": report.root, "verified": report.verified}
        console.emit({**told, "forks": [{"log": f.origin, "size": f.size, "cause": f.cause} for f in forks]})
    else:
        console.out.print(f"{report.entries} entries verify; root {report.root}")
    if forks:
        raise BractError(LOG_FORKED, "; ".join(fork.cause for fork in forks))


@app.command()
def checkpoint(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Sign the log as it stands and show its head as a C2SP note with its cosignatures."""
    registry = open_registry(open_home(site))
    registry.checkpoint(now())
    note, key = registry.note().decode(), vkey(registry.site, SIGNED, registry.verify_key)
    if as_json:
        console.emit({"note": note, "key": key})
        return
    console.out.print(note, end="", soft_wrap=True)


@app.command("accept-fork")
def accept_fork(person: Person, reason: Reason, site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Take the new history for the right one: this site may take part again. Of a fork of its own log, the hub first."""
    open_registry(open_home(site)).accept_fork(person, reason, now())
    if as_json:
        console.emit({"accepted": True})
        return
    console.out.print("The fork is lifted, and the log says by whom.")


@app.command()
def erase(
    seq: Annotated[int, typer.Argument(help="The number of the entry.")],
    person: Person,
    reason: Reason,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Delete an entry's body for good; the entry, the tree and every proof stay, and a new entry says who and why."""
    told = open_registry(open_home(site)).erase_body(seq, person, reason, now())
    if as_json:
        console.emit({"erased": seq, "entry": told})
        return
    console.out.print(f"The body of entry {seq} is gone; entry {told} says so.")
