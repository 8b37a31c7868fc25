"""A due list as rows of an answer."""

from typing import Any

from bract.disposal.due import DueItem
from bract.question import stamp
from bract.retention import Blocker

COLUMNS = ("due_at", "kind", "object", "scopes", "state", "action", "blocked_by", "attempts", "policies")


def row(item: DueItem) -> dict[str, Any]:
    """One line of a due list as plain data."""
    return {
        "due_at": stamp(item.due_at),
        "kind": str(item.kind),
        "object": item.object,
        "scopes": list(item.scopes),
        "state": str(item.state),
        "action": str(item.action),
        "blocked_by": [blocker(one) for one in item.blockers],
        "attempts": item.attempts,
        "policies": [str(one) for one in item.policies],
        "code": item.code,
    }


def blocker(one: Blocker) -> str:
    """What stands in the way, in words."""
    until = "" if one.until is None else f" until {stamp(one.until)}"
    return f"{one.kind} {one.name}{until}".strip()
