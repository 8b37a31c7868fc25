"""Giving back what was reserved for a round that was never trained, and the whole ledger for whoever compares it.

Rules:
    1. A reservation is given back only while it is live and its training was not begun; never once it expired.
    2. What was given back can never be begun, nor reserved again.
    3. The signed statement is stored and logged in the transaction that gives the curve back, before the hub can hear.

Why this is safe. The mechanism is released by training alone, and `ledger.begin` is the only way to that: begin and
relinquish exclude each other, whichever comes first, since writers run one after the other. What was done for the round
before (resolving consent, the snapshot's root) the site does for a clearance, with or without a reservation. So the sum
that is left still bounds everything that was released, also when the hub chose its rounds by what it saw
(`bract.privacy.budget`). A site that said so and trained all the same has signed the proof against itself.
"""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import STATE, BractError
from bract.privacy.budget import give_back
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, sign
from bract.update import LedgerExport, LedgerLine, Relinquishment
from bract.value import decode
from bract_client.registry import ledger
from bract_client.registry.desk import Desk
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import PrivacyEntry, RelinquishmentRow, ReservationRow

_PART = 1000
"""Lines of one signed part of an export: well below what an envelope may hold."""


class Relinquishing(Desk):
    """The verbs by which a reservation is given back, and by which the ledger is shown."""

    def relinquish(self, campaign: Digest, number: int, at: datetime) -> Envelope:
        """Gives a reservation back whose training was not begun and from now on never will be; again is fine.

        The signed `Relinquishment` is stored and logged before this returns: send it to the hub.

        Raises:
            BractError: `no-reservation`; `wrong-state` once training was begun, or the reservation ended otherwise.
        """
        with self._write() as session:
            return self._relinquish(session, campaign, number, at)

    def relinquish_before(self, campaign: Digest, number: int, at: datetime) -> int:
        """Gives back what the campaign's earlier rounds reserved and never began; how many they were.

        For when the hub proposes a round: it has one open at a time, so that the earlier ones are over.
        """
        with self._read() as session:
            if not unused(session, campaign, number, at):
                return 0
        with self._write() as session:
            numbers = unused(session, campaign, number, at)
            for earlier in numbers:
                self._relinquish(session, campaign, earlier, at)
            return len(numbers)

    def _relinquish(self, session: Session, campaign: Digest, number: int, at: datetime) -> Envelope:
        envelope, new = relinquish(session, self._keys, campaign, number, at)
        if new:
            self._log(session, "privacy.relinquish", envelope.name, {"campaign": campaign, "number": number}, at)
        return envelope

    def relinquished(self) -> tuple[Envelope, ...]:
        """The relinquishments that the hub has still to hear of, oldest first."""
        row = RelinquishmentRow
        unsent = select(row.envelope).where(row.sent_at.is_(None)).order_by(row.made_at, row.name)
        with self._read() as session:
            return tuple(map(parse_envelope, session.scalars(unsent)))

    def mark_relinquished(self, name: Digest, at: datetime) -> None:
        """Notes that the hub has answered the relinquishment of that name; again is fine."""
        row = RelinquishmentRow
        with self._write() as session:
            session.execute(update(row).where(row.name == name, row.sent_at.is_(None)).values(sent_at=at))

    def ledger_export(self, at: datetime) -> tuple[Envelope, ...]:
        """The whole ledger in signed parts, for whoever holds the hub's beside it (`bract ledger reconcile`)."""
        with self._read() as session:
            every = lines(session)
        starts = range(0, max(len(every), 1), _PART)
        parts = (
            LedgerExport(self.site, at, place, len(starts), every[s : s + _PART]) for place, s in enumerate(starts, 1)
        )
        return tuple(sign(part, self._keys.signing) for part in parts)


def relinquish(session: Session, keys: SiteKeys, campaign: Digest, number: int, at: datetime) -> tuple[Envelope, bool]:
    """Gives a reservation back whose training was not begun (rule 7): the signed statement, and whether it is new.

    Raises:
        BractError: `no-reservation`; `wrong-state` once training was begun, or the reservation ended otherwise.
    """
    row = ledger.reservation_row(session, campaign, number)
    before = session.get(RelinquishmentRow, (campaign, number))
    if before is not None:
        return parse_envelope(before.envelope), False
    if row.begun_at is not None:
        raise BractError(STATE, f"the training of round {number} was begun: what it cost is spent")
    if row.state != ledger.RESERVED or row.expires_at <= at:
        raise BractError(STATE, f"the reservation of round {number} has ended and counts as spent")
    on = session.connection()
    held = on.execute(ledger.ACCOUNT, {"of": row.dataset}).one()
    envelope = sign(Relinquishment(keys.site, campaign, number, Digest(row.name), at), keys.signing)
    left = give_back(tuple(held.curve), tuple(row.curve))
    on.execute(ledger.CHARGE, {"of": row.dataset, "total": list(left)})
    row.state = ledger.ABORTED
    said = {"campaign": campaign, "number": number, "name": envelope.name, "envelope": envelope.to_json()}
    session.execute(insert(RelinquishmentRow), {**said, "made_at": at})
    session.flush()
    ledger.enter(session, row.campaign, row.number, row.dataset, ledger.ABORTED, decode(Mechanism, row.mechanism), at)
    return envelope, True


def unused(session: Session, campaign: Digest, before: int, at: datetime) -> list[int]:
    """The campaign's rounds below a number whose reservations are live and whose training was not begun."""
    row = ReservationRow
    live = (row.state == ledger.RESERVED, row.begun_at.is_(None), row.expires_at > at)
    return list(session.scalars(select(row.number).where(row.campaign == campaign, row.number < before, *live)))


def lines(session: Session) -> tuple[LedgerLine, ...]:
    """Every reservation as it stands, in the order of campaigns and rounds."""
    ended = select(PrivacyEntry).where(PrivacyEntry.state == ledger.SETTLED)
    settled = {(one.campaign, one.number): decode(Mechanism, one.mechanism) for one in session.scalars(ended)}
    rows = session.scalars(select(ReservationRow).order_by(ReservationRow.campaign, ReservationRow.number))
    return tuple(
        LedgerLine(
            Digest(row.campaign),
            row.number,
            Digest(row.name),
            row.dataset,
            decode(Mechanism, row.mechanism),
            row.state,  # type: ignore[arg-type]  # the schema allows no other
            row.expires_at,
            settled.get((row.campaign, row.number)),
        )
        for row in rows
    )
