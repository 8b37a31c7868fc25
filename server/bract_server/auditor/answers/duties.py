"""Questions 4, 9 and 10 at the hub: what is still to be done, and what was done against the rules."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from bract.disposal import telling
from bract.question import Draft, Moment, stamp
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry.models import NoticeRow
from bract_server.registry.views import Impact, Notice

SERVICE_LEVEL = timedelta(hours=72)
"""From the time that a notice carries until the hub has it; sites tell withdrawals in batches, at least this often."""


def due(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 4: due by the asked time, which may lie ahead. Takes nothing."""
    rows = tuple(telling.row(item) for item in sight.due(when.valid, when.known))
    notes = ["Files are as the last stock-taking found them. Records are at the sites: `bract-site audit ask 4`."]
    if not sight.retention_policies():
        notes.append("No retention policy is registered here.")
    elif not rows:
        notes.append("Nothing is due by then.")
    return Draft(telling.COLUMNS, rows, tuple(notes))


def withdrawals_open(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 9. Takes nothing."""
    columns = ("site", "notice", "noticed_at", "received_at", "took_hours", "breach", "age_days")
    rows, seen = [], 0
    impacts = () if sight.site_asking is not None else sight.impacts_all()
    with sight.known(when.known) as session:
        named = {(row.site, row.notice): row.digest for row in session.scalars(select(NoticeRow))}
    for notice in sight.withdrawals():
        if notice.received_at > when.known or notice.site != (sight.site_asking or notice.site):
            continue
        seen += 1
        touched = [one for one in impacts if (one.site, one.notice) == (notice.site, notice.notice)]
        told = _open(notice, touched, when)
        if told is not None:
            rows.append(told | {"entry": ("withdrawal.take", named[notice.site, notice.notice])})
    notes = [f"{seen} notices had come by then; {seen - len(rows)} are through: told in time, and decided on."]
    if sight.site_asking is not None:
        notes.append("What was decided about models is not a site's to see: only delays are told.")
    notes.append("Withdrawals that a site has not told yet, it alone knows: `bract-site audit ask 9`.")
    return Draft((*columns, "touched", "undecided", "overdue", "next_due", "entry"), tuple(rows), tuple(notes))


def _open(notice: Notice, touched: list[Impact], when: Moment) -> dict[str, Any] | None:
    """The row of a notice that came too late or has something undecided; None for any other."""
    listed = [one for one in touched if one.recorded_at <= when.known and one.options]
    waiting = [one for one in listed if not _decided(one, when)]
    overdue = [one for one in waiting if one.due_at is not None and one.due_at <= when.valid]
    took = notice.received_at - notice.noticed_at
    breach = took > SERVICE_LEVEL
    if not waiting and not breach:
        return None
    return {
        "site": notice.site,
        "notice": notice.notice,
        "noticed_at": stamp(notice.noticed_at),
        "received_at": stamp(notice.received_at),
        "took_hours": round(took.total_seconds() / 3600, 2),
        "breach": breach,
        "age_days": max(0, (when.valid - notice.noticed_at).days),
        "touched": len(listed),
        "undecided": [one.ref for one in waiting],
        "overdue": len(overdue),
        "next_due": stamp(min((one.due_at for one in waiting if one.due_at is not None), default=None)),
    }


def _decided(impact: Impact, when: Moment) -> bool:
    return any(one.received_at <= when.known for one in impact.decisions)


def against_the_rules(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 10. Takes nothing."""
    rows: list[dict[str, Any]] = []
    approvals = [one for one in sight.approvals() if one.received_at <= when.known]
    for one in approvals:
        if one.by == one.author:
            what = {"what": "approved by the author", "about": one.release, "criterion": "approvals"}
            rows.append(
                what | {"by": one.by, "roles": list(one.roles), "reason": one.reason, "at": stamp(one.received_at)}
            )
    overrides = [one for one in sight.overrides() if one.at <= when.known]
    authors = {str(one.digest): one.author for one in sight.releases()}
    for override in overrides:
        own = override.by == authors.get(str(override.about))
        what = {
            "what": "overridden by the author" if own else "overridden",
            "about": override.about,
            "criterion": str(override.criterion),
        }
        told = {"by": override.by, "roles": [str(r) for r in override.roles], "reason": override.reason}
        rows.append(what | told | {"at": stamp(override.at), "entry": ("*", override.digest)})
    notes = [f"{len(approvals)} approvals and {len(overrides)} overrides were recorded by then."]
    notes.append(
        "The schema itself refuses an approval by the author, so the first kind of row would mean a forged table."
    )
    if not rows:
        notes.append("None is by the author, and no gate was overridden.")
    return Draft(("what", "about", "criterion", "by", "roles", "reason", "at", "entry"), tuple(rows), tuple(notes))
