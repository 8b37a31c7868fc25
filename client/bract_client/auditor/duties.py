"""Questions 3, 4, 9 and 14 at a site: its log, what is due, what the hub has not heard yet, and who read."""

from collections import Counter
from datetime import timedelta
from typing import Any

from sqlalchemy import or_, select

from bract.disposal import telling
from bract.question import Draft, Moment, stamp
from bract.retention import ObjectKind
from bract_client.auditor.sight import Arguments, SiteSight
from bract_client.registry.models import AccessRow, NoticeOutbox

SERVICE_LEVEL = timedelta(hours=72)
"""Within which a withdrawal is to be told to the hub, in a batch with others."""


def log_not_rewritten(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 3. Takes `checkpoint`.

    Raises:
        BractError: `log-inconsistent`, naming the first bad entry: then the answer is no.
    """
    point = arguments.checkpoint
    report = sight.verify_log(point)
    sight.check()
    rows: list[dict[str, Any]] = [
        {"checked": "the whole log", "size": report.entries, "root": report.root, "holds": True},
        {"checked": "consent events, derived state and accounts against it", "size": None, "root": None, "holds": True},
    ]
    notes = ["Recomputed from the rows as they are now. That something was never logged, no log can show."]
    if point is None:
        notes.append(
            "No earlier checkpoint was given: a log cut back whole, with its checkpoints, would not be noticed."
        )
    else:
        told = f"it continues the checkpoint of {point.size} entries that was given"
        rows.append({"checked": told, "size": point.size, "root": point.root, "holds": True})
    return Draft(("checked", "size", "root", "holds"), tuple(rows), tuple(notes))


def due(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 4: due by the asked time, which may lie ahead. Takes `listed`: records one by one."""
    items = sight.due(when.valid, when.known)
    files = [telling.row(item) for item in items if item.kind is not ObjectKind.RECORD or arguments.listed]
    groups: Counter[tuple[Any, ...]] = Counter()
    first: dict[tuple[Any, ...], str | None] = {}
    if not arguments.listed:
        for item in items:
            if item.kind is ObjectKind.RECORD:
                told = telling.row(item)
                key = (
                    tuple(told["scopes"]),
                    told["state"],
                    told["action"],
                    tuple(told["blocked_by"]),
                    tuple(told["policies"]),
                )
                groups[key] += 1
                first.setdefault(key, told["due_at"])
    records = [
        {"due_at": first[key], "kind": "record", "object": f"{count} records", "scopes": list(key[0]), "state": key[1]}
        | {"action": key[2], "blocked_by": list(key[3]), "policies": list(key[4]), "attempts": 0, "code": None}
        for key, count in groups.items()
    ]
    rows = tuple(sorted([*records, *files], key=lambda row: (row["due_at"] or "", row["kind"], row["object"])))
    notes = [] if rows else ["Nothing is due by then."]
    if not sight.retention_policies() and not any(one.retention.ceiling_days for one in sight.datasets()):
        notes.append("No retention policy is registered, and no data set has an end.")
    return Draft(telling.COLUMNS, rows, tuple(notes))


def untold(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 9. Takes nothing."""
    columns = ("notice", "queued_at", "age_hours", "breach", "snapshots", "state")
    box = NoticeOutbox
    wanted = select(box).where(box.queued_at <= when.known, or_(box.sent_at.is_(None), box.sent_at > when.known))
    rows = []
    with sight.seeing() as session:
        for row in session.scalars(wanted.order_by(box.no)):
            age = when.valid - row.queued_at
            rows.append(
                {
                    "notice": row.notice,
                    "queued_at": stamp(row.queued_at),
                    "age_hours": round(age.total_seconds() / 3600, 2),
                    "breach": age > SERVICE_LEVEL,
                    "snapshots": len(row.snapshots),
                    "state": "queued" if row.notice is None else "on its way",
                }
            )
    notes = ["When each was queued stays here: the hub hears batches on a public grid of times."]
    if not rows:
        notes.append("No withdrawal waits to be told.")
    return Draft(columns, tuple(rows), tuple(notes))


def readings(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 14. Takes `person`, and `listed`: of whom, by number."""
    columns = ("at", "principal", "role", "asked", "purpose", "one_person")
    with sight.seeing() as session:
        wanted = select(AccessRow).where(AccessRow.at <= when.known).order_by(AccessRow.seq)
        if arguments.person is not None:
            wanted = wanted.where(AccessRow.subject_no == sight.person(session, arguments.person))
        rows = [_reading(row, arguments.listed) for row in session.scalars(wanted)]
    notes = ["Through bract's own commands; whoever opens the database by other means is not seen here."]
    if not rows:
        notes.append("No reading is recorded.")
    return Draft((*columns, "subject_no") if arguments.listed else columns, tuple(rows), tuple(notes))


def _reading(row: AccessRow, listed: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": stamp(row.at),
        "principal": row.principal,
        "role": row.role,
        "asked": row.asked,
        "purpose": row.purpose,
        "one_person": row.subject_no is not None,
    }
    return told | {"subject_no": row.subject_no} if listed else told
