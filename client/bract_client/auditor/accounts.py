"""Questions 5 and 11 at a site: what privacy was spent, and what is processed for what, on which basis, how long."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.privacy.accounting import epsilon, rounded_up
from bract.privacy.budget import bound
from bract.privacy.spec import Mechanism
from bract.question import Draft, Moment, stamp
from bract.value import decode
from bract.vocabulary.purposes import ancestors
from bract_client.auditor.sight import Arguments, SiteSight
from bract_client.registry.models import (
    ClearanceRow,
    ConsentEventRow,
    PrivacyAccount,
    PrivacyEntry,
    Record,
    ReservationRow,
    SnapshotRow,
)


def spending(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 5. Takes nothing."""
    columns = ("dataset", "year", "rounds", "epsilon_alone", "epsilon_cumulative", "delta", "cap", "remaining")
    rows: list[dict[str, Any]] = []
    with sight.seeing() as session:
        taken = _reserved(session, when.known)
        for account in session.scalars(select(PrivacyAccount).order_by(PrivacyAccount.dataset)):
            mine = taken.get(account.dataset, [])
            for year in sorted({at.year for at, *_ in mine}):
                alone = [one for at, one, *_ in mine if at.year == year]
                so_far = [one for at, one, *_ in mine if at.year <= year]
                charged = rounded_up(bound(so_far, account.delta))
                rows.append(
                    {
                        "dataset": account.dataset,
                        "year": year,
                        "rounds": len(alone),
                        "epsilon_alone": rounded_up(epsilon(alone, account.delta)),
                        "epsilon_cumulative": rounded_up(epsilon(so_far, account.delta)),
                        "delta": account.delta,
                        "cap": account.cap_epsilon,
                        "remaining": round(max(0.0, account.cap_epsilon - charged), 4),
                        "open_reservations": sum(at.year == year and still for at, _, _, still in mine),
                        "entries": [("privacy.reserve", name) for at, _, name, _ in mine if at.year == year],
                    }
                )
    notes = [
        "Unit: the consent subject; add or remove one. One person's own sum: `bract-site subject report`.",
        "`remaining` is what the cap leaves above the Rényi bound, which grants and refuses; it is less than cap minus ε.",
    ]
    if not rows:
        notes.append("No privacy was reserved by then.")
    return Draft((*columns, "open_reservations", "entries"), tuple(rows), tuple(notes))


def _reserved(session: Session, known: datetime) -> dict[str, list[tuple[datetime, Mechanism, str, bool]]]:
    """By data set, what was reserved by then and not given back: when, what, the reservation, and whether it is open."""
    wanted = (
        select(PrivacyEntry, ReservationRow.name)
        .join(
            ReservationRow,
            (ReservationRow.campaign == PrivacyEntry.campaign) & (ReservationRow.number == PrivacyEntry.number),
        )
        .where(PrivacyEntry.at <= known)
        .order_by(PrivacyEntry.seq)
    )
    last: dict[str, str] = {}
    opened: dict[str, tuple[str, datetime, Mechanism]] = {}
    for entry, name in session.execute(wanted):
        last[name] = entry.state
        if entry.state == "reserved":  # what ended it may say less, or be dated before it by a clock that was set back
            opened[name] = (entry.dataset, entry.at, decode(Mechanism, entry.mechanism))
    found: dict[str, list[tuple[datetime, Mechanism, str, bool]]] = defaultdict(list)
    for name, (dataset, at, mechanism) in opened.items():
        if last[name] != "aborted":
            found[dataset].append((at, mechanism, name, last[name] == "reserved"))
    return found


def processing(sight: SiteSight, when: Moment, arguments: Arguments) -> Draft:
    """Question 11. Takes nothing."""
    columns = (
        "dataset",
        "purpose",
        "duo",
        "bases",
        "records",
        "rounds",
        "recipients",
        "keep_days",
        "policies",
        "first",
    )
    rows: list[dict[str, Any]] = []
    bound = [one for one in sight.retention_bindings() if one.bound_at <= when.known]
    with sight.seeing() as session:
        bases, used = _bases(session, when.known), _used(session, when.known)
        for about in sight.datasets():
            live = select(func.count()).where(Record.dataset == about.name, Record.removed_seq.is_(None))
            records = session.scalar(live) or 0
            held = {
                "dataset": about.name,
                "records": records,
                "keep_days": about.retention.ceiling_days,
                "policies": [str(one.policy) for one in bound if one.scope in ("", about.name)],
            }
            purposes = {purpose for name, purpose in used if name == about.name}
            purposes |= {purpose for scope, purpose in bases if scope in ("", about.name)}
            for purpose in sorted(purposes):
                found = bases.get(("", purpose), set()) | bases.get((about.name, purpose), set())
                rows.append(held | _purpose(purpose, found, used.get((about.name, purpose), [])))
    notes = [
        "Records never leave the site. `bases` as recorded with decisions; `not stated` where none was.",
        "Counts stay here.",
    ]
    if not rows:
        notes.append("No data set is registered with a decision or a clearance.")
    return Draft((*columns, "entries"), tuple(rows), tuple(notes))


def _purpose(purpose: str, bases: set[str], rounds: list[tuple[datetime, str]]) -> dict[str, Any]:
    """What a data set's row says of one purpose; `rounds` are clearances."""
    return {
        "purpose": purpose,
        "duo": sorted(code for code in ancestors(purpose) if code.startswith("DUO:")),
        "bases": sorted(bases),
        "rounds": len(rounds),
        "recipients": ["the hub: noised updates, signed clearances"] if rounds else [],
        "first": stamp(min((at for at, _ in rounds), default=None)),
        "entries": [("clearance.issue", name) for _, name in rounds],
    }


def _bases(session: Session, known: datetime) -> dict[tuple[str, str], set[str]]:
    """(scope, purpose) to the legal bases that were recorded by then."""
    event = ConsentEventRow
    wanted = select(event.scope, event.purpose, event.legal_basis).where(event.recorded_at <= known).distinct()
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for scope, purpose, basis in session.execute(wanted):
        found[scope, purpose].add(basis or "not stated")
    return found


def _used(session: Session, known: datetime) -> dict[tuple[str, str], list[tuple[datetime, str]]]:
    """(data set, purpose) to the clearances that were given by then."""
    wanted = (
        select(SnapshotRow.dataset, SnapshotRow.purpose, ClearanceRow.issued_at, ClearanceRow.name)
        .join(SnapshotRow, SnapshotRow.root == ClearanceRow.snapshot)
        .where(ClearanceRow.issued_at <= known)
        .order_by(ClearanceRow.issued_at)
    )
    found: dict[tuple[str, str], list[tuple[datetime, str]]] = defaultdict(list)
    for dataset, purpose, at, name in session.execute(wanted):
        found[dataset, purpose].append((at, name))
    return found
