"""`bract ledger`: what sites have spent by the hub's own accounts, and where their ledgers and the hub's differ."""

from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.digest import Digest
from bract.privacy.accounting import rounded_up, shown, shown_left
from bract.signing import verify_key
from bract.value import plain
from bract_server.accounts import ABORTED, Charge, LedgerAccount
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry
from bract_server.reconcile import UNDERSTATED, Difference, differences, read_export

app = typer.Typer(help="The hub's privacy accounts.", no_args_is_help=True, rich_markup_mode=None)

Exports = Annotated[
    list[Path] | None, typer.Option("--site", help="What `bract-site ledger --export` wrote; may be given again.")
]


@app.command("list")
def list_accounts(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Every account: what it cost, alone by year and together, its cap, and what is still open."""
    registry = open_registry(open_home(hub))
    accounts, seeded = registry.accounts(), {c.digest for c in registry.campaigns() if c.plan.seeded_test is not None}
    if as_json:
        console.emit([_told(account) | {"guaranteed": _guaranteed(account, seeded)} for account in accounts])
        return
    rows = [
        (
            account.site,
            account.dataset,
            shown(account.epsilon()) if _guaranteed(account, seeded) else "No DP guarantee",
            f"{account.delta:g}",
            f"{account.cap_epsilon:g}",
            shown_left(account.remaining()),
            len(account.open),
            " ".join(f"{y.year}: {shown(y.alone)} ({shown(y.cumulative)})" for y in account.years()),
        )
        for account in accounts
    ]
    columns = ("site", "data set", "ε (PLD)", "δ", "cap", "left (RDP)", "open", "by year: alone (until its end)")
    console.out.print(console.table("privacy accounts (unit: subject; add or remove one)", columns, rows))


@app.command()
def reconcile(site: Exports = None, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Print where sites' ledgers and the hub's differ, and where a site said less than the hub took; status 1 on any."""
    registry, at = open_registry(open_home(hub)), now()
    found = [
        Difference(UNDERSTATED, one.site, one.dataset, one.campaign, one.number, f"ε {one.at_hub}", f"ε {one.at_site}")
        for one in registry.understated()
    ]
    keys = {one.name: verify_key(one.verify_key) for one in registry.sites()}
    accounts = registry.accounts()
    for path in site or ():
        found += differences(accounts, read_export(path.read_bytes(), keys), at)
    if as_json:
        console.emit([asdict(one) for one in found])
    elif found:
        rows = [(d.kind, d.site, d.dataset, d.campaign[:19], d.number, d.at_hub, d.at_site) for d in found]
        columns = ("what", "site", "data set", "campaign", "round", "the hub says", "the site says")
        console.out.print(console.table("the ledgers differ", columns, rows))
    else:
        told = "its reservations' own words" if not site else f"{len(site)} export(s)"
        console.out.print(f"No difference: {len(accounts)} accounts against {told}.")
    raise typer.Exit(1 if found else 0)


def _guaranteed(account: LedgerAccount, seeded: Set[Digest]) -> bool:
    """Whether no seeded test, with its foreseeable noise, ran on the data set."""
    return not any(charge.campaign in seeded and charge.state != ABORTED for charge in account.charges)


def _told(account: LedgerAccount) -> dict[str, Any]:
    return {
        "site": account.site,
        "dataset": account.dataset,
        "unit": account.unit,
        "adjacency": "add-or-remove-one",
        "delta": account.delta,
        "epsilon": rounded_up(account.epsilon()),
        "epsilon_bound": account.bound(),
        "epsilon_cap": account.cap_epsilon,
        "remaining": account.remaining(),
        "open": [_charge(charge) for charge in account.open],
        "years": [
            {**asdict(year), "alone": rounded_up(year.alone), "cumulative": rounded_up(year.cumulative)}
            for year in account.years()
        ],
        "charges": [_charge(charge) for charge in account.charges],
    }


def _charge(charge: Charge) -> dict[str, Any]:
    return {
        "campaign": charge.campaign,
        "number": charge.number,
        "reservation": charge.reservation,
        "mechanism": plain(charge.mechanism),
        "state": charge.state,
        "reserved_at": charge.reserved_at.isoformat(),
        "expires_at": charge.expires_at.isoformat(),
        "ended_at": None if charge.ended_at is None else charge.ended_at.isoformat(),
        "spent": None if charge.spent is None else plain(charge.spent),
    }
