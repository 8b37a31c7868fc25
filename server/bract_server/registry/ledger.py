"""The hub's privacy ledger: its own account of what every site reserved, beside the site's own.

Rules:
    1. An account is of a site, a data set and a unit (the consent subject); its δ never changes, its cap is what the
       site named last.
    2. A reservation is taken only if the hub's own sum of curves stays within the cap: also when the site's ledger,
       say one that was restored from an old backup, grants it.
    3. A reservation ends once: committed with an accepted contribution, aborted by the site's signed word that nothing
       was begun, or expired. What expired is spent: its update may have left.
    4. A commit spends what was reserved or less, never more, and gives nothing back.
    5. An abort needs that nothing of the site came in the round, not even something that was rejected.
    6. Every transition is one entry, added in the transaction of what it follows from; their sum is the account.
"""

from collections import defaultdict
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Select, bindparam, exists, insert, select, update
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import NO_RESERVATION, STATE, UNTRUSTED, BractError
from bract.privacy.accounting import Curve, epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add, charge, give_back
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, unseal
from bract.update import Relinquishment, Reservation
from bract.value import decode
from bract_server.accounts import ABORTED, COMMITTED, EXPIRED, RESERVED, Charge, LedgerAccount, Stated, YearSpend
from bract_server.registry.balance import mechanism_of
from bract_server.registry.models import (
    AccountRow,
    ContributionRow,
    EntryRow,
    RelinquishmentRow,
    ReservationRow,
    RoundRow,
)
from bract_server.registry.sites import site_key
from bract_server.registry.unit import Store, Unit

__all__ = ["Charge", "Ledger", "LedgerAccount", "YearSpend", "commit", "given_back", "live", "reserve"]

SUBJECT = "subject"
"""The unit of every account: the consent subject."""

# Writers wait for each other, so what a reservation does is built once and not a time.
_MINE = (
    AccountRow.site == bindparam("the_site"),
    AccountRow.dataset == bindparam("the_dataset"),
    AccountRow.unit == bindparam("the_unit"),
)
_ACCOUNT = select(AccountRow.delta, AccountRow.curve).where(*_MINE).with_for_update()
_CHARGE = update(AccountRow).where(*_MINE).values(cap_epsilon=bindparam("cap"), curve=bindparam("total"))
_TAKE, _ENTER = insert(ReservationRow).returning(ReservationRow.id), insert(EntryRow)


