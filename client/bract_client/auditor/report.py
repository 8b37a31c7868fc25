"""Everything that the site holds of one person, as one document: what a data subject may ask for (GDPR article 15)."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.consent import Purpose, resolve, uncorrected
from bract.privacy.accounting import epsilon, rounded_up
from bract.privacy.events import dp_event
from bract.question import Cite, Draft, Moment, finish, question, stamp
from bract.receipt import RoundReceipt
from bract.signing import parse_envelope
from bract.value import decode
from bract_client.auditor.sight import Arguments, SiteSight, prove
from bract_client.registry import decisions, leavers
from bract_client.registry.models import ContributionRow, NoticeOutbox, ReceiptRow, Record, ReservationRow
from bract_client.registry.questions import Part, spend
from bract_client.registry.retention_records import ERASED_ID

_REMAINS = (
    "Encoders trained on snapshots that held this person are not un-trained: what they can have learnt of the person is "
    "bounded by the (ε, δ) above, and nothing was erased from them.",
    "Decisions, clearances and the log are kept as evidence; they name the person by a keyed handle only.",
)


def report(sight: SiteSight, person: str, at: datetime) -> dict[str, Any]:
    """One person's decisions, rounds, models, privacy, data, and what was deleted, with where each stands in the log.

    Raises:
        BractError: `unknown-subject`.
    """
    with sight.seeing() as session:
        number = sight.person(session, person)
        events = decisions.history(session, number)
        held = leavers.holding(session, number, tuple(Purpose), None)
        rounds, parts, cites = _rounds(sight, session, held, at)
        data, deleted = _data(session, number)
        left = _notices(session, held)
    privacy = _privacy(sight, parts)
    draft = Draft((), tuple({"entry": cite} for cite in cites))
    proof, found = prove(sight, at, draft.cites)
    placed = finish(question(1), Draft((), tuple(rounds)), sight.site, Moment(at, at), proof, found)
    return {
        "site": sight.site,
        "as_of": stamp(at),
        "consents": {"history": [_event(one) for one in events], "now": _effective(sight, events, data, at)},
        "rounds": list(placed.rows),
        "models": _models(placed.rows),
        "privacy": privacy,
        "data": data,
        "deleted": deleted,
        "notices": left,
        "remains": list(_REMAINS)
        if any(one["held"] for one in rounds)
        else ["No round held this person: no model is touched."],
        "proof": {"log": proof.origin, "size": proof.size, "root": proof.root, "entries": sorted(set(found.values()))},
    }


def _event(one: decisions.KnownEvent) -> dict[str, Any]:
    event = one.event
    return {
        "seq": one.seq,
        "purpose": str(event.purpose),
        "decision": str(event.decision),
        "valid_from": stamp(event.valid_from),
        "valid_to": stamp(event.valid_to),
        "dataset": event.dataset,
        "recorded_at": stamp(one.recorded_at),
        "source": one.source,
        "supersedes": event.supersedes,
        "legal_basis": event.evidence.legal_basis,
        "evidence": event.evidence.digest,
    }


def _effective(
    sight: SiteSight, events: tuple[decisions.KnownEvent, ...], data: list[dict[str, Any]], at: datetime
) -> list[dict[str, Any]]:
    """What the decisions mean now, for each of the person's data sets and each use."""
    counting = uncorrected((one.seq, one.event) for one in events)
    told = []
    for name in [one["dataset"] for one in data]:
        for purpose in Purpose:
            found = resolve(counting, purpose, name, at, sight.use)
            told.append(
                {"dataset": name, "purpose": str(purpose), "verdict": str(found.verdict), "until": stamp(found.until)}
            )
    return told


