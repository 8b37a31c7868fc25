"""How a round is opened: proposed to its sites, and opened for those that cleared and reserved."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from bract.errors import LATE, BractError
from bract.plan import Place, RoundPlan, SiteKey
from bract.signing import Envelope
from bract_server.collecting import Post, take_late
from bract_server.means import Hub
from bract_server.registry.store import Campaign
from bract_server.registry.views import RoundAnswers, RoundReport

log = logging.getLogger("bract.opening")


def open_round(
    hub: Hub, post: Post, campaign: Campaign, planned: RoundReport | None
) -> tuple[Envelope | None, dict[str, str]]:
    """Open a round for the sites that cleared and reserved; why the others are missing. None when it was aborted instead.

    Args:
        hub: what there is to work with.
        post: what is still under way from former rounds.
        campaign: the campaign.
        planned: a round that was proposed before the hub was killed; None proposes the next one.
    """
    if planned is None:
        proposal = hub.registry.propose(campaign.digest, hub.now())
        number, proposed_at = proposal.number, proposal.opened_at
    else:
        number, proposed_at = planned.number, planned.opened_at
    plan, answers = campaign.plan, _answers(hub, post, campaign, number, proposed_at)
    missing = {**answers.refusals, **dict.fromkeys(answers.waiting, LATE)}
    if len(answers.places) < plan.quorum:
        hub.registry.abort_round(campaign.digest, number, missing, hub.now())
        return None, missing
    version, opened_at = hub.registry.latest_version(campaign.digest), hub.now()
    round_plan = RoundPlan(
        campaign=campaign.digest,
        number=number,
        parent=version.digest,
        arrays=version.value.arrays,
        arrays_bytes=version.value.arrays_bytes,
        cohort=answers.places,
        opened_at=opened_at,
        deadline=opened_at + timedelta(seconds=plan.deadline_s),
        keys=_keys(hub, answers.places) if plan.secure is not None else (),
    )
    try:
        return hub.registry.open_round(round_plan, hub.now()), missing
    except BractError as error:
        # somebody withdrew, or a site was shut out, between its answer and now
        log.warning("round %d is not opened: %s", number, error)
        hub.registry.abort_round(campaign.digest, number, missing, hub.now())
        return None, missing


def _answers(hub: Hub, post: Post, campaign: Campaign, number: int, proposed_at: datetime) -> RoundAnswers:
    """What the sites answered, once all have, or a quorum and the grace is over, or the deadline."""
    plan = campaign.plan
    deadline = proposed_at + timedelta(seconds=plan.deadline_s)
    enough_since: datetime | None = None
    while True:
        now = hub.now()
        answers = hub.registry.answers(campaign.digest, number, now)
        if len(answers.places) >= plan.quorum:
            enough_since = enough_since or now
        patience = deadline if enough_since is None else min(deadline, enough_since + timedelta(seconds=plan.grace_s))
        if not answers.waiting or now >= patience:
            return answers
        take_late(hub, post, campaign)
        hub.pause()


def _keys(hub: Hub, places: Sequence[Place]) -> tuple[SiteKey, ...]:
    return tuple(SiteKey(place.site, hub.registry.site(place.site).verify_key) for place in places)
