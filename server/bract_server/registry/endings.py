"""How rounds and campaigns end: a round as an encoder version with its lineage and receipts, or as nothing.

A campaign that does not run has no open round: what is open when it is stopped or fails is aborted in the same transaction.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import LATE, MALFORMED, QUARANTINED, QUORUM, STALE_CLEARANCE, STATE, STOPPED, BractError
from bract.model import NodeKind, Relation, Role
from bract.receipt import EncoderVersion, RoundReceipt
from bract_server.lifecycle import CAMPAIGN, MOVE_TO, CampaignState, RoundMove, RoundState
from bract_server.lifecycle import ROUND as ROUND_LIFE
from bract_server.registry.campaigns import campaign_row, named_campaign, plan_of
from bract_server.registry.contributions import included
from bract_server.registry.impacts import extend
from bract_server.registry.lineage import ROUND, SNAPSHOT, VERSION, add_version, dataset_ref, link, node, snapshot_ref
from bract_server.registry.models import (
    ClearanceRow,
    ContributionRow,
    OutcomeRow,
    ReceiptRow,
    RefusalRow,
    RevocationRow,
    RoundPlanRow,
    RoundRow,
)
from bract_server.registry.places import round_row
from bract_server.registry.quarantine import apart
from bract_server.registry.rounds import OPEN
from bract_server.registry.unit import Store, Unit

_Included = list[tuple[ContributionRow, ClearanceRow]]


class Endings(Store):
    """The part of the registry that ends rounds and moves campaigns on."""

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
            ROUND_LIFE.after(RoundState(row.state), RoundMove.COMMIT, number)
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

    def set_state(self, name: str, state: str, reason: str, at: datetime) -> None:
        """Move a campaign on; `reason` says why it stopped or failed (a code, or the operator's words).

        Rounds that are open when it ceases to run are aborted; what was reserved for them stays spent.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when `state` may not follow the present one (`lifecycle.CAMPAIGN`).
        """
        with self.writing(at) as unit:
            row = named_campaign(unit.session, name)
            wanted = CampaignState(state)
            if wanted not in MOVE_TO:
                raise BractError(STATE, f"campaign {name} is {row.state} and cannot become {state}")
            CAMPAIGN.after(CampaignState(row.state), MOVE_TO[wanted], name)
            unit.log("campaign.move", row.digest, before=row.state, after=state, reason=reason)
            row.state, row.reason = state, reason
            if wanted is not CampaignState.RUNNING:
                _abort_open(unit, row.digest)


def _abort_open(unit: Unit, campaign: str) -> None:
    """End the rounds that are open; who was out of one for a reason of its own keeps it, the others were stopped."""
    for row in unit.session.scalars(select(RoundRow).where(RoundRow.campaign == campaign, RoundRow.state.in_(OPEN))):
        sites = [site.name for site in plan_of(campaign_row(unit.session, campaign)).sites]
        _close(unit, row, None, dict.fromkeys(sorted(sites), STOPPED) | _own_reasons(unit.session, row, sites), 0)


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
    """Why each site of the plan is not in the round: what the caller knows, the site's own reason, or what stands here."""
    names = sorted(site.name for site in plan_of(campaign_row(session, row.campaign)).sites)
    reasons = dict.fromkeys(names, LATE) | dict.fromkeys(session.scalars(_sent(row)), QUORUM)
    reasons |= _own_reasons(session, row, names) | dict(known)
    return {name: reasons[name] for name in names if name not in inside}


def _sent(row: RoundRow) -> Select[str]:
    """The sites whose contributions to the round were accepted."""
    return select(ContributionRow.site).where(ContributionRow.round_id == row.id, ContributionRow.accepted)


def _own_reasons(session: Session, row: RoundRow, names: Sequence[str]) -> dict[str, str]:
    """The sites that are out for a reason of their own: what was refused of them, their refusal, withdrawal, quarantine."""
    rejected = select(ContributionRow.site, ContributionRow.code).where(
        ContributionRow.round_id == row.id, ~ContributionRow.accepted, ContributionRow.site.not_in(_sent(row))
    )
    refusals = select(RefusalRow.site, RefusalRow.code).where(RefusalRow.round_id == row.id)
    revoked = (
        select(ClearanceRow.site)
        .join(RevocationRow, RevocationRow.clearance_id == ClearanceRow.id)
        .where(ClearanceRow.round_id == row.id)
    )
    reasons = {site: str(code) for site, code in session.execute(rejected.order_by(ContributionRow.id))}
    reasons |= {site: str(code) for site, code in session.execute(refusals)}
    reasons |= dict.fromkeys(session.scalars(revoked), STALE_CLEARANCE)
    return reasons | dict.fromkeys(apart(session) & {*names}, QUARANTINED)


def _close(unit: Unit, row: RoundRow, version: Digest | None, missing: dict[str, str], bytes_moved: int) -> None:
    unit.session.add(
        OutcomeRow(round_id=row.id, version=version, missing=missing, bytes_moved=bytes_moved, closed_at=unit.at)
    )
    row.state = ROUND_LIFE.after(RoundState(row.state), RoundMove.COMMIT if version else RoundMove.ABORT, row.number)
    verb = "round.commit" if version else "round.abort"
    unit.log(verb, version or row.campaign, campaign=row.campaign, number=row.number, missing=missing)
