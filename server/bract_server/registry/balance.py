"""The privacy ledger recomputed: every account from its entries, every entry from what a site signed."""

from collections import defaultdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.errors import LOG, BractError
from bract.privacy.accounting import Curve, rdp_curve
from bract.privacy.budget import NOTHING, add
from bract.privacy.spec import Mechanism
from bract.signing import parse_envelope
from bract.update import Contribution, Reservation
from bract.value import decode
from bract_server.accounts import ABORTED, COMMITTED, EXPIRED, RESERVED
from bract_server.registry.models import AccountRow, ContributionRow, EntryRow, RelinquishmentRow, ReservationRow


def check(session: Session) -> None:
    """Recompute every account from its entries, and every entry from what the site signed.

    Raises:
        BractError: `log-inconsistent`, naming the reservation or account.
    """
    entries: dict[int, dict[str, EntryRow]] = defaultdict(dict)
    sums: dict[tuple[str, str, str], Curve] = {}
    caps: dict[tuple[str, str, str], float] = {}
    for entry in session.scalars(select(EntryRow).order_by(EntryRow.seq)):
        entries[entry.reservation_id][entry.state] = entry
        key = (entry.site, entry.dataset, entry.unit)
        sums[key] = add(sums.get(key, NOTHING), tuple(entry.curve))
        caps[key] = entry.cap_epsilon if entry.state == RESERVED else caps.get(key, entry.cap_epsilon)
    ends = _ends(session)
    for row in session.scalars(select(ReservationRow)):
        if not _whole(row, entries.pop(row.id, {}), ends.get(row.id)):
            raise BractError(LOG, f"ledger: the reservation {row.digest}")
    if entries:
        raise BractError(LOG, "ledger: an entry without its reservation")
    for account in session.scalars(select(AccountRow)):
        key = (account.site, account.dataset, account.unit)
        if (tuple(account.curve), account.cap_epsilon) != (sums.pop(key, None), caps.get(key)):
            raise BractError(LOG, f"ledger: the account of {account.site} for {account.dataset}")


def _whole(row: ReservationRow, entries: dict[str, EntryRow], end: tuple[str, str, Mechanism | None] | None) -> bool:
    """Whether a reservation's entries are what its envelope, and what ended it, ask for."""
    value, first = decode(Reservation, parse_envelope(row.envelope).payload), entries.get(RESERVED)
    reserved = mechanism_of(row)
    if first is None or value.mechanism != reserved or mechanism_of(first) != reserved:
        return False
    said = (row.site, row.dataset, row.digest, value.epsilon_cap)
    if said != (first.site, first.dataset, first.evidence, first.cap_epsilon):
        return False
    moves = {RESERVED: rdp_curve(reserved), COMMITTED: NOTHING, EXPIRED: NOTHING}
    moves[ABORTED] = tuple(-part for part in moves[RESERVED])
    if any(tuple(entry.curve) != moves[state] for state, entry in entries.items()):
        return False
    last = [entry for state, entry in entries.items() if state != RESERVED]
    if end is None:
        return not last or (last[0].state == EXPIRED and last[0].at >= row.expires_at)
    state, evidence, spent = end
    return len(last) == 1 and (last[0].state, last[0].evidence, mechanism_of(last[0])) == (
        state,
        evidence,
        spent or reserved,
    )


def _ends(session: Session) -> dict[int, tuple[str, str, Mechanism | None]]:
    """By reservation, how it ended as accepted contributions and relinquishments tell it: state, digest, what was spent."""
    told: dict[int, tuple[str, str, Mechanism | None]] = {}
    accepted = (
        select(ReservationRow.id, ContributionRow.digest, ContributionRow.envelope)
        .join(
            ContributionRow,
            (ContributionRow.round_id == ReservationRow.round_id) & (ContributionRow.site == ReservationRow.site),
        )
        .where(ContributionRow.accepted)
    )
    for number, digest, envelope in session.execute(accepted):
        told[number] = (COMMITTED, digest or "", decode(Contribution, parse_envelope(envelope or b"").payload).spent)
    for row in session.scalars(select(RelinquishmentRow)):
        told[row.reservation_id] = (ABORTED, row.digest, None)
    return told


def mechanism_of(row: ReservationRow | EntryRow) -> Mechanism:
    """What a row says was reserved or spent."""
    return Mechanism(row.noise_multiplier, row.sampling_rate, row.steps)
