"""Questions 5 and 13 at the hub: what privacy was spent, and whether contributions are what the plan says."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.privacy.accounting import rounded_up
from bract.privacy.spec import Mechanism
from bract.question import Draft, Moment, stamp
from bract.receipt import EncoderVersion
from bract.value import decode
from bract_server.accounts import LedgerAccount
from bract_server.auditor.sight import Arguments, Sight
from bract_server.registry.contributions import contribution_of
from bract_server.registry.models import ContributionRow, OutcomeRow, RoundRow, VersionRow

_CAVEATS = (
    "Unit: the consent subject; add or remove one. An account is of one data set of one site; a person in two data sets "
    "spends in both, which only their sites can compose (`bract-site subject report`).",
    "ε of years does not add up: each year alone, and all until its end, are composed anew.",
    "`remaining` is what the cap leaves above the Rényi bound, which grants and refuses; it is less than cap minus ε.",
)


def spending(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 5. Takes nothing."""
    columns = ("site", "dataset", "year", "rounds", "epsilon_alone", "epsilon_cumulative", "delta", "cap", "remaining")
    rows = [
        row
        for account in sight.accounts(when.known)
        if sight.site_asking in (None, account.site)
        for row in _years(account, when)
    ]
    notes = _CAVEATS if rows else (*_CAVEATS, "No privacy was reserved by then.")
    return Draft((*columns, "open_reservations", "entries"), tuple(rows), notes)


def _years(account: LedgerAccount, when: Moment) -> list[dict[str, Any]]:
    rows = []
    for year in account.years():
        charges = [one for one in account.charges if one.reserved_at.year == year.year]
        open_now = [one for one in account.open if one.reserved_at.year == year.year and one.expires_at > when.valid]
        rows.append(
            {
                "site": account.site,
                "dataset": account.dataset,
                "year": year.year,
                "rounds": year.count,
                "epsilon_alone": rounded_up(year.alone),
                "epsilon_cumulative": rounded_up(year.cumulative),
                "delta": account.delta,
                "cap": account.cap_epsilon,
                "remaining": round(max(0.0, account.cap_epsilon - rounded_up(year.bound)), 4),
                "open_reservations": len(open_now),
                "entries": [("reservation.take", str(one.reservation)) for one in charges],
            }
        )
    return rows


def odd_contributions(sight: Sight, when: Moment, arguments: Arguments) -> Draft:
    """Question 13. Takes nothing."""
    columns = ("site", "campaign", "round", "contribution", "finding", "plan", "reported", "received_at", "entry")
    wanted = (
        select(ContributionRow, RoundRow.campaign, RoundRow.number)
        .join(RoundRow, RoundRow.id == ContributionRow.round_id)
        .where(ContributionRow.accepted)
        .order_by(ContributionRow.id)
    )
    rows, seen = list[dict[str, Any]](), 0
    with sight.known(when.known) as session:
        plans = sight.plans(session)
        inside = {} if sight.site_asking is not None else _inside(session)
        for row, campaign, number in session.execute(wanted):
            seen += 1
            about = {"site": row.site, "campaign": plans[campaign].name, "round": number, "contribution": row.digest}
            about |= {"received_at": stamp(row.received_at), "entry": ("contribution.accept", row.digest)}
            found = _findings(row, plans[campaign].privacy.mechanism)
            if row.round_id in inside and row.digest not in inside[row.round_id]:
                found.append({"finding": "not in the aggregate", "plan": "in it", "reported": "not in it"})
            rows.extend(about | one for one in found)
    notes = [f"{seen} accepted contributions were compared."]
    if sight.site_asking is not None:
        notes.append("Whether each is in its round's version, the site's receipts tell.")
    if not rows:
        notes.append("None differs.")
    return Draft(columns, tuple(rows), tuple(notes))


def _inside(session: Session) -> dict[int, tuple[str, ...]]:
    """The contributions in the version of every round that has ended, none where it made no version."""
    wanted = select(OutcomeRow.round_id, VersionRow.body).outerjoin(VersionRow, VersionRow.digest == OutcomeRow.version)
    return {
        number: () if body is None else decode(EncoderVersion, body).contributions
        for number, body in session.execute(wanted)
    }


def _findings(row: ContributionRow, plan: Mechanism) -> list[dict[str, Any]]:
    value = contribution_of(row)
    found: list[dict[str, Any]] = [
        {"finding": f"{name} is not the plan's", "plan": getattr(plan, name), "reported": getattr(value.spent, name)}
        for name in ("noise_multiplier", "sampling_rate", "steps")
        if getattr(plan, name) != getattr(value.spent, name)
    ]
    if not value.private:
        told = {"plan": "private", "reported": "not private"}
        found.append({"finding": "made by a seeded test sampler: no guarantee", **told})
    return found
