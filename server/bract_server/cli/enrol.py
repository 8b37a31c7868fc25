"""`bract enrol`: sites that ask to be let in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.enrolment import grouped
from bract.files import write_atomic
from bract_server.cli.log import Person, Reason
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.enrol import approve as approve_request
from bract_server.home import open_home
from bract_server.hub import open_registry
from bract_server.registry.views import Site

app = typer.Typer(help="Let sites in, list them, shut them out.", no_args_is_help=True, rich_markup_mode=None)
quarantine = typer.Typer(
    help="Sites set apart because what they sent had to be refused again and again.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(quarantine, name="quarantine")


@app.command()
def approve(
    requests: Annotated[list[Path], typer.Argument(help="Files that `bract-site enrol-request` wrote.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Check sites' requests and answer each with its bundle of certificates, written beside it."""
    home = open_home(hub)
    registry, bundles = open_registry(home), list[str]()
    for request in requests:
        target = request.with_suffix(".bundle")
        write_atomic(target, approve_request(home, registry, request.read_bytes(), now()))
        bundles.append(str(target))
    if as_json:
        console.emit({"bundles": bundles, "fingerprint": home.fingerprint()})
        return
    for bundle in bundles:
        console.out.print(f"Bundle for the site: {bundle}", soft_wrap=True)
    console.out.print(f"Tell the site's steward, by another channel, this fingerprint:\n  {home.fingerprint()}")
    console.out.print(f"  {grouped(home.fingerprint())}", soft_wrap=True)


@app.command("list")
def list_sites(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """The sites that were let in."""
    sites = open_registry(open_home(hub)).sites()
    if as_json:
        console.emit(
            [
                {
                    "name": s.name,
                    "subjects_floor": s.subjects_floor,
                    "registered_at": s.registered_at.isoformat(),
                    "revoked_at": s.revoked_at.isoformat() if s.revoked_at else None,
                    "seen_at": s.seen_at.isoformat() if s.seen_at else None,
                    "quarantined_at": s.quarantined_at.isoformat() if s.quarantined_at else None,
                }
                for s in sites
            ]
        )
        return
    rows = [(s.name, f"≥ {s.subjects_floor}", _standing(s), _short(s.seen_at)) for s in sites]
    console.out.print(console.table("sites", ("site", "subjects (declared)", "state", "last seen"), rows))


@app.command()
def revoke(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Shut a site out: its certificate and its node are refused from now on."""
    open_registry(open_home(hub)).revoke_site(name, now())
    if as_json:
        console.emit({"revoked": name})
        return
    console.out.print(f"{name} is shut out.")


@quarantine.command("list")
def list_quarantines(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Every quarantine: why it began, and who lifted it and why."""
    found = open_registry(open_home(hub)).quarantines()
    if as_json:
        console.emit(
            [
                {
                    "site": one.site,
                    "codes": one.codes,
                    "began_at": one.began_at.isoformat(),
                    "lifted_at": one.lifted_at.isoformat() if one.lifted_at else None,
                    "lifted_by": one.lifted_by,
                    "reason": one.reason,
                }
                for one in found
            ]
        )
        return
    rows = [
        (one.site, _short(one.began_at), _refused(one.codes), one.lifted_by or "stands", one.reason or "")
        for one in found
    ]
    console.out.print(console.table("quarantine", ("site", "since", "refused", "lifted by", "reason"), rows))


@quarantine.command("lift")
def lift_quarantine(
    site: str, person: Person, reason: Reason, hub: HubFolder = Path(), as_json: AsJson = False
) -> None:
    """Let a site take part again. Find out first why it sent what it sent."""
    open_registry(open_home(hub)).lift_quarantine(site, person, reason, now())
    if as_json:
        console.emit({"site": site, "lifted": True})
        return
    console.out.print(f"{site} takes part again, and the log says by whom.")


def _refused(codes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} × {code}" for code, count in sorted(codes.items()))


def _standing(site: Site) -> str:
    if site.revoked_at:
        return "revoked"
    return "in quarantine" if site.quarantined_at else "approved"


def _short(at: object) -> str:
    return "never" if at is None else str(at)[:19]
