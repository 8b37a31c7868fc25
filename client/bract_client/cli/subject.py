"""`bract-site subject`: what a person may ask of the site. Identifiers are typed here and kept nowhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.consent import Decision, Purpose
from bract.privacy.accounting import rounded_up
from bract.privacy.events import dp_event
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.cli.privacy import AUDIT, EPSILONS, CrossCheck, accountants, audit_cell, audit_fields
from bract_client.home import open_home
from bract_client.registry.questions import Part, spend
from bract_client.site import open_registry

app = typer.Typer(help="One person's decisions.", no_args_is_help=True, rich_markup_mode=None)

SubjectId = Annotated[str, typer.Argument(help="The person's identifier as in your own records; it is not stored.")]


@app.command()
def withdraw(subject_id: SubjectId, site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Withdraw all consent: at once here, from the next admission in every round, and as a notice to the hub."""
    snapshots = open_registry(open_home(site)).withdraw(subject_id, now())
    if as_json:
        console.emit({"snapshots": list(snapshots)})
        return
    console.out.print(f"Withdrawn. {len(snapshots)} earlier snapshots held a record of this person.")
    console.out.print(
        "What remains: encoders trained before are bounded by their (ε, δ); nothing was erased from them."
    )


@app.command()
def decide(
    subject_id: SubjectId,
    decision: Annotated[Decision, typer.Argument(help="What the person decided.")],
    purpose: Annotated[Purpose, typer.Option(help="About which purpose.")] = Purpose.PRETRAINING,
    dataset: Annotated[str | None, typer.Option(help="About one data set only.")] = None,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Record a decision."""
    left = open_registry(open_home(site)).decide(subject_id, purpose, decision, now(), dataset=dataset)
    if as_json:
        console.emit({"snapshots": list(left)})
        return
    console.out.print(f"Recorded: {decision} for {purpose}.")


@app.command()
def rounds(
    subject_id: SubjectId,
    cross_check: CrossCheck = False,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """In which rounds a record of this person was in the cleared snapshot, and the ε of all of them together.

    A round counts as it was reserved, whatever came of it; all data sets and campaigns of the site are composed.
    """
    home = open_home(site)
    registry = open_registry(home)
    parts = registry.parts(subject_id)
    spent = spend(parts, registry.accounts())
    delta = spent.delta
    audit = audit_fields(home, spent.mechanisms, 1.0 if delta is None else delta)
    costs = {
        name: 0.0 if delta is None else rounded_up(cost(spent.mechanisms, delta))
        for name, cost in accountants(cross_check).items()
    }
    left = None if spent.cap_epsilon is None else max(0.0, spent.cap_epsilon - costs["epsilon"])
    if as_json:
        told = {
            "unit": "subject",
            "adjacency": "add-or-remove-one",
            "delta": delta,
            **costs,
            **audit,
            "epsilon_cap": spent.cap_epsilon,
            "epsilon_left": left,
            "rounds": len(spent.mechanisms),
            "events": [dp_event(mechanism) for mechanism in spent.mechanisms],
        }
        console.emit({"rounds": [_part(part) for part in parts], "spent": told})
        return
    rows = [(p.campaign[:19], p.number, p.dataset, p.snapshot[:19], "in" if p.held else "out") for p in parts]
    columns = ("campaign", "round", "data set", "snapshot", "this person")
    console.out.print(console.table("rounds", columns, rows))
    if delta is None or left is None:
        console.out.print("No round held a record of this person: nothing is spent.")
        return
    names = (*(EPSILONS[name] for name in costs), AUDIT, "rounds", "least cap", "left", "δ")
    figures = (*(f"{cost:.3f}" for cost in costs.values()), audit_cell(audit))
    cells = (*figures, len(spent.mechanisms), spent.cap_epsilon, f"{left:.3f}")
    title = "this person's privacy (unit: subject; add or remove one)"
    console.out.print(console.table(title, names, [(*cells, f"{delta:g}")]))


def _part(part: Part) -> dict[str, Any]:
    return {
        "campaign": part.campaign,
        "number": part.number,
        "snapshot": part.snapshot,
        "held": part.held,
        "dataset": part.dataset,
        "event": None if part.reserved is None else dp_event(part.reserved),
    }


@app.command()
def history(subject_id: SubjectId, site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Everything this person decided, as it was recorded."""
    events = open_registry(open_home(site)).history(subject_id)
    if as_json:
        console.emit(
            [
                {
                    "purpose": str(e.event.purpose),
                    "decision": str(e.event.decision),
                    "valid_from": e.event.valid_from.isoformat(),
                    "valid_to": e.event.valid_to.isoformat() if e.event.valid_to else None,
                    "dataset": e.event.dataset,
                    "recorded_at": e.recorded_at.isoformat(),
                }
                for e in events
            ]
        )
        return
    rows = [
        (
            e.event.purpose,
            e.event.decision,
            str(e.event.valid_from)[:19],
            str(e.event.valid_to or "")[:19],
            e.event.dataset or "all",
        )
        for e in events
    ]
    console.out.print(console.table("decisions", ("purpose", "decision", "from", "to", "data set"), rows))
