"""How a round is closed: the next version out of what was accepted, or nothing; the updates' arrays go either way."""

import logging
from collections.abc import Sequence

from bract.arrays import ArraysFile, read_layout
from bract.errors import QUORUM, STALE_CLEARANCE, STATE, SUSPECTED, BractError
from bract.plan import RoundPlan
from bract.receipt import EncoderVersion
from bract_server.aggregate.updates import SiteUpdate, by_site
from bract_server.checkpoint import write_version
from bract_server.inspection import findings
from bract_server.means import Hub
from bract_server.registry.store import Campaign
from bract_server.unmask import Opened

log = logging.getLogger("bract.rounds")


def close(hub: Hub, campaign: Campaign, plan: RoundPlan, missing: dict[str, str], opened: Opened | None = None) -> bool:
    """Commit the round on quorum, else abort it; the updates' arrays are deleted either way.

    A withdrawal may end a clearance while the round is being closed; it is then closed again without that site. Out of a
    sum that was opened together nobody can be taken: then the round is aborted.
    """
    for _ in plan.cohort:
        try:
            return _close_once(hub, campaign, plan, missing, opened)
        except BractError as error:
            if error.code != STALE_CLEARANCE:
                raise
    raise BractError(STALE_CLEARANCE)


def _close_once(hub: Hub, campaign: Campaign, plan: RoundPlan, missing: dict[str, str], opened: Opened | None) -> bool:
    sent = hub.registry.updates(campaign.digest, plan.number)
    accepted = hub.registry.contributions(campaign.digest, plan.number)
    whole = opened is None or opened.holds({c.site for c in accepted})
    if len(accepted) < campaign.plan.quorum or not whole:
        hub.registry.abort_round(campaign.digest, plan.number, missing, hub.now())
        hub.discard(sent)
        return False
    before = hub.registry.latest_version(campaign.digest)
    if before.digest != plan.parent:
        raise BractError(STATE, "another version was committed meanwhile")
    layout = read_layout(hub.store.path(plan.arrays))
    updates = [
        SiteUpdate(c.site, campaign.plan.site(c.site).weight, c.update, ArraysFile(hub.store.path(c.update), layout))
        for c in accepted
    ]
    if opened is not None:
        updates = opened.updates(layout)
    out = _left_out(hub, campaign, plan, updates)
    updates = [update for update in updates if update.site not in out]
    if len(updates) < campaign.plan.quorum and out:
        reasons = dict.fromkeys((update.site for update in updates), QUORUM) | dict.fromkeys(out, SUSPECTED)
        hub.registry.abort_round(campaign.digest, plan.number, missing | reasons, hub.now())
        hub.discard(sent)
        return False
    chosen = campaign.plan.aggregation
    written = write_version(hub.store, plan.arrays, before.server_state, campaign.plan.server, chosen, updates)
    version = EncoderVersion(
        campaign=campaign.digest,
        number=plan.number,
        arrays=written.arrays,
        arrays_bytes=written.arrays_bytes,
        parent=plan.parent,
        contributions=tuple(c.digest for c in sorted(accepted, key=lambda c: c.site)),
    )
    moved = len(plan.cohort) * plan.arrays_bytes + sum(hub.store.path(c.update).stat().st_size for c in accepted)
    shares = dict.fromkeys(out, 0.0) | dict(written.shares if opened is None else opened.shares)
    hub.registry.commit_round(
        campaign.digest, plan.number, version, written.server_state, shares, missing, moved, hub.now()
    )
    hub.discard([*sent, *([before.server_state] if before.server_state else [])])
    return True


def _left_out(hub: Hub, campaign: Campaign, plan: RoundPlan, updates: Sequence[SiteUpdate]) -> frozenset[str]:
    """Inspect the updates if the plan asks for it, and keep what was found: the sites whose updates do not count.

    They stay among the version's contributions, with a share of nothing: what they sent decided who is in.
    """
    chosen = campaign.plan.inspection
    if chosen == "none":
        return frozenset()
    # torch is needed for this alone; rounds without an inspection stay quick to start
    from bract_server.embedding import embed  # noqa: PLC0415

    ordered = by_site(updates)
    origin = ArraysFile(hub.store.path(plan.arrays), ordered[0].arrays.layout)
    found = findings([u.site for u in ordered], embed(campaign.plan, origin, [u.arrays for u in ordered]))
    flagged = [one.site for one in found if one.flagged]
    scores, excluded = {one.site: one.score for one in found}, chosen == "exclude"
    hub.registry.keep_inspection(campaign.digest, plan.number, scores, flagged, excluded=excluded, at=hub.now())
    if flagged:
        log.warning("round %d: the backdoor check suspects %s", plan.number, ", ".join(flagged))
    return frozenset(flagged if excluded else ())
