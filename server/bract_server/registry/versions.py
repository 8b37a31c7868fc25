"""The end of a round: an encoder version with its lineage and receipts, or nothing. And every version's name."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import LATE, MALFORMED, QUORUM, STALE_CLEARANCE, BractError
from bract.model import NodeKind, Relation, Role
from bract.receipt import EncoderVersion, RoundReceipt
from bract.value import decode
from bract_server import lifecycle
from bract_server.lifecycle import RoundMove, RoundState, TaskState
from bract_server.registry.answers import round_row
from bract_server.registry.campaigns import campaign_row, plan_of
from bract_server.registry.impacts import extend
from bract_server.registry.inspections import inspection
from bract_server.registry.lineage import ROUND, SNAPSHOT, VERSION, add_version, dataset_ref, link, node, snapshot_ref
from bract_server.registry.models import (
    CampaignRow,
    ClearanceRow,
    ContributionRow,
    OutcomeRow,
    ParticipantRow,
    ReceiptRow,
    RefusalRow,
    RevocationRow,
    RoundPlanRow,
    RoundRow,
    ServerStateRow,
    VersionRow,
)
from bract_server.registry.rounds import OPEN, included
from bract_server.registry.tasks import task_state
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import RoundReport, Version

_Included = list[tuple[ContributionRow, ClearanceRow]]


class Versions(Store):
    """The part of the registry that ends rounds and knows what came of them."""

    def commit_round(
        self,
        campaign: Digest,
        number: int,
        version: EncoderVersion,
        server_state: Digest | None,
        shares: Mapping[str, float],
        missing: Mapping[str, str],
        bytes_moved: int,
        at: datetime,
    ) -> Digest:
        """Make a version out of a round: version, lineage, receipts and the round's end, all at once.

        Args:
            campaign: the campaign's plan.
            number: the round.
            version: names exactly the round's contributions, in the order of their sites' names.
            server_state: digest of the server optimizer's state after the round.
            shares: of each included site in the sum of weights.
            missing: why the others are not in it, by code.
            bytes_moved: of arrays, to sites and back.
            at: now.

        Returns:
            The version's digest.

        Raises:
            BractError: `wrong-state` when the round is not running; `stale-clearance` when the version is not made of
                the round's contributions as they stand now (a withdrawal may have revoked one: read them again);
                `no-quorum`; `malformed`; `unknown-campaign`.
        """
        with self.writing(at) as unit:
            row = round_row(unit.session, campaign, number)
            plan = unit.session.get(RoundPlanRow, row.id)
            lifecycle.ROUND.after(RoundState(row.state), RoundMove.COMMIT, number)
            assert plan is not None  # noqa: S101 - a running round has one
            inside = included(unit.session, row.id)
            _check_version(version, plan, row, inside, shares)
            if len(inside) < plan_of(campaign_row(unit.session, campaign)).quorum:
                raise BractError(QUORUM, f"{len(inside)} sites")
            digest, new = _make(unit, version, server_state, plan, inside)
            for contribution, _ in inside:
                _receipt(unit, contribution, plan, digest, shares[contribution.site])
            _close(unit, row, digest, _missing(unit.session, row, set(shares), missing), bytes_moved)
            extend(unit, new)
        return digest

    def abort_round(self, campaign: Digest, number: int, missing: Mapping[str, str], at: datetime) -> None:
        """End a round without a version. What sites reserved for it stays spent.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when it has ended already.
        """
        with self.writing(at) as unit:
            row = round_row(unit.session, campaign, number)
            _close(unit, row, None, _missing(unit.session, row, set(), missing), 0)

    def latest_version(self, campaign: Digest) -> Version:
        """The campaign's newest version.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            campaign_row(session, campaign)
            newest = select(VersionRow).where(VersionRow.campaign == campaign).order_by(VersionRow.number.desc())
            return _view(session, session.scalars(newest.limit(1)).one())

    def version(self, digest: Digest) -> Version:
        """The version of that name.

        Raises:
            BractError: `malformed` when there is none.
        """
        with self.seeing() as session:
            row = session.get(VersionRow, digest)
            if row is None:
                raise BractError(MALFORMED, "no encoder version of that digest")
            return _view(session, row)

    def versions(self) -> tuple[Version, ...]:
        """Every version, oldest first."""
        with self.seeing() as session:
            rows = session.scalars(select(VersionRow).order_by(VersionRow.created_at, VersionRow.number))
            return tuple(_view(session, row) for row in rows)

    def rounds(self, campaign: Digest) -> tuple[RoundReport, ...]:
        """Every round of a campaign, by number.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            campaign_row(session, campaign)
            rows = session.scalars(select(RoundRow).where(RoundRow.campaign == campaign).order_by(RoundRow.number))
            return tuple(_report(session, row) for row in rows)

    def receipts(self, site: str, after: int) -> list[tuple[int, bytes]]:
        """The site's receipts numbered above `after`: pairs of number and envelope's JSON, oldest first."""
        wanted = (
            select(ReceiptRow.id, ReceiptRow.envelope)
            .where(ReceiptRow.site == site, ReceiptRow.id > after)
            .order_by(ReceiptRow.id)
        )
        with self.seeing() as session:
            return [(number, envelope) for number, envelope in session.execute(wanted)]

    def wanted(self, campaign: Digest, number: int) -> bool:
        """Whether a round runs, and its campaign with it."""
        found = (
            select(RoundRow.id)
            .join(CampaignRow, CampaignRow.digest == RoundRow.campaign)
            .where(
                RoundRow.campaign == campaign,
                RoundRow.number == number,
                RoundRow.state == "running",
                CampaignRow.state == "running",
            )
        )
        with self.seeing() as session:
            return session.scalar(found) is not None

    def keeps(self, array: Digest) -> bool:
        """Whether a file is still needed: a version's arrays, a newest optimizer state, a running round's update."""
        update = exists().where(
            ContributionRow.update_digest == array, ContributionRow.round_id == RoundRow.id, RoundRow.state == "running"
        )
        newer = VersionRow.__table__.alias()
        state = exists().where(
            ServerStateRow.digest == array,
            ServerStateRow.version == VersionRow.digest,
            ~exists().where(newer.c.campaign == VersionRow.campaign, newer.c.number > VersionRow.number),
        )
        with self.seeing() as session:
            wanted = select(exists().where(VersionRow.arrays == array) | update | state)
            return bool(session.scalar(wanted))

    def oldest_open(self) -> datetime | None:
        """When the oldest round that is not closed was proposed, of whatever campaign."""
        with self.seeing() as session:
            return session.scalar(select(func.min(RoundRow.proposed_at)).where(RoundRow.state.in_(OPEN)))


def _check_version(
    version: EncoderVersion, plan: RoundPlanRow, row: RoundRow, inside: _Included, shares: Mapping[str, float]
) -> None:
    """The version is what this round makes of exactly the contributions that stand."""
    if (version.campaign, version.number, version.parent) != (row.campaign, row.number, plan.parent):
        raise BractError(MALFORMED, "not a version of this round")
    sites = [contribution.site for contribution, _ in inside]
    if list(version.contributions) != [c.digest for c, _ in inside] or sorted(shares) != sites:
        raise BractError(STALE_CLEARANCE, "the version is not made of the round's contributions as they stand now")


def _make(
    unit: Unit, version: EncoderVersion, server_state: Digest | None, plan: RoundPlanRow, inside: _Included
) -> tuple[Digest, list[int]]:
    """Keep the version with its lineage; also the numbers of the nodes that it made."""
    session = unit.session
    dataset = plan_of(campaign_row(session, version.campaign)).dataset
    parts = [_part(session, contribution, clearance, dataset) for contribution, clearance in inside]
    made_by = node(session, ROUND, plan.digest)
    link(session, made_by, Relation.USED, parts)
    digest = add_version(unit, version, server_state)
    made = node(session, VERSION, digest)
    link(session, made, Relation.GENERATED, [made_by])
    link(session, made, Relation.DERIVED, [node(session, VERSION, plan.parent)], Role.INITIALISED)
    return digest, [*parts, made_by, made]


def _part(session: Session, contribution: ContributionRow, clearance: ClearanceRow, dataset: str) -> int:
    """The node of a contribution, below its snapshot and that snapshot's data set."""
    whole = node(session, NodeKind.DATASET, dataset_ref(clearance.site, dataset))
    snapshot = node(session, SNAPSHOT, snapshot_ref(clearance.site, clearance.snapshot))
    link(session, snapshot, Relation.DERIVED, [whole], Role.DRAWN)
    part = node(session, NodeKind.CONTRIBUTION, contribution.digest or "")
    link(session, part, Relation.DERIVED, [snapshot], Role.TRAINED)
    return part


