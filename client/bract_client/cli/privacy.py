"""`bract-site ledger`, `receipts` and `log`: what was spent, what the hub confirmed, and the proof of both."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.privacy.accounting import epsilon, epsilon_prv, epsilon_rdp
from bract.receipt import RoundReceipt
from bract.value import decode, plain
from bract_client.cli.options import AsJson, SiteFolder
from bract_client.home import open_home
from bract_client.site import open_registry

log = typer.Typer(help="The site's tamper-evident log.", no_args_is_help=True, rich_markup_mode=None)


def ledger(
    cross_check: Annotated[
        bool, typer.Option("--cross-check", help="Also by Opacus' PRV and RDP accountants.")
    ] = False,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Privacy spent on each data set against its cap; every reservation counts, whatever came of it."""
    accountants = {"epsilon": epsilon} | (
        {"epsilon_prv": epsilon_prv, "epsilon_rdp": epsilon_rdp} if cross_check else {}
    )
    rows: list[dict[str, Any]] = []
    for account in open_registry(open_home(site)).accounts():
        spent = account.spent
        rows.append(
            {
                "dataset": account.dataset,
                "unit": "subject",
                "adjacency": "add-or-remove-one",
                "delta": account.delta,
                **{name: round(cost(spent, account.delta), 4) for name, cost in accountants.items()},
                "epsilon_cap": account.cap_epsilon,
                "rounds": len(spent),
            }
        )
    if as_json:
        console.emit(rows)
        return
    names = {"epsilon": "ε (PLD)", "epsilon_prv": "ε (PRV)", "epsilon_rdp": "ε (RDP)"}
    columns = ("data set", "rounds", *(names[name] for name in accountants), "cap", "δ")
    cells = [
        (r["dataset"], r["rounds"], *(f"{r[name]:.3f}" for name in accountants), r["epsilon_cap"], f"{r['delta']:g}")
        for r in rows
    ]
    console.out.print(console.table("privacy spent (unit: subject; add or remove one)", columns, cells))


def receipts(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """The hub's signed receipts: which contribution is in which encoder version, at which share."""
    kept = [decode(RoundReceipt, envelope.payload) for envelope in open_registry(open_home(site)).receipts()]
    if as_json:
        console.emit([plain(receipt) for receipt in kept])
        return
    rows = [(r.contribution[:19], r.version[:19], f"{r.share:.3f}", str(r.issued_at)[:19]) for r in kept]
    console.out.print(console.table("receipts", ("contribution", "version", "share", "issued"), rows))


@log.command()
def verify(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Recompute the whole log, and everything that is derived from events. Status 1 at the first that differs."""
    registry = open_registry(open_home(site))
    report = registry.verify_log()
    registry.check()
    if as_json:
        console.emit({"entries": report.entries, "root": report.root, "verified": report.verified})
        return
    console.out.print(f"{report.entries} entries verify; root {report.root}")
