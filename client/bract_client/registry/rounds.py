"""The verbs about rounds: clear, reserve, begin, keep what was sent and what came back."""

from datetime import datetime, timedelta
from hmac import compare_digest

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, insert, select

from bract.consent import RULE_DIGEST
from bract.digest import Digest
from bract.errors import NO_CLEARANCE, NO_RESERVATION, STATE, UNTRUSTED, BractError
from bract.plan import CampaignPlan
from bract.privacy.spec import Mechanism
from bract.receipt import RoundReceipt
from bract.signing import Envelope, parse_envelope, sign, unseal
from bract.update import Clearance, Contribution
from bract.value import decode, digest_value, plain
from bract_client.handles import record_digest
from bract_client.registry import leavers, ledger, members, snapshots
from bract_client.registry.desk import Desk
from bract_client.registry.models import ClearanceRow, ContributionRow, ReceiptRow, ReservationRow
from bract_client.registry.snapshots import Member, Snapshot


class RoundVerbs(Desk):
    """What a site signs for a round, and its privacy ledger."""

    def clearance(
        self,
        plan: CampaignPlan,
        number: int,
        snapshot: Snapshot,
        ttl: timedelta,
        min_subjects: int,
        at: datetime,
    ) -> Envelope:
        """The signed word that consent holds for a round, for `ttl`.

        Raises:
            BractError: `too-few-subjects`; `stale-clearance`; `wrong-state` when the snapshot is of another data set or
                purpose.
        """
        if (snapshot.dataset, snapshot.purpose) != (plan.dataset, plan.purpose):
            raise BractError(STATE, "the snapshot is of another data set or purpose")
        expires_at = snapshots.expiry(snapshot, at, ttl, min_subjects)
        campaign = digest_value(plan)
        with self._write() as session:
            value = Clearance(
                self._keys.site,
                campaign,
                number,
                plan.dataset,
                plan.purpose,
                snapshot.root,
                RULE_DIGEST,
                members.dataset(session, plan.dataset).subjects_floor,
                at,
                expires_at,
            )
            envelope = sign(value, self._keys.signing)
            if session.get(ClearanceRow, envelope.name) is None:
                values = {
                    "name": envelope.name,
                    "campaign": campaign,
                    "number": number,
                    "snapshot": snapshot.root,
                    "envelope": envelope.to_json(),
                    "issued_at": at,
                    "expires_at": expires_at,
                }
                session.execute(insert(ClearanceRow), values)
                self._log(session, "clearance.issue", envelope.name, plain(value), at)
            return envelope

    def cleared(self, name: Digest, campaign: Digest, number: int) -> Clearance:
        """This site's own clearance of that digest.

        Raises:
            BractError: `no-clearance` when the site gave none of that digest for the round.
        """
        with self._read() as session:
            row = session.get(ClearanceRow, name)
            if row is None or (row.campaign, row.number) != (campaign, number):
                raise BractError(NO_CLEARANCE, f"round {number}")
            return unseal(Clearance, parse_envelope(row.envelope), self._keys.signing.public_key())

    def usable(self, snapshot: Digest, at: datetime) -> tuple[Member, ...]:
        """The records of a snapshot that may still be used now, in the order of their subjects.

        Raises:
            BractError: `stale-clearance` when there is no such snapshot.
        """
        with self._read() as session:
            return snapshots.usable(session, snapshot, at, self._use)

    def left(self, clearance: Digest, campaign: Digest, number: int, since: datetime, at: datetime) -> bool:
        """Whether somebody whom the clearance's snapshot held at `since` may no longer be used at `at`.

        Also by a refusal or a correction that was only learnt since, from whenever it counts.
        """
        snapshot = self.cleared(clearance, campaign, number).snapshot
        with self._read() as session:
            if leavers.lost(session, snapshot, since, at, self._use):
                return True
        still = {member.record_no for member in self.usable(snapshot, at)}
        return any(member.record_no not in still for member in self.usable(snapshot, since))

    def unchanged(self, dataset: str, member: Member, payload_digest: bytes) -> bool:
        """Whether a record's payload is still the one that was recorded."""
        now = record_digest(self._keys.subject, dataset, member.record_id, payload_digest)
        return compare_digest(now, member.record_digest)

    def reserve(
        self,
        campaign: Digest,
        number: int,
        dataset: str,
        mechanism: Mechanism,
        at: datetime,
        ttl: timedelta,
        cap: float | None = None,
    ) -> Envelope:
        """Sets a round's privacy aside, on disk before this returns; the same again gives the same envelope.

        `cap` is what the policy allows today; it can only lower the account's own.

        Raises:
            BractError: `unknown-dataset`; `budget-exhausted`; `wrong-state` when the round reserved something else, or
                gave its reservation back.
        """
        with self._write() as session:
            envelope, new = ledger.reserve(
                session, self._keys, campaign, number, dataset=dataset, mechanism=mechanism, at=at, ttl=ttl, cap=cap
            )
            if new:
                body = {"campaign": campaign, "number": number, "dataset": dataset, **plain(mechanism)}
                self._log(session, "privacy.reserve", envelope.name, body, at)
            return envelope

    def reserved(self, name: Digest, campaign: Digest, number: int) -> None:
        """That this reservation is the one that the site made for the round.

        Raises:
            BractError: `no-reservation`.
        """
        with self._read() as session:
            row = session.get(ReservationRow, (campaign, number))
            if row is None or row.name != name or row.state == ledger.ABORTED:
                raise BractError(NO_RESERVATION, "the plan names another reservation, or one that was given back")

    def settle(self, campaign: Digest, number: int, spent: Mechanism, at: datetime) -> None:
        """Notes what the round really spent; the account keeps the whole reservation.

        Raises:
            BractError: `no-reservation`; `overspend`; `wrong-state` once it expired, was given back or was settled
                differently.
        """
        with self._write() as session:
            if ledger.settle(session, campaign, number, spent, at):
                body = {"campaign": campaign, "number": number, **plain(spent)}
                self._log(session, "privacy.settle", campaign, body, at)

    def expire_reservations(self, at: datetime) -> None:
        """Marks reservations that expired unsettled as spent."""
        with self._write() as session:
            for campaign, number in ledger.expire(session, at):
                self._log(session, "privacy.expire", campaign, {"campaign": campaign, "number": number}, at)

    def spent(self, dataset: str) -> tuple[Mechanism, ...]:
        """Every mechanism that was reserved on the data set, whatever came of it, but for those given back unused."""
        with self._read() as session:
            return ledger.spent(session, dataset)

    def begin_training(self, campaign: Digest, number: int, at: datetime) -> None:
        """Marks that training starts; it starts once. Ask `trained` first: a kept contribution is sent again instead.

        Raises:
            BractError: `no-reservation` without a live one; `done-before`.
        """
        with self._write() as session:
            ledger.begin(session, campaign, number, at)
            self._log(session, "training.begin", campaign, {"campaign": campaign, "number": number}, at)

    def begun(self, campaign: Digest, number: int) -> datetime | None:
        """When the training of a round started, None if it did not."""
        with self._read() as session:
            row = session.get(ReservationRow, (campaign, number))
            return None if row is None else row.begun_at

    def trained(self, campaign: Digest, number: int) -> Envelope | None:
        """The kept contribution of a round."""
        with self._read() as session:
            return ledger.contribution(session, campaign, number)

    def foreseeable(self) -> frozenset[str]:
        """The data sets of which a seeded test's update was kept to be sent: there is no DP guarantee for them."""
        with self._read() as session:
            kept = select(ContributionRow.envelope, ReservationRow.dataset).join(
                ReservationRow,
                (ReservationRow.campaign == ContributionRow.campaign)
                & (ReservationRow.number == ContributionRow.number),
            )
            sealed = (
                (decode(Contribution, parse_envelope(one).payload), named) for one, named in session.execute(kept)
            )
            return frozenset(named for value, named in sealed if not value.private)

    def keep_contribution(self, campaign: Digest, number: int, contribution: Envelope, at: datetime) -> None:
        """Settles the round and keeps its signed contribution before it is sent; the same again is fine.

        Raises:
            BractError: `untrusted`; `replay`; as `settle`.
        """
        with self._write() as session:
            if ledger.keep(session, self._keys, campaign, number, envelope=contribution, at=at):
                body = {"campaign": campaign, "number": number}
                self._log(session, "contribution.keep", contribution.name, body, at)

    def last_receipt(self) -> int:
        """The number of the newest receipt that is kept, 0 if there is none."""
        with self._read() as session:
            return session.scalar(select(func.coalesce(func.max(ReceiptRow.number), 0))) or 0

    def keep_receipt(self, number: int, receipt: Envelope, hub_key: Ed25519PublicKey, at: datetime) -> None:
        """Keeps the hub's receipt for a contribution of this site; the same again is fine.

        Args:
            number: its place in the hub's list for this site.
            receipt: as the hub signed it.
            hub_key: the hub's, pinned at enrolment.
            at: now.

        Raises:
            BractError: `untrusted` unless the hub signed it for this site; `wrong-state` for a contribution that is
                unknown or has another receipt.
        """
        value = unseal(RoundReceipt, receipt, hub_key)
        if value.site != self._keys.site:
            raise BractError(UNTRUSTED, "the receipt is for another site")
        with self._write() as session:
            mine = select(ContributionRow.name).where(ContributionRow.name == value.contribution)
            if session.scalar(mine) is None:
                raise BractError(STATE, "the receipt is for a contribution that the site did not make")
            before = session.get(ReceiptRow, value.contribution)
            if before is not None:
                if parse_envelope(before.envelope).name != receipt.name:
                    raise BractError(STATE, "the contribution has another receipt")
                return
            values = {
                "contribution": value.contribution,
                "number": number,
                "envelope": receipt.to_json(),
                "kept_at": at,
            }
            session.execute(insert(ReceiptRow), values)
            self._log(session, "receipt.keep", value.contribution, plain(value), at)
