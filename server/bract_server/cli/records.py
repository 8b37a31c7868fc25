"""`bract withdrawal` and `bract log`: what an auditor asks first."""

from pathlib import Path
from typing import Any

import typer

from bract import console
from bract_server.cli.options import AsJson, HubFolder
from bract_server.home import open_home
from bract_server.hub import open_registry

withdrawals = typer.Typer(help="Withdrawals and the models they touch.", no_args_is_help=True, rich_markup_mode=None)
log = typer.Typer(help="The tamper-evident log.", no_args_is_help=True, rich_markup_mode=None)


@withdrawals.command("list")
def list_withdrawals(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Every notice of withdrawal, and every encoder version that descends from what it names."""
    registry = open_registry(open_home(hub))
    names = {c.digest: c.plan.name for c in registry.campaigns()}
    told: list[dict[str, Any]] = [
        {
            "notice": w.notice,
            "site": w.site,
            "noticed_at": w.noticed_at.isoformat(),
            "affected": [
                {"version": i.version, "campaign": names[i.campaign], "number": i.number, "effect": i.effect}
                for i in registry.impacts(w.notice)
            ],
        }
        for w in registry.withdrawals()
    ]
    if as_json:
        console.emit(told)
        return
    rows = [
        (w["noticed_at"][:19], w["site"], i["campaign"], i["number"], i["version"][:19], i["effect"])
        for w in told
        for i in w["affected"]
    ]
    console.out.print(
        console.table("affected encoder versions", ("noticed", "site", "campaign", "round", "version", "effect"), rows)
    )


@log.command()
def verify(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Recompute the whole log: numbering, commitments, signed checkpoints. Status 1 at the first bad entry."""
    report = open_registry(open_home(hub)).verify_log()
    if as_json:
        console.emit({"entries": report.entries, "root": report.root, "verified": report.verified})
        return
    console.out.print(f"{report.entries} entries verify; root {report.root}")
