"""Retention as both command lines show it: plain data for scripts, tables for people."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, time
from typing import Any

from bract import console
from bract.disposal.book import Binding, Placed
from bract.disposal.due import Conflict, DueItem
from bract.disposal.tasks import Disposal
from bract.disposal.verbs import RunReport
from bract.errors import MALFORMED, BractError
from bract.retention import RetentionPolicy
from bract.value import plain, utc

_SHORT = 19


def moment(text: str) -> datetime:
    """A date (its end) or a time with a zone.

    Raises:
        BractError: `malformed`.
    """
    if len(text) == len("2026-01-01"):
        try:
            day = datetime.fromisoformat(text).date()
        except ValueError as error:
            raise BractError(MALFORMED, "not a date: write 2026-12-31, or a time with a zone") from error
        return datetime.combine(day, time.max, UTC)
    return utc(text)


def show_due(items: Sequence[DueItem], as_json: bool) -> None:
    """A due list."""
    if as_json:
        console.emit([due_item(one) for one in items])
        return
    rows = [
        (one.kind, _brief(one.object), _briefs(one.scopes), str(one.due_at)[:_SHORT], one.action, one.state, _why(one))
        for one in items
    ]
    columns = ("kind", "object", "of", "due", "action", "state", "what blocks it")
    console.out.print(console.table("due", columns, rows))


def due_item(one: DueItem) -> dict[str, Any]:
    """A line of a due list as plain data."""
    return {
        **asdict(one),
        "scopes": list(one.scopes),
        "policies": list(one.policies),
        "due_at": one.due_at.isoformat(),
        "blockers": [
            {"kind": b.kind.value, "name": b.name, "until": b.until and b.until.isoformat()} for b in one.blockers
        ],
    }


def show_policies(
    policies: Iterable[tuple[RetentionPolicy, datetime]], bindings: Sequence[Binding], as_json: bool
) -> None:
    """Policies and to what they are bound."""
    policies = list(policies)
    if as_json:
        told = [{**plain(one), "added_at": added.isoformat()} for one, added in policies]
        bound = [
            {
                "policy": one.policy,
                "scope": one.scope,
                "bound_by": one.bound_by,
                "bound_at": one.bound_at.isoformat(),
                "ended_at": one.ended_at and one.ended_at.isoformat(),
            }
            for one in bindings
        ]
        console.emit({"policies": told, "bindings": bound})
        return
    rows = [
        (p.name, p.version, p.applies_to, p.trigger, p.floor or "-", p.ceiling or "-", p.action, p.legal_basis)
        for p, _ in policies
    ]
    columns = ("policy", "version", "on", "from", "keep at least", "keep at most", "then", "legal basis")
    console.out.print(console.table("policies", columns, rows))
    live = [(one.policy, _brief(one.scope) or "everything of its kind") for one in bindings if one.ended_at is None]
    console.out.print(console.table("bound", ("policy", "to"), live))


def show_holds(holds: Iterable[Placed], as_json: bool) -> None:
    """Legal holds."""
    holds = list(holds)
    if as_json:
        console.emit(
            [
                {
                    **plain(one.hold),
                    "placed_at": one.placed_at.isoformat(),
                    "lifted_at": one.lifted_at and one.lifted_at.isoformat(),
                    "lifted_by": one.lifted_by,
                }
                for one in holds
            ]
        )
        return
    rows = [
        (
            one.hold.name,
            one.hold.matter,
            one.hold.placed_by,
            one.hold.approved_by,
            str(one.hold.from_at)[:_SHORT],
            str(one.lifted_at or one.hold.to_at or "")[:_SHORT],
        )
        for one in holds
    ]
    columns = ("hold", "matter", "placed by", "approved by", "from", "to")
    console.out.print(console.table("legal holds", columns, rows))


def show_conflicts(conflicts: Iterable[Conflict], as_json: bool) -> None:
    """What a person has to settle."""
    conflicts = list(conflicts)
    if as_json:
        console.emit([{**asdict(one), "due_at": one.due_at.isoformat()} for one in conflicts])
        return
    rows = [
        (
            one.terms[:_SHORT],
            one.about.kind,
            _briefs(one.about.scopes),
            ", ".join(one.names),
            one.objects,
            str(one.due_at)[:_SHORT],
            one.decided or "open",
        )
        for one in conflicts
    ]
    columns = ("terms", "kind", "of", "policies", "objects", "from", "decided")
    console.out.print(console.table("for a person to decide", columns, rows))


def show_receipts(disposals: Iterable[Disposal], as_json: bool) -> None:
    """What was deleted."""
    disposals = list(disposals)
    if as_json:
        console.emit([{**plain(one.receipt), "name": one.name, "task": one.task} for one in disposals])
        return
    rows = [
        (str(r.at)[:_SHORT], r.kind, _brief(r.scope), r.method, r.ordered_by, ", ".join(r.remains), one.name[:_SHORT])
        for one in disposals
        for r in [one.receipt]
    ]
    columns = ("at", "kind", "of", "how", "ordered by", "what remains", "receipt")
    console.out.print(console.table("disposals", columns, rows))


def show_run(report: RunReport, as_json: bool) -> None:
    """What a run of the job did."""
    if as_json:
        console.emit({**asdict(report), "codes": list(report.codes)})
        return
    console.out.print(f"{report.deleted} deleted, {report.failed} failed, {report.blocked} due and kept by something")
    if report.codes:
        console.out.print(f"  not deleted: {', '.join(report.codes)}; tried again with every run")


def _why(one: DueItem) -> str:
    told = [f"{b.kind} {_brief(b.name)}" + (f" until {str(b.until)[:_SHORT]}" if b.until else "") for b in one.blockers]
    if one.attempts:
        told.append(f"failed {one.attempts} times: {one.code}" if one.code else f"{one.attempts} attempts")
    return "; ".join(told)


def _brief(name: str) -> str:
    return name[:_SHORT] if name.startswith("sha256:") else name


def _briefs(names: Iterable[str]) -> str:
    return ", ".join(_brief(name) for name in names)