def _rounds(
    sight: SiteSight, session: Session, held: set[Any], at: datetime
) -> tuple[list[dict[str, Any]], list[Part], list[Cite]]:
    """Every cleared round: whether it held the person, what became of it, and which version came of it."""
    contributions = {(row.campaign, row.number): row for row in session.scalars(select(ContributionRow))}
    receipts = {
        row.contribution: decode(RoundReceipt, parse_envelope(row.envelope).payload)
        for row in session.scalars(select(ReceiptRow))
    }
    reserved = {(row.campaign, row.number): row for row in session.scalars(select(ReservationRow))}
    rows, parts, cites = list[dict[str, Any]](), list[Part](), list[Cite]()
    for one in sight.cleared_rounds(session, Arguments(), at):
        place = (str(one.campaign), one.number)
        reservation, sent = reserved.get(place), contributions.get(place)
        receipt = None if sent is None else receipts.get(sent.name)
        is_in = one.snapshot.root in held
        mechanism = None
        if reservation is not None and reservation.state != "aborted":
            mechanism = reservation.mechanism
        rows.append(
            {
                "campaign": one.campaign,
                "number": one.number,
                "dataset": one.snapshot.dataset,
                "snapshot": one.snapshot.root,
                "held": is_in,
                "cleared_at": stamp(one.issued_at),
                "state": "not reserved" if reservation is None else reservation.state,
                "trained": one.begun_at is not None,
                "contribution": None if sent is None else sent.name,
                "version": None if receipt is None else receipt.version,
                "share": None if receipt is None else receipt.share,
                "entry": ("clearance.issue", one.clearance),
            }
        )
        cites.append(("clearance.issue", one.clearance))
        parts.append(sight.part(one, is_in, mechanism))
    return rows, parts, cites


def _models(rounds: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
    """The encoder versions that have a contribution made from this person's snapshots, as far as receipts tell."""
    return [
        {"version": one["version"], "campaign": one["campaign"], "number": one["number"], "share": one["share"]}
        for one in rounds
        if one["held"] and one["version"] is not None
    ]


def _privacy(sight: SiteSight, parts: list[Part]) -> dict[str, Any]:
    """All rounds that held the person composed, over all data sets and campaigns, as they were reserved."""
    spent = spend(parts, sight.accounts())
    total = 0.0 if spent.delta is None else rounded_up(epsilon(spent.mechanisms, spent.delta))
    return {
        "unit": "subject",
        "adjacency": "add-or-remove-one",
        "epsilon": total,
        "delta": spent.delta,
        "epsilon_cap": spent.cap_epsilon,
        "epsilon_left": None if spent.cap_epsilon is None else round(max(0.0, spent.cap_epsilon - total), 4),
        "rounds": len(spent.mechanisms),
        "events": [dp_event(mechanism) for mechanism in spent.mechanisms],
    }


def _data(session: Session, number: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The person's records by data set, in counts, and those that were erased."""
    erased = Record.record_id == ERASED_ID
    live = Record.removed_seq.is_(None)
    wanted = (
        select(Record.dataset, live, erased, func.count(), func.min(Record.collected_at))
        .where(Record.subject_no == number)
        .group_by(Record.dataset, live, erased)
        .order_by(Record.dataset)
    )
    data: dict[str, dict[str, Any]] = {}
    deleted = []
    for dataset, is_live, is_erased, count, first in session.execute(wanted):
        told = data.setdefault(dataset, {"dataset": dataset, "records": 0, "closed": 0, "collected_from": stamp(first)})
        told["records" if is_live else "closed"] += count
        if is_erased:
            deleted.append({"dataset": dataset, "records": count, "what": "erased at this site, with a signed receipt"})
    return list(data.values()), deleted


def _notices(session: Session, held: set[Any]) -> list[dict[str, Any]]:
    """The notices of withdrawal that name a snapshot which held this person; one may be of others in it."""
    rows = session.scalars(select(NoticeOutbox).order_by(NoticeOutbox.no))
    return [
        {"notice": row.notice, "queued_at": stamp(row.queued_at), "sent_at": stamp(row.sent_at)}
        for row in rows
        if held & set(row.snapshots)
    ]
