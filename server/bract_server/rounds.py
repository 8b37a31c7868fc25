"""The life of a campaign's rounds: propose, gather clearances, open, send, collect, commit or abort.

Everything that a round is stands in the registry, written before the step that depends on it; this module only decides what
comes next. A round that was proposed or running when the hub died is taken up again as it was.
"""

import logging
from functools import partial

from bract.errors import QUORUM, STATE, BractError
from bract.plan import RoundPlan
from bract.signing import unseal
from bract_server import secure
from bract_server.closing import close
from bract_server.collecting import Post, collect, receive
from bract_server.leftovers import discard_leftovers
from bract_server.lifecycle import CampaignState, RoundState
from bract_server.means import Hub, Stopped
from bract_server.opening import open_round
from bract_server.registry.store import Campaign, RoundReport

__all__ = ["Hub", "Stopped", "run_campaign", "run_round"]

MAX_ABORTED = 3
"""Rounds in a row that may fail before the campaign stops by itself."""
_PAUSES_S = (2.0, 10.0)
"""Waits after the first and the second of them: what troubles sites for a moment must not cost each of them three rounds."""

log = logging.getLogger("bract.rounds")


def run_campaign(hub: Hub, name: str) -> None:
    """Run rounds until the campaign has as many committed ones as its plan asks for.

    Raises:
        Stopped: when the operator stopped it.
        BractError: `no-quorum` after `MAX_ABORTED` rounds in a row without one.
    """
    campaign = hub.registry.campaign(name)
    post, aborted = Post(), 0
    while _committed(hub, campaign) < campaign.plan.rounds:
        if hub.registry.campaign(name).state != CampaignState.RUNNING:
            raise Stopped
        aborted = 0 if run_round(hub, post, campaign) else aborted + 1
        if aborted == MAX_ABORTED:
            raise BractError(QUORUM, f"{aborted} rounds in a row had fewer than {campaign.plan.quorum} sites")
        if aborted and hub.wait(_PAUSES_S[aborted - 1]):
            raise Stopped


def _committed(hub: Hub, campaign: Campaign) -> int:
    return sum(report.state == RoundState.COMMITTED for report in hub.registry.rounds(campaign.digest))


def run_round(hub: Hub, post: Post, campaign: Campaign) -> bool:
    """One round from proposal to commit; False when it was aborted: for want of a quorum, or because somebody stopped it."""
    try:
        discard_leftovers(hub.registry, hub.store, hub.now())
    except BractError as error:
        log.warning("what nothing needs stays for now: %s", error)
    try:
        return _run_round(hub, post, campaign, _begun(hub, campaign))
    except BractError as error:
        if error.code != STATE or _begun(hub, campaign) is not None:
            raise
        log.info("%s: its round was ended: %s", campaign.plan.name, error)
        return False


def _run_round(hub: Hub, post: Post, campaign: Campaign, begun: RoundReport | None) -> bool:
    missing: dict[str, str] = {}
    sealed = hub.registry.round_plan(campaign.digest, begun.number) if begun else None
    if sealed is None:
        sealed, missing = open_round(hub, post, campaign, begun)
    if sealed is None:
        return False
    plan = unseal(RoundPlan, sealed, hub.registry.verify_key)
    log.info("round %d of %s: %d sites", plan.number, campaign.plan.name, len(plan.cohort))
    if campaign.plan.secure is None:
        missing |= collect(hub, post, campaign, sealed, plan)
        return close(hub, campaign, plan, missing)
    if plan.deadline <= hub.now():  # a sum is opened at once or never
        updates = hub.registry.updates(campaign.digest, plan.number)
        hub.registry.abort_round(campaign.digest, plan.number, missing, hub.now())
        hub.discard(updates)
        return False
    opened = secure.collect(hub, post, campaign, sealed, plan, partial(receive, hub, campaign, plan, sealed.name))
    try:
        return close(hub, campaign, plan, missing | dict(opened.missing), opened)
    finally:
        opened.remove()


def _begun(hub: Hub, campaign: Campaign) -> RoundReport | None:
    """The round that was proposed or running when the hub died, None when there is none."""
    going = (RoundState.PLANNED, RoundState.RUNNING)
    return next((r for r in hub.registry.rounds(campaign.digest) if r.state in going), None)
