"""Questions 3 and 14 at the hub: the log, and who read."""

from sqlalchemy import select

from bract.question import Draft, Moment, stamp
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry.models import AccessRow


def log_not_rewritten(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 3. Takes `checkpoint`, one that was kept elsewhere.

    Raises:
        BractError: `log-inconsistent`, naming the first bad entry: then the answer is no.
    """
    point = arguments.checkpoint
    report = sight.whole().verify_log(point)
    rows = [{"checked": "the whole log", "size": report.entries, "root": report.root, "holds": True}]
    notes = [
        "Recomputed from the rows as they are now, not as of an earlier time.",
        "That something was never logged, no log can show.",
    ]
    if point is None:
        notes.append(
            "No earlier checkpoint was given: a log cut back whole, with its checkpoints, would not be noticed."
        )
    else:
        told = f"it continues the checkpoint of {point.size} entries that was given"
        rows.append({"checked": told, "size": point.size, "root": point.root, "holds": True})
    forks = sight.forks() if sight.site_asking is None else ()
    for fork in forks:
        rows.append(
            {
                "checked": f"the log of {fork.origin}, as its site showed it",
                "size": None,
                "root": None,
                "holds": fork.accepted_by is not None,
            }
        )
    return Draft(("checked", "size", "root", "holds"), tuple(rows), tuple(notes))


def readings(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 14. Takes nothing."""
    columns = ("at", "principal", "role", "asked", "purpose", "about_persons", "entry")
    with sight.known(when.known) as session:
        rows = tuple(
            {
                "at": stamp(row.at),
                "principal": row.principal,
                "role": row.role,
                "asked": row.asked,
                "purpose": row.purpose,
                "about_persons": row.about_persons,
                "entry": None,
                "arguments": row.arguments,
            }
            for row in session.scalars(select(AccessRow).order_by(AccessRow.id))
        )
    notes = ["The hub holds no person; who read about persons at a site, the site tells: `bract-site audit ask 14`."]
    if not rows:
        notes.append("No reading is recorded.")
    return Draft(columns, rows, tuple(notes))
