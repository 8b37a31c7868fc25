"""`bract log`: recompute it, show its head, erase a body, and lift a fork of a site's log."""

from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.errors import LOG_FORKED, BractError
from bract.log.forks import Fork
from bract.log.note import SIGNED, vkey
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry

app = typer.Typer(help="The tamper-evident log.", no_args_is_help=True, rich_markup_mode=None)

Person = Annotated[str, typer.Option("--by", help="Who decides this; it stands in the log.")]
Reason = Annotated[str, typer.Option(help="Why; it stands in the log and names no data subject.")]


@app.command()
def verify(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Recompute the whole log: numbering, commitments, tiles, signed checkpoints. Status 1 at the first bad entry."""
    registry = open_registry(open_home(hub))
    report = registry.verify_log()
    forks = [fork for fork in registry.forks() if fork.accepted_by is None]
    if as_json:
        told = {"entries": report.entries, "root": report.root, "verified": report.verified}
        console.emit({**told, "forks": [fork_fields(fork) for fork in forks]})
    else:
        console.out.print(f"{report.entries} entries verify; root {report.root}")
    if forks:
        raise BractError(LOG_FORKED, "; ".join(fork.cause for fork in forks))


@app.command()
def checkpoint(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Show the newest signed head as a C2SP note with its cosignatures: keep it, and later ask that the log continues it."""
    registry = open_registry(open_home(hub))
    note, key = registry.note().decode(), vkey(registry.origin, SIGNED, registry.verify_key)
    if as_json:
        console.emit({"note": note, "key": key})
        return
    console.out.print(note, end="", soft_wrap=True)


@app.command("accept-fork")
def accept_fork(
    site: Annotated[str, typer.Argument(help="Whose log.")],
    person: Person,
    reason: Reason,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Take a site's new history for the right one: it may take part again. Find out first what was lost at the site."""
    open_registry(open_home(hub)).accept_fork(site, person, reason, now())
    if as_json:
        console.emit({"site": site, "accepted": True})
        return
    console.out.print(
        f"The fork of {site} is lifted, and the log says by whom.\nNext, at the site: bract-site log accept-fork"
    )


@app.command()
def erase(
    seq: Annotated[int, typer.Argument(help="The number of the entry.")],
    person: Person,
    reason: Reason,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Delete an entry's body for good; the entry, the tree and every proof stay, and a new entry says who and why."""
    told = open_registry(open_home(hub)).erase_body(seq, person, reason, now())
    if as_json:
        console.emit({"erased": seq, "entry": told})
        return
    console.out.print(f"The body of entry {seq} is gone; entry {told} says so.")


def fork_fields(fork: Fork) -> dict[str, object]:
    """A fork for scripts."""
    return {
        "log": fork.origin,
        "size": fork.size,
        "root": fork.root,
        "cause": fork.cause,
        "at": fork.at.isoformat(),
        "accepted_by": fork.accepted_by,
        "reason": fork.reason,
    }
