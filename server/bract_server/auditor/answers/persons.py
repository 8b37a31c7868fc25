"""Questions 1, 2 and 7 at the hub: it knows no person, so it expands what a site says of its snapshots."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from bract.errors import MALFORMED, UNKNOWN_SITE, UNTRUSTED, BractError
from bract.model import MODELS, NodeKind
from bract.question import Draft, Moment, SnapshotAnswer, stamp
from bract.signing import Envelope, unseal, verify_key
from bract.value import decode
from bract_server.auditor.sight import Arguments, Sight, one_campaign
from bract_server.registry.lineage import below, nodes_of, snapshot_ref
from bract_server.registry.models import (
    ArtefactRow,
    ClearanceRow,
    NodeRow,
    NoticeRow,
    NoticeSnapshotRow,
    ParticipantRow,
    RoundPlanRow,
    RoundRow,
    SiteRow,
    VersionRow,
)

_MODEL_COLUMNS = ("kind", "name", "model", "made_at", "entry")
_ROUND_COLUMNS = ("site", "campaign", "round", "snapshot", "opened_at", "believed_then", "known_now", "since", "entry")

_ASK_THE_SITE = (
    "The hub holds no person. Ask the site first (`bract-site audit ask {n} … --out FILE`) and give its signed answer "
    "with --answer."
)


def models_of_a_person(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 1. Takes `answer`, or `of`: one snapshot as SITE/DIGEST."""
    with sight.known(when.known) as session:
        refs, notes = _snapshots(session, 1, arguments)
        if refs is None:
            return _every_snapshot(session)
        found = nodes_of(session, NodeKind.SNAPSHOT, refs)
        if missing := len(set(refs) - found.keys()):
            notes.append(f"{missing} of the snapshots went into no round here: nothing descends from them.")
        reached = below(found.values())
        wanted = (
            select(NodeRow.id, NodeRow.kind, NodeRow.ref)
            .join(reached, reached.c.id == NodeRow.id)
            .where(NodeRow.kind.in_([str(kind) for kind in MODELS]))
            .order_by(NodeRow.id)
        )
        rows = tuple(_models(session, session.execute(wanted)))
    notes.append(f"{len(refs)} snapshots were asked about. Releases and evaluations of these models: question 6.")
    return Draft(_MODEL_COLUMNS, rows, tuple(notes))