def _receipt(unit: Unit, contribution: ContributionRow, plan: RoundPlanRow, version: Digest, share: float) -> None:
    named = Digest(contribution.digest or "")
    receipt = RoundReceipt(contribution.site, Digest(plan.digest), named, version, share, unit.at)
    envelope = unit.sign(receipt)
    unit.session.add(
        ReceiptRow(
            site=contribution.site,
            contribution_id=contribution.id,
            version=version,
            envelope=envelope.to_json(),
            issued_at=unit.at,
        )
    )
    unit.log("receipt.issue", envelope.name, site=contribution.site, version=version, share=share)


def _missing(session: Session, row: RoundRow, inside: set[str], known: Mapping[str, str]) -> dict[str, str]:
    """Why each site of the plan is not in the round: what the caller knows, the site's refusal, or what stands here."""
    refusals = select(RefusalRow.site, RefusalRow.code).where(RefusalRow.round_id == row.id)
    reasons: dict[str, str] = dict(session.execute(refusals).all())
    revoked = (
        select(ClearanceRow.site)
        .join(RevocationRow, RevocationRow.clearance_id == ClearanceRow.id)
        .where(ClearanceRow.round_id == row.id)
    )
    reasons |= dict.fromkeys(session.scalars(revoked), STALE_CLEARANCE)
    reasons |= known
    names = sorted(site.name for site in plan_of(campaign_row(session, row.campaign)).sites)
    return {name: reasons.get(name, LATE) for name in names if name not in inside}


