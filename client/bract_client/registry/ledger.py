"""The local privacy ledger: reserve before the first gradient, settle after; given back only what was never begun.

Rules:
    1. A reservation is on disk before anyone hears of it.
    2. The sum of the curves of all that was reserved and not aborted stays within the account's cap.
    3. One round reserves once: the same again gives the same answer, another mechanism is refused.
    4. A settlement says what was really spent: the same mechanism with as many or fewer steps. It gives nothing back.
    5. A reservation that expired counts as spent: its update may have left.
    6. A round is trained once.
    7. Only what was never begun is given back (`bract_client.registry.relinquish`).
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, bindparam, insert, select, update
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import (
    DONE_BEFORE,
    LOG,
    NO_RESERVATION,
    OVERSPEND,
    REPLAY,
    STATE,
    UNKNOWN_DATASET,
    UNTRUSTED,
    BractError,
)
from bract.privacy.accounting import Curve, epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add, charge
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, sign, unseal
from bract.update import Contribution, Reservation
from bract.value import decode, plain
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import (
    ContributionRow,
    PrivacyAccount,
    PrivacyEntry,
    RelinquishmentRow,
    ReservationRow,
)

# Writers wait for each other, so what a reservation does is built once and not a time.
ACCOUNT = (
    select(PrivacyAccount.cap_epsilon, PrivacyAccount.delta, PrivacyAccount.curve)
    .where(PrivacyAccount.dataset == bindparam("of"))
    .with_for_update()
)
"""The account of a data set, held until the transaction ends."""
_BEFORE = select(ReservationRow.dataset, ReservationRow.mechanism, ReservationRow.state, ReservationRow.envelope).where(
    ReservationRow.campaign == bindparam("of"), ReservationRow.number == bindparam("nth")
)
CHARGE = update(PrivacyAccount).where(PrivacyAccount.dataset == bindparam("of")).values(curve=bindparam("total"))
"""Writes an account's new sum of curves, `total`, of the data set `of`."""
_RESERVE, _ENTER = insert(ReservationRow), insert(PrivacyEntry)

RESERVED, SETTLED, SPENT, ABORTED = "reserved", "settled", "spent", "aborted"


def open_account(session: Session, dataset: str, cap_epsilon: float, delta: float) -> None:
    """An account with nothing spent."""
    values = {"dataset": dataset, "cap_epsilon": cap_epsilon, "delta": delta, "curve": list(NOTHING)}
    session.execute(insert(PrivacyAccount), values)


def reserve(
    session: Session,
    keys: SiteKeys,
    campaign: Digest,
    number: int,
    *,
    dataset: str,
    mechanism: Mechanism,
    at: datetime,
    ttl: timedelta,
    cap: float | None = None,
) -> tuple[Envelope, bool]:
    """The signed reservation, and whether it is new.

    Raises:
        BractError: `unknown-dataset`; `budget-exhausted` over the cap; `wrong-state` when the round reserved something
            else, or gave its reservation back.
    """
    on = session.connection()
    row = on.execute(ACCOUNT, {"of": dataset}).first()
    if row is None:
        raise BractError(UNKNOWN_DATASET, dataset)
    before = on.execute(_BEFORE, {"of": campaign, "nth": number}).first()
    if before is not None:
        if before.dataset != dataset or decode(Mechanism, before.mechanism) != mechanism:
            raise BractError(STATE, "the round has reserved something else")
        if before.state == ABORTED:
            raise BractError(STATE, "the round's reservation was given back")
        return parse_envelope(before.envelope), False
    limit = row.cap_epsilon if cap is None else min(cap, row.cap_epsilon)
    total = charge(tuple(row.curve), mechanism, limit, row.delta)
    cost = epsilon_of_curve(total, row.delta)
    value = Reservation(keys.site, campaign, number, dataset, mechanism, cost, limit, row.delta, at, at + ttl)
    envelope = sign(value, keys.signing)
    on.execute(CHARGE, {"of": dataset, "total": list(total)})
    reservation = {
        "campaign": campaign,
        "number": number,
        "name": envelope.name,
        "dataset": dataset,
        "mechanism": plain(mechanism),
        "curve": list(rdp_curve(mechanism)),
        "envelope": envelope.to_json(),
        "state": RESERVED,
        "expires_at": at + ttl,
    }
    on.execute(_RESERVE, reservation)
    enter(session, campaign, number, dataset, RESERVED, mechanism, at)
    return envelope, True


def settle(session: Session, campaign: Digest, number: int, spent: Mechanism, at: datetime) -> bool:
    """Notes what a round really spent; False if the same was settled before.

    Raises:
        BractError: `no-reservation`; `overspend` for another σ or q or more steps; `wrong-state` once it expired, was
            given back or was settled differently.
    """
    row = reservation_row(session, campaign, number)
    granted = decode(Mechanism, row.mechanism)
    same = (spent.noise_multiplier, spent.sampling_rate) == (granted.noise_multiplier, granted.sampling_rate)
    if not same or spent.steps > granted.steps:
        raise BractError(OVERSPEND, f"{granted.steps} steps of the plan's mechanism were reserved")
    if row.state == SETTLED:
        settled = select(PrivacyEntry.mechanism).where(*_round(campaign, number), PrivacyEntry.state == SETTLED)
        if decode(Mechanism, session.scalars(settled).one()) != spent:
            raise BractError(STATE, "the round was settled differently")
        return False
    if row.state != RESERVED or row.expires_at <= at:
        raise BractError(STATE, "the reservation has ended: it expired and counts as spent, or was given back")
    row.state = SETTLED
    enter(session, row.campaign, row.number, row.dataset, SETTLED, spent, at)
    return True