def consents_of_a_round(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 2. Takes `campaign` and `number`, and `answer`."""
    with sight.known(when.known) as session:
        told, notes = _snapshots(session, 2, arguments)
        rows = _clearances(session, sight, arguments, set(told or ()))
    if not rows:
        notes.append("No round was opened by then.")
    notes.append("Who consented is counted at the site alone: `bract-site audit ask 2`.")
    return Draft(_ROUND_COLUMNS, tuple(rows), tuple(notes))


def rounds_unlawful_now(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 7. Takes `answer`, and `campaign` and `number`."""
    with sight.known(when.known) as session:
        told, notes = _snapshots(session, 7, arguments)
        rows = [
            row for row in _clearances(session, sight, arguments, set(told or ())) if row["known_now"] != "in force"
        ]
    if told is None:
        notes.append("From notices of withdrawal alone. " + _ASK_THE_SITE.format(n=7))
    if not rows:
        notes.append("No round is known whose data were lawful then and are not now.")
    return Draft(_ROUND_COLUMNS, tuple(rows), tuple(notes))


def _snapshots(session: Session, number: int, arguments: Arguments) -> tuple[list[str] | None, list[str]]:
    """The snapshots that are asked about, as lineage names them; None when none were named."""
    if arguments.answer is not None:
        value = _signed(session, number, arguments.answer)
        note = f"{value.site} answered at {stamp(value.answered_at)}, when its log had {value.log_size} entries."
        return [snapshot_ref(value.site, snapshot) for snapshot in value.snapshots], [note]
    if number == 1 and arguments.of is not None:
        if "/sha256:" not in arguments.of:
            raise BractError(MALFORMED, "of: a snapshot as SITE/sha256:…")
        return [arguments.of], []
    return None, []


def _signed(session: Session, number: int, envelope: Envelope) -> SnapshotAnswer:
    """A site's answer, by the key that it was enrolled with; what a revoked site said before still counts."""
    claimed = decode(SnapshotAnswer, envelope.payload)
    row = session.get(SiteRow, claimed.site)
    if row is None:
        raise BractError(UNKNOWN_SITE, claimed.site)
    value = unseal(SnapshotAnswer, envelope, verify_key(row.verify_key))
    if value.question != number:
        raise BractError(UNTRUSTED, f"the site answered question {value.question}")
    return value


def _models(session: Session, nodes: Iterable[Row[int, str, str]]) -> Iterable[dict[str, Any]]:
    listed = list(nodes)
    versions = {row.digest: row for row in session.scalars(select(VersionRow))}
    artefacts = {row.node_id: row for row in session.scalars(select(ArtefactRow))}
    for node, kind, ref in listed:
        if kind == NodeKind.VERSION and ref in versions:
            version = versions[ref]
            told = {"kind": kind, "name": f"round {version.number}", "model": ref}
            yield told | {"made_at": stamp(version.created_at), "entry": ("version.add", ref)}
        elif node in artefacts:
            artefact = artefacts[node]
            told = {"kind": kind, "name": artefact.name, "model": ref}
            yield told | {"made_at": stamp(artefact.registered_at), "entry": ("*", artefact.digest)}


def _every_snapshot(session: Session) -> Draft:
    """Without a site's answer: which snapshots there are and how much descends from each."""
    rows = []
    wanted = select(NodeRow.id, NodeRow.ref).where(NodeRow.kind == NodeKind.SNAPSHOT).order_by(NodeRow.id)
    versions = set(session.scalars(select(VersionRow.digest)))
    for node, ref in session.execute(wanted).all():
        reached = below([node])
        kinds = [str(kind) for kind in MODELS]
        found = (
            select(NodeRow.kind, NodeRow.ref).join(reached, reached.c.id == NodeRow.id).where(NodeRow.kind.in_(kinds))
        )
        models = [one for kind, one in session.execute(found) if kind != NodeKind.VERSION or one in versions]
        rows.append({"snapshot": ref, "models": len(models)})
    return Draft(("snapshot", "models"), tuple(rows), (_ASK_THE_SITE.format(n=1),))


def _clearances(session: Session, sight: Sight, arguments: Arguments, told: set[str]) -> list[dict[str, Any]]:
    """Every clearance that a round stood on: what held when it was opened, and what is known of it now."""
    plans = sight.plans(session)
    wanted = (
        select(ClearanceRow, RoundRow.campaign, RoundRow.number, RoundPlanRow.opened_at)
        .join(RoundRow, RoundRow.id == ClearanceRow.round_id)
        .join(RoundPlanRow, RoundPlanRow.round_id == RoundRow.id)
        .join(ParticipantRow, ParticipantRow.clearance_id == ClearanceRow.id)
        .order_by(RoundPlanRow.opened_at, RoundRow.id, ClearanceRow.site)
    )
    if arguments.campaign is not None:
        wanted = wanted.where(RoundRow.campaign == one_campaign(plans, arguments.campaign))
    if arguments.number is not None:
        wanted = wanted.where(RoundRow.number == arguments.number)
    noticed = _noticed(session)
    rows = []
    for row, campaign, number, opened_at in session.execute(wanted):
        ref = snapshot_ref(row.site, row.snapshot)
        now, since = "in force", None
        if ref in noticed:
            now, since = "somebody withdrew since", noticed[ref]
        elif ref in told:
            now = "the site says it differs"
        rows.append(
            {
                "site": row.site,
                "campaign": plans[campaign].name,
                "round": number,
                "snapshot": row.snapshot,
                "opened_at": stamp(opened_at),
                "believed_then": "in force",  # the schema opens no round otherwise
                "known_now": now,
                "since": stamp(since),
                "entry": ("clearance.take", row.digest),
            }
        )
    return rows


def _noticed(session: Session) -> dict[str, datetime]:
    """The snapshots that a notice of withdrawal names, each with when the first one came."""
    wanted = (
        select(NoticeSnapshotRow.ref, NoticeRow.received_at)
        .join(NoticeRow, NoticeRow.id == NoticeSnapshotRow.notice_id)
        .order_by(NoticeRow.id)
    )
    found: dict[str, datetime] = {}
    for ref, received_at in session.execute(wanted):
        found.setdefault(ref, received_at)
    return found
