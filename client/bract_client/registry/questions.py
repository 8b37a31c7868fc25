"""What the steward asks of the registry about rounds that were: accounts, receipts, one person's part."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from bract.consent import Purpose
from bract.digest import Digest
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope
from bract.value import decode
from bract_client.registry import leavers, ledger
from bract_client.registry.imports import ImportVerbs
from bract_client.registry.models import ClearanceRow, PrivacyAccount, ReceiptRow, ReservationRow, SnapshotRow


@dataclass(frozen=True)
class Account:
    """A data set's privacy account: its cap, and every mechanism that was reserved and not given back unused."""

    dataset: str
    cap_epsilon: float
    delta: float
    spent: tuple[Mechanism, ...]


@dataclass(frozen=True)
class Part:
    """Whether the snapshot of a round held a record of one person, and what the round reserved and did not give back."""

    campaign: Digest
    number: int
    snapshot: Digest
    held: bool
    dataset: str
    reserved: Mechanism | None


@dataclass(frozen=True)
class Spend:
    """What the rounds that held one person may have cost that person, over all data sets and campaigns of the site.

    A round counts once, and as it was reserved: also when it failed, and also when the person withdrew after it was
    cleared. The person's own coins say nothing: to be eligible is to spend.

    Attributes:
        mechanisms: one a round.
        delta: the least δ of the accounts that were charged, so that ε is no smaller than any of them would say; None
            without a round.
        cap_epsilon: the least of their caps, None without a round.
    """

    mechanisms: tuple[Mechanism, ...]
    delta: float | None
    cap_epsilon: float | None


def spend(parts: Iterable[Part], accounts: Iterable[Account]) -> Spend:
    """The parts of one person composed: each round in which a snapshot held the person and privacy was reserved."""
    rounds = {(part.campaign, part.number): part for part in parts if part.held and part.reserved is not None}
    charged = {part.dataset for part in rounds.values()}
    concerned = [account for account in accounts if account.dataset in charged]
    return Spend(
        tuple(part.reserved for part in rounds.values() if part.reserved is not None),
        min((account.delta for account in concerned), default=None),
        min((account.cap_epsilon for account in concerned), default=None),
    )


class Questions(ImportVerbs):
    """Answers that change nothing."""

    def accounts(self) -> tuple[Account, ...]:
        """Every privacy account, by data set."""
        with self._read() as session:
            rows = session.scalars(select(PrivacyAccount).order_by(PrivacyAccount.dataset)).all()
            return tuple(Account(r.dataset, r.cap_epsilon, r.delta, ledger.spent(session, r.dataset)) for r in rows)

    def receipts(self) -> tuple[Envelope, ...]:
        """The hub's receipts, oldest first."""
        with self._read() as session:
            rows = session.scalars(select(ReceiptRow.envelope).order_by(ReceiptRow.number))
            return tuple(map(parse_envelope, rows))

    def issued(self, campaign: Digest, number: int, at: datetime) -> Envelope | None:
        """The clearance that was given for a round and still stands, so that a retry sends the same one."""
        row = ClearanceRow
        wanted = select(row.envelope).where(row.campaign == campaign, row.number == number, row.expires_at > at)
        with self._read() as session:
            found = session.scalars(wanted.order_by(row.issued_at.desc())).first()
            return None if found is None else parse_envelope(found)

    def parts(self, subject_id: str) -> tuple[Part, ...]:
        """For every round that the site cleared, whether its snapshot held this person, in the rounds' order.

        Raises:
            BractError: `unknown-subject`.
        """
        row, kept, reserved = ClearanceRow, SnapshotRow, ReservationRow
        with self._read() as session:
            held = leavers.holding(session, self._known(session, subject_id), tuple(Purpose), None)
            wanted = (
                select(row.campaign, row.number, row.snapshot, kept.dataset, reserved.mechanism)
                .join(kept, kept.root == row.snapshot)
                .outerjoin(
                    reserved,
                    (reserved.campaign == row.campaign)
                    & (reserved.number == row.number)
                    & (reserved.state != ledger.ABORTED),
                )
                .order_by(row.issued_at, row.number)
            )
            return tuple(
                Part(
                    Digest(campaign),
                    number,
                    Digest(root),
                    root in held,
                    dataset,
                    None if mechanism is None else decode(Mechanism, mechanism),
                )
                for campaign, number, root, dataset, mechanism in session.execute(wanted)
            )
