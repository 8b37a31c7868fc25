"""Campaigns: a signed plan, its public initialisation, and a guarded state."""

from datetime import datetime
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, UNKNOWN_CAMPAIGN, BractError
from bract.plan import CampaignPlan
from bract.receipt import EncoderVersion
from bract.signing import parse_envelope
from bract.value import decode
from bract_server.lifecycle import CampaignState
from bract_server.registry.lineage import add_version
from bract_server.registry.models import CampaignRow, CampaignSiteRow
from bract_server.registry.sites import live_site
from bract_server.registry.unit import Store
from bract_server.registry.views import Campaign


class Campaigns(Store):
    """The part of the registry that knows campaigns."""

    def create_campaign(self, plan: CampaignPlan, initial: EncoderVersion, at: datetime) -> Digest:
        """Sign a plan and keep it with the version that it starts from.

        Args:
            plan: what is to be done.
            initial: the public initialisation, number 0 of this very plan.
            at: now.

        Returns:
            The plan's digest: the campaign's name among digests.

        Raises:
            BractError: `already-exists` for a taken name; `unknown-site` when a site of the plan is not enrolled;
                `malformed` when the plan does not fit together or `initial` is not its first version.
        """
        plan.check()
        with self.writing(at) as unit:
            envelope = unit.sign(plan)
            digest = envelope.name
            if unit.session.scalar(select(CampaignRow.digest).where(CampaignRow.name == plan.name)) is not None:
                raise BractError(ALREADY_EXISTS, f"campaign {plan.name}")
            if (initial.campaign, initial.number, initial.parent, initial.contributions) != (digest, 0, None, ()):
                raise BractError(MALFORMED, "not the first version of this campaign")
            for site in plan.sites:
                live_site(unit.session, site.name)
            row = CampaignRow(
                digest=digest,
                name=plan.name,
                envelope=envelope.to_json(),
                created_at=at,
                state=CampaignState.CREATED,
                reason="",
            )
            unit.session.add(row)
            unit.session.flush()
            unit.session.add_all(CampaignSiteRow(campaign=digest, site=site.name) for site in plan.sites)
            unit.log("campaign.create", digest, name=plan.name)
            add_version(unit, initial, None)
        return digest

    def campaign(self, name: str) -> Campaign:
        """The campaign of that name.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            return _view(named_campaign(session, name))

    def campaign_by_digest(self, digest: Digest) -> Campaign:
        """The campaign with that plan.

        Raises:
            BractError: `unknown-campaign`.
        """
        with self.seeing() as session:
            return _view(campaign_row(session, digest))

    def campaigns(self) -> tuple[Campaign, ...]:
        """Every campaign, oldest first."""
        with self.seeing() as session:
            rows = session.scalars(select(CampaignRow).order_by(CampaignRow.created_at, CampaignRow.name))
            return tuple(_view(row) for row in rows)


def named_campaign(session: Session, name: str) -> CampaignRow:
    """The row of the campaign of that name.

    Raises:
        BractError: `unknown-campaign`.
    """
    row = session.scalar(select(CampaignRow).where(CampaignRow.name == name))
    if row is None:
        raise BractError(UNKNOWN_CAMPAIGN, name)
    return row


def campaign_row(session: Session, digest: str) -> CampaignRow:
    """The row of the campaign with that plan.

    Raises:
        BractError: `unknown-campaign`.
    """
    row = session.get(CampaignRow, digest)
    if row is None:
        raise BractError(UNKNOWN_CAMPAIGN)
    return row


def plan_of(row: CampaignRow) -> CampaignPlan:
    """The plan in a campaign's envelope; the hub itself signed it."""
    return _plan(row.envelope)


@lru_cache(maxsize=64)
def _plan(envelope: bytes) -> CampaignPlan:
    return decode(CampaignPlan, parse_envelope(envelope).payload)


def _view(row: CampaignRow) -> Campaign:
    return Campaign(
        digest=Digest(row.digest),
        plan=plan_of(row),
        envelope=row.envelope,
        state=row.state,
        created_at=row.created_at,
        reason=row.reason,
    )
