"""`bract-site retention`: policies, legal holds, what is due, and its disposal."""

from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.disposal import shown
from bract.retention import (
    Action,
    LegalHold,
    ObjectKind,
    RetentionPolicy,
    Selector,
    Trigger,
    Way,
)
from bract.value import decode
from bract_client import disposal
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import open_home
from bract_client.site import open_registry

app = typer.Typer(
    help="How long things are kept, and that they are gone afterwards.", no_args_is_help=True, rich_markup_mode=None
)
policy = typer.Typer(help="What must or may be kept, and how long.", no_args_is_help=True, rich_markup_mode=None)
hold = typer.Typer(
    help="Legal holds: nothing that they select is deleted.", no_args_is_help=True, rich_markup_mode=None
)
conflict = typer.Typer(help="What only a person can decide.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(policy, name="policy")
app.add_typer(hold, name="hold")
app.add_typer(conflict, name="conflict")

Person = Annotated[str, typer.Option("--by", help="Your name; it is kept with what you do.")]
Scope = Annotated[
    str, typer.Option("--to", help="A data set or a record's number; without it, all of the policy's kind.")
]


@app.command()
def due(
    by: Annotated[str, typer.Option(help="Until which day; without it, now.")] = "",
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """What is due for deletion, or for a person to look at, and what blocks it; nobody is named."""
    home = open_home(site)
    registry, at = open_registry(home), now()
    disposal.take_stock(home, registry, at)
    shown.show_due(registry.due(shown.moment(by) if by else at, at), as_json)


@app.command()
def dispose(
    by: Annotated[str, typer.Option("--by", help="Your name; it stands in the receipts.")],
    dry_run: Annotated[bool, typer.Option(help="Only show what would be deleted.")] = False,
    delete_sources: Annotated[
        bool, typer.Option(help="Delete the records from their source's own files, too.")
    ] = False,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Delete what is due and nothing blocks, look for it again, and keep a signed receipt; status 1 if anything failed."""
    home = open_home(site)
    registry = open_registry(home)
    if dry_run:
        disposal.take_stock(home, registry, now())
        shown.show_due([one for one in registry.due(now(), now()) if one.ready], as_json)
        return
    report = disposal.dispose(home, registry, now, ordered_by=by, sources=delete_sources)
    shown.show_run(report, as_json)
    raise typer.Exit(0 if report.well else 1)


@app.command()
def receipts(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Everything that was disposed of: how, by whom, and what remains."""
    shown.show_receipts(open_registry(open_home(site)).disposals(), as_json)


@app.command()
def event(
    trigger: Annotated[Trigger, typer.Argument(help="What came.")],
    by: Person,
    at: Annotated[str, typer.Option(help="When it came; without it, now.")] = "",
    scope: Annotated[str, typer.Option("--of", help="A data set or a record's number; without it, everything.")] = "",
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Tell when something came that periods are counted from and that nobody else tells, such as a study's end."""
    came_at = shown.moment(at) if at else now()
    open_registry(open_home(site)).tell_event(trigger, scope, came_at, by, now())
    if as_json:
        console.emit({"trigger": trigger.value, "scope": scope, "came_at": came_at.isoformat()})
        return
    console.out.print(f"Noted: {trigger} at {came_at:%Y-%m-%d %H:%M}")


@policy.command()
def add(
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    on: Annotated[ObjectKind, typer.Option(help="The kind of objects that it is about.")],
    since: Annotated[Trigger, typer.Option("--from", help="What its periods are counted from.")],
    basis: Annotated[str, typer.Option(help="The legal basis, in words or by article.")],
    approved_by: Annotated[str, typer.Option(help="Who approved it.")],
    floor: Annotated[str | None, typer.Option(help="Keep at least so long: P10Y, P1Y6M, P90D …")] = None,
    ceiling: Annotated[str | None, typer.Option(help="Keep at most so long.")] = None,
    action: Annotated[Action, typer.Option(help="What is due at the ceiling.")] = Action.DELETE,
    version: Annotated[int, typer.Option(help="One more than the version before.")] = 1,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Add a policy, or the next version of one; it counts for nothing before it is bound."""
    value = {
        "name": name,
        "version": version,
        "applies_to": on.value,
        "legal_basis": basis,
        "trigger": since.value,
        "floor": floor,
        "ceiling": ceiling,
        "action": action.value,
        "approved_by": approved_by,
    }
    digest = open_registry(open_home(site)).add_policy(decode(RetentionPolicy, value), now())
    if as_json:
        console.emit({"policy": digest})
        return
    console.out.print(f"Policy {name}, version {version}: {digest}")


@policy.command("list")
def list_policies(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Every version of every policy, and what it is bound to."""
    registry = open_registry(open_home(site))
    shown.show_policies(registry.retention_policies(), registry.retention_bindings(), as_json)


@policy.command()
def bind(name: str, by: Person, to: Scope = "", site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Apply a policy: to a scope, or to everything of its kind."""
    open_registry(open_home(site)).bind_policy(name, to, by, now())
    if as_json:
        console.emit({"policy": name, "scope": to})
        return
    console.out.print(f"Policy {name} now applies to {to or 'everything of its kind'}.")


@policy.command()
def unbind(name: str, by: Person, to: Scope = "", site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """End a binding; what was disposed of under it stays so."""
    open_registry(open_home(site)).unbind_policy(name, to, by, now())
    if as_json:
        console.emit({"policy": name, "scope": to})
        return
    console.out.print(f"Policy {name} no longer applies to {to or 'everything of its kind'}.")


@hold.command()
def place(
    name: Annotated[str, typer.Argument(help="The hold's name, used once.")],
    matter: Annotated[str, typer.Option(help="The proceeding; name no person.")],
    by: Person,
    approved_by: Annotated[str, typer.Option(help="Who approved it: somebody else.")],
    on: Annotated[list[ObjectKind] | None, typer.Option(help="Kinds of objects; without it, all.")] = None,
    of: Annotated[list[str] | None, typer.Option(help="Data sets or campaigns; without it, all.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Single objects; without it, all.")] = None,
    subject: Annotated[
        list[str] | None, typer.Option(help="All of a person's records: their identifier, which is not stored.")
    ] = None,
    until: Annotated[str, typer.Option(help="When it ends by itself.")] = "",
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Forbid the deletion of whatever all given options select; it stays out of use all the same."""
    registry = open_registry(open_home(site))
    selector = Selector(
        tuple(on or ()),
        tuple(of or ()),
        tuple(only or ()),
        subjects=registry.subject_numbers(subject or []),
    )
    to_at = shown.moment(until) if until else None
    registry.place_hold(LegalHold(name, selector, matter, by, approved_by, now(), to_at), now)
    if as_json:
        console.emit({"hold": name})
        return
    console.out.print(f"Hold {name} is in force.")


@hold.command()
def lift(
    name: str,
    by: Person,
    approved_by: Annotated[str, typer.Option(help="Who approved it: somebody else.")],
    why: Annotated[str, typer.Option(help="Why it may end.")],
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """End a legal hold; what is over its time is deleted with the next run."""
    open_registry(open_home(site)).lift_hold(name, by, approved_by, why, now())
    if as_json:
        console.emit({"hold": name})
        return
    console.out.print(f"Hold {name} is lifted.")


@hold.command("list")
def list_holds(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Every legal hold."""
    shown.show_holds(open_registry(open_home(site)).legal_holds(), as_json)


@conflict.command("list")
def list_conflicts(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Where a law asks to keep what another asks to delete, or a person has to look."""
    home = open_home(site)
    registry, at = open_registry(home), now()
    disposal.take_stock(home, registry, at)
    shown.show_conflicts(registry.conflicts(at), as_json)


@conflict.command()
def decide(
    terms: Annotated[str, typer.Argument(help="As `conflict list` shows them, or their first characters.")],
    way: Annotated[Way, typer.Argument(help="Keep until the floor, or delete at the ceiling.")],
    by: Person,
    why: Annotated[str, typer.Option(help="Why; it is kept with the decision.")],
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Decide what code may not."""
    settled = open_registry(open_home(site)).decide_conflict(terms, way, by, why, now())
    if as_json:
        console.emit({"terms": settled.terms, "way": way.value})
        return
    console.out.print(f"Decided: {way}, for {settled.objects} objects.")