class Ledger(Store):
    """The part of the registry that keeps privacy accounts."""

    def relinquish(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Take a signed `Relinquishment`: the reservation is given back. The same again changes nothing.

        Raises:
            BractError: `unknown-site`, `untrusted`; `no-reservation` when there is none of that digest for the round;
                `wrong-state` when it ended otherwise, or the site sent something in the round (rule 5).
        """
        with self.writing(at) as unit:
            session = unit.session
            value = unseal(Relinquishment, envelope, site_key(session, site))
            if value.site != site:
                raise BractError(UNTRUSTED, "a site speaks for itself only")
            row = _named(session, value)
            before = session.get(RelinquishmentRow, row.id)
            if before is not None:
                if before.digest != envelope.name:
                    raise BractError(STATE, "the site gave the reservation back by another statement")
                return
            _check_unused(unit, row)
            account = _account(session, site, row.dataset)
            curve = rdp_curve(mechanism_of(row))
            _move(unit, row, account, ABORTED, give_back(tuple(account.curve), curve), evidence=envelope.name)
            said = {"reservation_id": row.id, "digest": envelope.name, "envelope": envelope.to_json()}
            session.execute(insert(RelinquishmentRow), {**said, "received_at": at})
            unit.log("relinquishment.take", envelope.name, site, campaign=value.campaign, number=value.number)

    def expire_reservations(self, at: datetime) -> int:
        """Notes which reservations expired and so count as spent; how many they were."""
        due = _open().where(ReservationRow.expires_at <= at).order_by(ReservationRow.id)
        with self.seeing() as session:
            if session.scalars(due.limit(1)).first() is None:
                return 0
        with self.writing(at) as unit:
            rows = unit.session.scalars(due).all()
            for row in rows:
                account = _account(unit.session, row.site, row.dataset)
                _move(unit, row, account, EXPIRED, tuple(account.curve), evidence=Digest(row.digest))
                unit.log("reservation.expire", row.digest, site=row.site)
            return len(rows)

    def accounts(self, known: datetime | None = None) -> tuple[LedgerAccount, ...]:
        """Every account, by site and data set.

        Args:
            known: as the ledger stood then; by default as it stands.
        """
        wanted = (
            select(EntryRow, ReservationRow.digest, ReservationRow.expires_at, RoundRow.campaign, RoundRow.number)
            .join(ReservationRow, ReservationRow.id == EntryRow.reservation_id)
            .join(RoundRow, RoundRow.id == ReservationRow.round_id)
            .order_by(EntryRow.seq)
        )
        if known is not None:
            wanted = wanted.where(EntryRow.at <= known)
        caps: dict[tuple[str, str, str], float] = {}
        found: dict[tuple[str, str, str], dict[int, Charge]] = defaultdict(dict)
        with self.seeing() as session:
            deltas = {(row.site, row.dataset, row.unit): row.delta for row in session.scalars(select(AccountRow))}
            for entry, digest, expires_at, campaign, number in session.execute(wanted):
                key = (entry.site, entry.dataset, entry.unit)
                if entry.state != RESERVED and entry.reservation_id not in found[key]:
                    continue  # the clock was set back: by its word the end was known before the reservation
                caps[key] = entry.cap_epsilon if entry.state == RESERVED else caps[key]
                about = Digest(campaign), number, Digest(digest)
                found[key][entry.reservation_id] = _charge(
                    entry, about, expires_at, found[key].get(entry.reservation_id)
                )
        return tuple(LedgerAccount(*key, caps[key], deltas[key], tuple(found[key].values())) for key in sorted(caps))

    def understated(self) -> tuple[Stated, ...]:
        """Reservations with which a site said that it had spent less than the hub had taken from it, this one included.

        Its ledger has forgotten something: it was put back from an old backup, or there are two of it.
        """
        wanted = select(EntryRow, ReservationRow.envelope).join(ReservationRow).order_by(EntryRow.seq)
        sums: dict[tuple[str, str], Curve] = {}
        found: list[Stated] = []
        with self.seeing() as session:
            for entry, envelope in session.execute(wanted):
                key = (entry.site, entry.dataset)
                sums[key] = add(sums.get(key, NOTHING), tuple(entry.curve))
                if entry.state != RESERVED:
                    continue
                said = decode(Reservation, parse_envelope(envelope).payload)
                here = epsilon_of_curve(sums[key], said.delta)
                if said.epsilon < here:
                    found.append(Stated(*key, said.campaign, said.number, said.epsilon, here))
        return tuple(found)


def reserve(unit: Unit, round_id: int, value: Reservation, envelope: Envelope) -> None:
    """Keep a reservation whose signature was verified, and charge it to its account, which its first one opens.

    Raises:
        BractError: `budget-exhausted` when the hub's own sum would go over the cap; `wrong-state` for another δ.
    """
    on, key = unit.session.connection(), {"site": value.site, "dataset": value.dataset, "unit": SUBJECT}
    account = on.execute(_ACCOUNT, _named_so(key)).first()
    if account is not None and account.delta != value.delta:
        raise BractError(STATE, f"the account's δ is {account.delta:g}, not {value.delta:g}")
    spent: Curve = NOTHING if account is None else tuple(account.curve)
    total = charge(spent, value.mechanism, value.epsilon_cap, value.delta)
    kept = {"cap_epsilon": value.epsilon_cap, "curve": list(total)}
    if account is None:
        on.execute(insert(AccountRow), {**key, **kept, "delta": value.delta})
    else:
        on.execute(_CHARGE, {**_named_so(key), "cap": value.epsilon_cap, "total": list(total)})
    taken = {
        "round_id": round_id,
        "site": value.site,
        "digest": envelope.name,
        "dataset": value.dataset,
        **asdict(value.mechanism),
        "expires_at": value.expires_at,
        "envelope": envelope.to_json(),
        "received_at": unit.at,
    }
    number = on.scalar(_TAKE, taken)
    curve = rdp_curve(value.mechanism)
    _enter(unit, {**key, "reservation_id": number}, RESERVED, value.mechanism, curve, value.epsilon_cap, envelope.name)


def commit(unit: Unit, row: ReservationRow, contribution: Digest, spent: Mechanism) -> None:
    """End a reservation with the contribution that was accepted; the account keeps all that was reserved (rule 4).

    Raises:
        BractError: `no-reservation` when it expired or was given back.
    """
    live(unit.session, row, unit.at)
    account = _account(unit.session, row.site, row.dataset)
    _enter(unit, _key(row), COMMITTED, spent, NOTHING, account.cap_epsilon, contribution)


def live(session: Session, row: ReservationRow, at: datetime) -> None:
    """The reservation stands: it did not expire and was not given back.

    Raises:
        BractError: `no-reservation`.
    """
    if row.expires_at <= at or _ended(session, row) in (ABORTED, EXPIRED):
        raise BractError(NO_RESERVATION, row.site)


def given_back() -> Select[int]:
    """The ids of the reservations that were given back."""
    return select(EntryRow.reservation_id).where(EntryRow.state == ABORTED)


def _named_so(key: dict[str, str]) -> dict[str, str]:
    """An account's key as the parameters of `_MINE`."""
    return {f"the_{name}": value for name, value in key.items()}


def _account(session: Session, site: str, dataset: str) -> AccountRow:
    """The account's row, held until the transaction ends."""
    return session.get_one(AccountRow, (site, dataset, SUBJECT), with_for_update=True)


def _open() -> Select[ReservationRow]:
    """Reservations that have not ended."""
    ended = exists().where(EntryRow.reservation_id == ReservationRow.id, EntryRow.state != RESERVED)
    return select(ReservationRow).where(~ended)


def _ended(session: Session, row: ReservationRow) -> str | None:
    end = select(EntryRow.state).where(EntryRow.reservation_id == row.id, EntryRow.state != RESERVED)
    return session.scalar(end)


def _named(session: Session, value: Relinquishment) -> ReservationRow:
    """The reservation that a relinquishment is about."""
    row = session.scalar(
        select(ReservationRow)
        .join(RoundRow, RoundRow.id == ReservationRow.round_id)
        .where(
            ReservationRow.site == value.site,
            ReservationRow.digest == value.reservation,
            RoundRow.campaign == value.campaign,
            RoundRow.number == value.number,
        )
    )
    if row is None:
        raise BractError(NO_RESERVATION, f"{value.site} has no such reservation for round {value.number}")
    return row


def _check_unused(unit: Unit, row: ReservationRow) -> None:
    """Rules 3 and 5."""
    ended = _ended(unit.session, row)
    if ended is not None or row.expires_at <= unit.at:
        raise BractError(STATE, f"the reservation is {ended or EXPIRED}: what it cost is spent")
    sent = select(ContributionRow.id).where(ContributionRow.round_id == row.round_id, ContributionRow.site == row.site)
    if unit.session.scalars(sent.limit(1)).first() is not None:
        raise BractError(STATE, "the site sent a contribution in this round: what it cost is spent")


def _move(unit: Unit, row: ReservationRow, account: AccountRow, state: str, total: Curve, *, evidence: Digest) -> None:
    moved = tuple(new - old for new, old in zip(total, account.curve, strict=True))
    account.curve = list(total)
    _enter(unit, _key(row), state, mechanism_of(row), moved, account.cap_epsilon, evidence)


def _enter(
    unit: Unit, key: dict[str, Any], state: str, mechanism: Mechanism, moved: Curve, cap: float, evidence: Digest
) -> None:
    values = {
        **key,
        "state": state,
        **asdict(mechanism),
        "curve": list(moved),
        "cap_epsilon": cap,
        "evidence": evidence,
        "at": unit.at,
    }
    unit.session.connection().execute(_ENTER, values)


def _key(row: ReservationRow) -> dict[str, Any]:
    return {"reservation_id": row.id, "site": row.site, "dataset": row.dataset, "unit": SUBJECT}


def _charge(entry: EntryRow, about: tuple[Digest, int, Digest], expires_at: datetime, before: Charge | None) -> Charge:
    """A reservation's charge after one more of its entries."""
    mechanism = mechanism_of(entry)
    if before is None:
        return Charge(*about, mechanism, entry.state, entry.at, expires_at)
    spent = mechanism if entry.state == COMMITTED else None
    return Charge(*about, before.mechanism, entry.state, before.reserved_at, expires_at, entry.at, spent)
