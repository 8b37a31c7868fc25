"""`bract-site ledger` and `receipts`: what was spent, and what the hub confirmed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.files import write_atomic
from bract.privacy.accounting import epsilon, epsilon_prv, epsilon_rdp, rounded_up, shown
from bract.privacy.events import dp_event
from bract.privacy.spec import Mechanism
from bract.receipt import RoundReceipt
from bract.value import decode, plain
from bract_client.audits import audit_bound
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import SiteHome, open_home
from bract_client.site import open_registry

CrossCheck = Annotated[bool, typer.Option("--cross-check", help="Also by Opacus' PRV and RDP accountants.")]

Export = Annotated[
    Path | None, typer.Option("--export", help="Write the signed ledger to this file instead, for the hub to compare.")
]

Accountant = Callable[[Iterable[Mechanism], float], float]

EPSILONS = {"epsilon": "ε (PLD)", "epsilon_prv": "ε (PRV)", "epsilon_rdp": "ε (RDP)"}


AUDIT = "ε by audit at least"


def accountants(cross_check: bool) -> dict[str, Accountant]:
    """Who computes an ε, by the name of the field that it goes into; `epsilon` is the one that counts."""
    reported: dict[str, Accountant] = {"epsilon": epsilon}
    others: dict[str, Accountant] = {"epsilon_prv": epsilon_prv, "epsilon_rdp": epsilon_rdp}
    return reported | others if cross_check else reported


def audit_fields(home: SiteHome, mechanisms: Sequence[Mechanism], delta: float) -> dict[str, float | None]:
    """What an audit on this machine found for these mechanisms: a lower bound on their ε, and its confidence."""
    found = audit_bound(home, *mechanisms, delta=delta)
    bound, confidence = (None, None) if found is None else (found.lower_bound, found.confidence)
    return {"audit_lower_bound": bound, "audit_confidence": confidence}


def audit_cell(fields: Mapping[str, Any]) -> str:
    """The same for people."""
    bound = fields["audit_lower_bound"]
    return "no audit" if bound is None else f"{bound:.3f} ({fields['audit_confidence']:.0%})"


def ledger(
    cross_check: CrossCheck = False, export: Export = None, site: SiteFolder = Path(), as_json: AsJson = False
) -> None:
    """Privacy spent on each data set against its cap; all counts, but what was given back before it was begun."""
    home = open_home(site)
    if export is not None:
        _export(home, export, as_json)
        return
    asked = accountants(cross_check)
    rows: list[dict[str, Any]] = []
    registry = open_registry(home)
    foreseeable = registry.foreseeable()
    for account in registry.accounts():
        spent = account.spent
        rows.append(
            {
                "dataset": account.dataset,
                "unit": "subject",
                "adjacency": "add-or-remove-one",
                "delta": account.delta,
                **{name: rounded_up(cost(spent, account.delta)) for name, cost in asked.items()},
                **audit_fields(home, spent, account.delta),
                "epsilon_cap": account.cap_epsilon,
                "rounds": len(spent),
                "guaranteed": account.dataset not in foreseeable,
                "events": [dp_event(mechanism) for mechanism in spent],
            }
        )
    if as_json:
        console.emit(rows)
        return
    columns = ("data set", "rounds", *(EPSILONS[name] for name in asked), AUDIT, "cap", "δ")
    cells = [
        (
            r["dataset"],
            r["rounds"],
            *(shown(r[name]) if r["guaranteed"] else "No DP guarantee" for name in asked),
            audit_cell(r),
            r["epsilon_cap"],
            f"{r['delta']:g}",
        )
        for r in rows
    ]
    console.out.print(console.table("privacy spent (unit: subject; add or remove one)", columns, cells))


def _export(home: SiteHome, path: Path, as_json: bool) -> None:
    """The signed ledger, one envelope a line, for `bract ledger reconcile` at the hub."""
    parts = open_registry(home).ledger_export(now())
    write_atomic(path, b"".join(part.to_json() + b"\n" for part in parts))
    if as_json:
        console.emit({"export": str(path), "parts": len(parts)})
        return
    console.out.print(f"Export: {path}\nAt the hub: bract ledger reconcile --site {path}", soft_wrap=True)


def receipts(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """The hub's signed receipts: which contribution is in which encoder version, at which share."""
    kept = [decode(RoundReceipt, envelope.payload) for envelope in open_registry(open_home(site)).receipts()]
    if as_json:
        console.emit([plain(receipt) for receipt in kept])
        return
    rows = [(r.contribution[:19], r.version[:19], f"{r.share:.3f}", str(r.issued_at)[:19]) for r in kept]
    console.out.print(console.table("receipts", ("contribution", "version", "share", "issued"), rows))
