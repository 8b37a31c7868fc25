"""`bract-site subject`: what a person may ask of the site. Identifiers are typed here and kept nowhere."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.consent import Decision, Purpose
from bract.privacy.accounting import rounded_up, shown, shown_left
from bract.privacy.events import dp_event
from bract.roles import Role, Verb, check
from bract_client.auditor.report import report as whole
from bract_client.auditor.sight import open_sight
from bract_client.cli.ask import As, Why, reader
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.cli.privacy import AUDIT, EPSILONS, CrossCheck, accountants, audit_cell, audit_fields
from bract_client.home import open_home
from bract_client.registry.questions import Part, spend
from bract_client.registry.store import SiteRegistry
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
    why: Why = "not stated",
    role: As = Role.SITE,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """In which rounds a record of this person was in the cleared snapshot, and the ε of all of them together.

    A round counts as it was reserved, whatever came of it; all data sets and campaigns of the site are composed.
    """
    home = open_home(site)
    registry = open_registry(home)
    _record(registry, "subject rounds", subject_id, role, why)
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
    figures = (*(shown(cost) for cost in costs.values()), audit_cell(audit))
    cells = (*figures, len(spent.mechanisms), spent.cap_epsilon, shown_left(left))
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
def history(
    subject_id: SubjectId,
    why: Why = "not stated",
    role: As = Role.SITE,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Everything this person decided, as it was recorded. The reading itself is recorded."""
    registry = open_registry(open_home(site))
    _record(registry, "subject history", subject_id, role, why)
    events = registry.history(subject_id)
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


@app.command()
def report(
    person: Annotated[str, typer.Argument(help="The person's identifier, or the handle in hexadecimal; not stored.")],
    why: Why = "not stated",
    role: As = Role.SITE,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Everything that the site holds of one person: decisions, rounds, models, ε, what remains, what was deleted."""
    home, at = open_home(site), now()
    registry = open_registry(home)
    _record(registry, "subject report", person, role, why)
    registry.checkpoint(at)  # so that whatever is cited is covered
    told = whole(open_sight(home), person, at)
    if as_json:
        console.emit(told)
        return
    _show_report(told)


def _record(registry: SiteRegistry, asked: str, person: str, role: Role, why: str) -> None:
    """Nothing of a person is read before the reading is on record."""
    check(role, Verb.PERSON, at_site=True)
    registry.accessed(reader(role, why), asked, now(), person)


def _show_report(told: dict[str, Any]) -> None:
    out = console.out
    consents = [(c["dataset"], c["purpose"], c["verdict"], (c["until"] or "")[:19]) for c in told["consents"]["now"]]
    out.print(console.table("consent now", ("data set", "purpose", "verdict", "until"), consents))
    out.print(f"{len(told['consents']['history'])} decisions are recorded (`bract-site subject history`).")
    rounds = [
        (r["campaign"][:19], r["number"], r["state"], (r["version"] or "")[:19]) for r in told["rounds"] if r["held"]
    ]
    out.print(console.table("rounds that held this person", ("campaign", "round", "privacy", "version"), rounds))
    spent = told["privacy"]
    if spent["delta"] is None:
        out.print("No privacy was spent on this person.")
    else:
        left = f"{spent['epsilon_left']} left of {spent['epsilon_cap']}"
        out.print(
            f"ε = {spent['epsilon']} at δ = {spent['delta']:g} over {spent['rounds']} rounds; {left}", soft_wrap=True
        )
    data = [(d["dataset"], d["records"], d["closed"]) for d in told["data"]]
    out.print(console.table("records here", ("data set", "in use", "closed"), data))
    for one in told["deleted"]:
        out.print(f"deleted: {one['records']} records of {one['dataset']}: {one['what']}", soft_wrap=True)
    for line in told["remains"]:
        out.print(f"remains: {line}", soft_wrap=True)
    proof = told["proof"]
    out.print(f"log {proof['log']}: {proof['size']} entries, root {proof['root']}", soft_wrap=True)
