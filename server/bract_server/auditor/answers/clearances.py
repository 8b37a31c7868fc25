"""Questions 8 and 11 at the hub: who said no and why, and what was processed for what."""

from collections import defaultdict
from typing import Any

from sqlalchemy import select

from bract.errors import CODES
from bract.question import Cite, Draft, Moment, stamp
from bract.signing import parse_envelope
from bract.update import Clearance
from bract.value import decode
from bract.vocabulary.purposes import ancestors
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry.models import ClearanceRow, NoticeRow, RefusalRow, RevocationRow, RoundRow, TermsRow


def refusals(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 8. Takes nothing."""
    groups: dict[tuple[str, str, str, str], list[tuple[str, Any, Cite]]] = defaultdict(list)
    refused = select(RefusalRow, RoundRow.campaign, RoundRow.number).join(RoundRow, RoundRow.id == RefusalRow.round_id)
    revoked = (
        select(ClearanceRow, RoundRow.campaign, RoundRow.number, RevocationRow.revoked_at, NoticeRow.digest)
        .join(RoundRow, RoundRow.id == ClearanceRow.round_id)
        .join(RevocationRow, RevocationRow.clearance_id == ClearanceRow.id)
        .join(NoticeRow, NoticeRow.id == RevocationRow.notice_id)
    )
    with sight.known(when.known) as session:
        plans = sight.plans(session)
        for row, campaign, number in session.execute(refused.order_by(RefusalRow.id)):
            plan = plans[campaign]
            key = (row.site, str(plan.purpose), "refused", row.code)
            groups[key].append((f"{plan.name}/{number}", row.received_at, ("refusal.take", row.digest)))
        for clearance, campaign, number, revoked_at, notice in session.execute(revoked.order_by(ClearanceRow.id)):
            plan = plans[campaign]
            key = (clearance.site, str(plan.purpose), "revoked", "withdrawal")
            groups[key].append((f"{plan.name}/{number}", revoked_at, ("withdrawal.take", notice)))
    rows = tuple(
        {
            "site": site,
            "purpose": purpose,
            "what": what,
            "reason": reason,
            "meaning": CODES[reason].cause if reason in CODES else "A withdrawal ended it before the round closed.",
            "times": len(found),
            "rounds": [place for place, _, _ in found],
            "first": stamp(min(at for _, at, _ in found)),
            "last": stamp(max(at for _, at, _ in found)),
            "entries": [cite for _, _, cite in found],
        }
        for (site, purpose, what, reason), found in sorted(groups.items())
    )
    notes = () if rows else ("No clearance was refused or revoked by then.",)
    columns = ("site", "purpose", "what", "reason", "times", "rounds", "first", "last", "entries")
    return Draft(columns, rows, notes)


def processing(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 11. Takes nothing."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    wanted = select(ClearanceRow, RoundRow.campaign).join(RoundRow, RoundRow.id == ClearanceRow.round_id)
    with sight.known(when.known) as session:
        plans = sight.plans(session)
        terms = {row.dataset: row.digest for row in session.scalars(select(TermsRow).order_by(TermsRow.id))}
        for row, campaign in session.execute(wanted.order_by(ClearanceRow.id)):
            plan = plans[campaign]
            purpose = str(plan.purpose)
            told = found.setdefault((row.site, plan.dataset, purpose), _row(row, plan.dataset, purpose, sight.origin))
            told["campaigns"] = sorted({*told["campaigns"], plan.name})
            told["rounds"] += 1
            told["last"] = stamp(row.received_at)
            told["terms"] = terms.get(f"{row.site}/{plan.dataset}")
            told["entries"].append(("clearance.take", row.digest))
    rows = tuple(found[key] for key in sorted(found))
    notes = [
        "Legal bases and time limits are the sites' to tell, who are the controllers: `bract-site audit ask 11`.",
        "Recipients of records: none, they stay at the site. Of noised updates: the hub. Of encoders: every site of the "
        "campaign, and whoever a release names (question 6).",
    ]
    if not rows:
        notes.append("No site cleared data for anything by then.")
    columns = ("site", "dataset", "purpose", "duo", "recipients", "campaigns", "rounds", "first", "last", "terms")
    return Draft((*columns, "entries"), rows, tuple(notes))


def _row(row: ClearanceRow, dataset: str, purpose: str, hub: str) -> dict[str, Any]:
    value = decode(Clearance, parse_envelope(row.envelope).payload)
    return {
        "site": row.site,
        "dataset": dataset,
        "purpose": purpose,
        "duo": sorted(code for code in ancestors(purpose) if code.startswith("DUO:")),
        "recipients": [f"hub {hub}: noised updates"],
        "campaigns": [],
        "rounds": 0,
        "first": stamp(value.issued_at),
        "last": None,
        "terms": None,
        "entries": [],
    }