def _close(unit: Unit, row: RoundRow, version: Digest | None, missing: dict[str, str], bytes_moved: int) -> None:
    unit.session.add(
        OutcomeRow(round_id=row.id, version=version, missing=missing, bytes_moved=bytes_moved, closed_at=unit.at)
    )
    row.state = lifecycle.ROUND.after(
        RoundState(row.state), RoundMove.COMMIT if version else RoundMove.ABORT, row.number
    )
    verb = "round.commit" if version else "round.abort"
    unit.log(verb, version or row.campaign, campaign=row.campaign, number=row.number, missing=missing)


def _view(session: Session, row: VersionRow) -> Version:
    state = session.get(ServerStateRow, row.digest)
    value = decode(EncoderVersion, row.body)
    return Version(Digest(row.digest), value, Digest(state.digest) if state else None, row.created_at)


def _report(session: Session, row: RoundRow) -> RoundReport:
    outcome = session.get(OutcomeRow, row.id)
    inside: Iterable[str]
    if outcome is None:
        inside = session.scalars(select(ParticipantRow.site).where(ParticipantRow.round_id == row.id))
    else:
        inside = session.scalars(select(ReceiptRow.site).where(ReceiptRow.version == outcome.version))
    return RoundReport(
        number=row.number,
        state=row.state,
        version=Digest(outcome.version) if outcome and outcome.version else None,
        participants=tuple(sorted(inside)),
        missing=dict(outcome.missing) if outcome else {},
        opened_at=row.proposed_at,
        closed_at=outcome.closed_at if outcome else None,
        seconds=(outcome.closed_at - row.proposed_at).total_seconds() if outcome else None,
        bytes_moved=outcome.bytes_moved if outcome else 0,
        inspection=inspection(session, row.id),
        tasks={} if outcome else _tasks(session, row),
    )


def _tasks(session: Session, row: RoundRow) -> dict[str, TaskState]:
    """How far each site of the plan is in an open round."""
    names = sorted(site.name for site in plan_of(campaign_row(session, row.campaign)).sites)
    return {name: task_state(session, row, name) for name in names}