def expire(session: Session, at: datetime) -> list[tuple[Digest, int]]:
    """Marks reservations that expired unsettled as spent; the rounds they were for."""
    due = select(ReservationRow).where(ReservationRow.state == RESERVED, ReservationRow.expires_at <= at)
    lapsed: list[tuple[Digest, int]] = []
    for row in session.scalars(due.order_by(ReservationRow.campaign, ReservationRow.number)):
        row.state = SPENT
        mechanism = decode(Mechanism, row.mechanism)
        enter(session, row.campaign, row.number, row.dataset, SPENT, mechanism, at)
        lapsed.append((Digest(row.campaign), row.number))
    return lapsed


def begin(session: Session, campaign: Digest, number: int, at: datetime) -> None:
    """Marks that training starts.

    Raises:
        BractError: `no-reservation` without a live one; `done-before` when it started before.
    """
    row = reservation_row(session, campaign, number)
    if row.begun_at is not None:
        raise BractError(DONE_BEFORE, f"round {number}")
    if row.state != RESERVED or row.expires_at <= at:
        raise BractError(NO_RESERVATION, f"round {number}: it has expired, or was given back")
    row.begun_at = at


def contribution(session: Session, campaign: Digest, number: int) -> Envelope | None:
    """The stored contribution of a round."""
    row = session.get(ContributionRow, (campaign, number))
    return None if row is None else parse_envelope(row.envelope)


def keep(session: Session, keys: SiteKeys, campaign: Digest, number: int, *, envelope: Envelope, at: datetime) -> bool:
    """Settles a round and stores its contribution; False if the same is stored already.

    Raises:
        BractError: `untrusted` unless this site signed it for this round's reservation; `replay` when the round has
            another contribution; as `settle`.
    """
    value = unseal(Contribution, envelope, keys.signing.public_key())
    row = reservation_row(session, campaign, number)
    if value.site != keys.site or value.reservation != row.name:
        raise BractError(UNTRUSTED, "the contribution is not of this site and round")
    before = contribution(session, campaign, number)
    if before is not None:
        if before.name != envelope.name:
            raise BractError(REPLAY, "the round has another contribution")
        return False
    if row.begun_at is None:
        raise BractError(STATE, "the round was not begun")
    settle(session, campaign, number, value.spent, at)
    values = {
        "campaign": campaign,
        "number": number,
        "name": envelope.name,
        "envelope": envelope.to_json(),
        "kept_at": at,
    }
    session.execute(insert(ContributionRow), values)
    return True


def spent(session: Session, dataset: str) -> tuple[Mechanism, ...]:
    """Every mechanism that was reserved on a data set, whatever came of it, but for those never begun and given back."""
    row = ReservationRow
    statement = select(row.mechanism).where(row.dataset == dataset, row.state != ABORTED)
    return tuple(decode(Mechanism, one) for one in session.scalars(statement.order_by(row.campaign, row.number)))


def check(session: Session) -> None:
    """Recomputes every account from its reservations, and every reservation from its entries.

    Raises:
        BractError: `log-inconsistent`, naming the account or round.
    """
    totals: dict[str, Curve] = {}
    entered: dict[tuple[str, int], set[str]] = {}
    for campaign, number, state in session.execute(
        select(PrivacyEntry.campaign, PrivacyEntry.number, PrivacyEntry.state)
    ):
        entered.setdefault((campaign, number), set()).add(state)
    said = {(one.campaign, one.number): one for one in session.scalars(select(RelinquishmentRow))}
    for row in session.scalars(select(ReservationRow)):
        place, curve = (row.campaign, row.number), rdp_curve(decode(Mechanism, row.mechanism))
        aborted = row.state == ABORTED
        # An older version that knew no giving back has charged again what was aborted: it counts.
        known = entered.get(place, set()) - ({ABORTED} if row.state == SPENT else set())
        if (
            tuple(row.curve) != curve
            or known != {RESERVED, row.state}
            or aborted != (place in said)
            or (aborted and row.begun_at is not None)
        ):
            raise BractError(LOG, f"ledger: round {row.number} of {row.campaign}")
        if not aborted:
            totals[row.dataset] = add(totals.get(row.dataset, NOTHING), curve)
    for account in session.scalars(select(PrivacyAccount)):
        if tuple(account.curve) != totals.get(account.dataset, NOTHING):
            raise BractError(LOG, f"ledger: the account of {account.dataset}")


def reservation_row(session: Session, campaign: Digest, number: int) -> ReservationRow:
    """The reservation of a round, held until the transaction ends.

    Raises:
        BractError: `no-reservation`.
    """
    row = session.get(ReservationRow, (campaign, number), with_for_update=True)
    if row is None:
        raise BractError(NO_RESERVATION, f"round {number}")
    return row


def _round(campaign: Digest, number: int) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return PrivacyEntry.campaign == campaign, PrivacyEntry.number == number


def enter(
    session: Session, campaign: str, number: int, dataset: str, state: str, mechanism: Mechanism, at: datetime
) -> None:
    """Notes one transition of a reservation."""
    values: dict[str, Any] = {
        "campaign": campaign,
        "number": number,
        "dataset": dataset,
        "state": state,
        "mechanism": plain(mechanism),
        "at": at,
    }
    session.connection().execute(_ENTER, values)
