"""The life of a campaign's rounds: propose, gather clearances, open, send, collect, commit or abort.

Everything that a round is stands in the registry, written before the step that depends on it; this module only decides what
comes next. A round that was running when the coordinator died is taken up again with the same signed plan.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from bract import flower
from bract.arrays import ArraysFile, read_layout
from bract.digest import Digest
from bract.errors import CODES, LATE, QUORUM, SITE_FAILED, STALE_CLEARANCE, STATE, UNREACHABLE, BractError
from bract.identity import node_fingerprint
from bract.plan import CampaignPlan, Place, RoundPlan, SiteKey
from bract.receipt import EncoderVersion
from bract.signing import Envelope, parse_envelope, unseal, verify_key
from bract.update import Contribution
from bract_server import secure
from bract_server.aggregate.updates import SiteUpdate
from bract_server.arrays import ArrayStore
from bract_server.checkpoint import write_version
from bract_server.registry.store import Campaign, HubRegistry
from bract_server.verify import Expected, verify, verify_arrays

MAX_ABORTED = 3
"""Rounds in a row that may fail before the campaign stops by itself."""

_POLL_S = 0.4
_TTL_SLACK_S = 30.0
_STALE = timedelta(hours=1)

log = logging.getLogger("bract.rounds")


class Stopped(Exception):  # noqa: N818 - no error: somebody asked for it
    """The campaign was stopped from outside."""


@dataclass(frozen=True)
class Hub:
    """What the rounds need: the registry, the arrays, the way to the sites, the clock and a wait that can be cut short."""

    registry: HubRegistry
    store: ArrayStore
    grid: flower.Grid
    now: Callable[[], datetime]
    wait: Callable[[float], bool]

    def pause(self) -> None:
        """Wait a moment.

        Raises:
            Stopped: when the campaign was stopped meanwhile.
        """
        if self.wait(_POLL_S):
            raise Stopped


def run_campaign(hub: Hub, name: str) -> None:
    """Run rounds until the campaign has as many committed ones as its plan asks for.

    Raises:
        Stopped: when the operator stopped it.
        BractError: `no-quorum` after `MAX_ABORTED` rounds in a row without one.
    """
    campaign = hub.registry.campaign(name)
    _sweep(hub)
    aborted = 0
    while _committed(hub, campaign) < campaign.plan.rounds:
        if hub.registry.campaign(name).state != "running":
            raise Stopped
        aborted = 0 if run_round(hub, campaign) else aborted + 1
        if aborted == MAX_ABORTED:
            raise BractError(QUORUM, f"{aborted} rounds in a row had fewer than {campaign.plan.quorum} sites")


def _committed(hub: Hub, campaign: Campaign) -> int:
    return sum(report.state == "committed" for report in hub.registry.rounds(campaign.digest))


def run_round(hub: Hub, campaign: Campaign) -> bool:
    """One round from proposal to commit; False when it was aborted for want of a quorum."""
    missing: dict[str, str] = {}
    sealed = _resume(hub, campaign)
    if sealed is None:
        sealed, missing = _open(hub, campaign)
    if sealed is None:
        return False
    plan = unseal(RoundPlan, sealed, hub.registry.verify_key)
    log.info("round %d of %s: %d sites", plan.number, campaign.plan.name, len(plan.cohort))
    if campaign.plan.secure is None:
        missing |= _collect(hub, campaign, sealed, plan)
        return _close(hub, campaign, plan, missing)
    opened = secure.collect(hub, campaign, sealed, plan, partial(_receive, hub, campaign, plan, sealed.name))
    try:
        return _close(hub, campaign, plan, missing | dict(opened.missing), opened)
    finally:
        opened.remove()


def _resume(hub: Hub, campaign: Campaign) -> Envelope | None:
    """The plan of a round that was running when the coordinator died, if its time is not over; others are aborted."""
    for report in hub.registry.rounds(campaign.digest):
        if report.state not in ("planned", "running"):
            continue
        sealed = hub.registry.round_plan(campaign.digest, report.number)
        if sealed is not None and unseal(RoundPlan, sealed, hub.registry.verify_key).deadline > hub.now():
            return sealed
        hub.registry.abort_round(campaign.digest, report.number, {}, hub.now())
    return None


def _open(hub: Hub, campaign: Campaign) -> tuple[Envelope | None, dict[str, str]]:
    """Propose a round and open it for the sites that cleared and reserved; why the others are missing."""
    plan = campaign.plan
    proposal = hub.registry.propose(campaign.digest, hub.now())
    deadline = proposal.opened_at + timedelta(seconds=plan.deadline_s)
    enough_since: datetime | None = None
    while True:
        now = hub.now()
        answers = hub.registry.answers(campaign.digest, proposal.number, now)
        if len(answers.places) >= plan.quorum:
            enough_since = enough_since or now
        patience = deadline if enough_since is None else min(deadline, enough_since + timedelta(seconds=plan.grace_s))
        if not answers.waiting or now >= patience:
            break
        hub.pause()
    missing = {**answers.refusals, **dict.fromkeys(answers.waiting, LATE)}
    if len(answers.places) < plan.quorum:
        hub.registry.abort_round(campaign.digest, proposal.number, missing, hub.now())
        return None, missing
    version, opened_at = hub.registry.latest_version(campaign.digest), hub.now()
    round_plan = RoundPlan(
        campaign=campaign.digest,
        number=proposal.number,
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
        log.warning("round %d is not opened: %s", proposal.number, error)
        hub.registry.abort_round(campaign.digest, proposal.number, missing, hub.now())
        return None, missing


def _keys(hub: Hub, places: Sequence[Place]) -> tuple[SiteKey, ...]:
    return tuple(SiteKey(place.site, hub.registry.site(place.site).verify_key) for place in places)


def _collect(hub: Hub, campaign: Campaign, sealed: Envelope, plan: RoundPlan) -> dict[str, str]:
    """Send the plan, take answers one by one until all are in, the grace is over, or the deadline; who is missing and why."""
    have = {c.site for c in hub.registry.contributions(campaign.digest, plan.number)}
    asked = [place for place in plan.cohort if place.site not in have]
    pending, missing = _send(hub, campaign, sealed, plan, asked)
    enough_since = hub.now() if len(have) >= campaign.plan.quorum else None
    while pending:
        for message, place in list(pending.items()):
            reply = flower.pull(hub.grid, message)
            if reply is None:
                continue
            del pending[message]
            try:
                _receive(hub, campaign, plan, sealed.name, place, reply)
                have.add(place.site)
            except BractError as error:
                log.warning("round %d: %s is out: %s", plan.number, place.site, error.code)
                missing[place.site] = error.code
        now = hub.now()
        if len(have) >= campaign.plan.quorum:
            enough_since = enough_since or now
        grace_over = enough_since is not None and now >= enough_since + timedelta(seconds=campaign.plan.grace_s)
        if now >= plan.deadline or grace_over:
            break
        if pending:
            hub.pause()
    return missing | {place.site: LATE for place in pending.values()}


def _send(
    hub: Hub, campaign: Campaign, sealed: Envelope, plan: RoundPlan, places: list[Place]
) -> tuple[dict[str, Place], dict[str, str]]:
    """Push the signed plan to each site's node, found by the fingerprint of its public key."""
    by_key = {node_fingerprint(public_key): node for node, public_key in flower.nodes(hub.grid).items()}
    keys = {place.site: hub.registry.site(place.site).node_fingerprint for place in places}
    reached = [place for place in places if keys[place.site] in by_key]
    payload = {"plan": sealed.to_json(), "campaign": campaign.envelope}
    ttl = (plan.deadline - hub.now()).total_seconds() + _TTL_SLACK_S
    nodes = [by_key[keys[place.site]] for place in reached]
    messages = flower.push(hub.grid, payload, nodes, group=str(plan.number), ttl_s=ttl) if nodes else []
    pending = {message: place for message, place in zip(messages, reached, strict=True) if message}
    sent = {place.site for place in pending.values()}
    return pending, {place.site: UNREACHABLE for place in places if place.site not in sent}


def _receive(
    hub: Hub, campaign: Campaign, plan: RoundPlan, plan_digest: Digest, place: Place, reply: flower.Reply
) -> None:
    """Verify one answer and its arrays; accepted only if every rule holds, else kept as evidence (digest and code)."""
    if reply.failed:
        raise BractError(UNREACHABLE, "Flower lost the site's node or its task")
    signed = reply.payload.get("contribution")
    if not isinstance(signed, bytes):
        code = reply.payload.get("refused")
        raise BractError(code if isinstance(code, str) and code in CODES else SITE_FAILED)
    named: Digest | None = None
    update: Digest | None = None
    try:
        envelope = parse_envelope(signed)
        named = envelope.name
        contribution = unseal(Contribution, envelope, verify_key(hub.registry.site(place.site).verify_key))
        update = contribution.update
        expected = _expected(hub, campaign.plan, plan, plan_digest, place)
        verify(contribution, expected)
        verify_arrays(hub.store.path(update), expected)
        hub.registry.accept(envelope, place.site, hub.now())
    except BractError as error:
        hub.registry.reject(place.site, campaign.digest, plan.number, error.code, named, hub.now())
        if update is not None and not hub.registry.keeps(update):
            hub.store.discard(update)
        raise


def _expected(hub: Hub, campaign: CampaignPlan, plan: RoundPlan, plan_digest: Digest, place: Place) -> Expected:
    return Expected(
        place=place,
        plan=plan_digest,
        mechanism=campaign.privacy.mechanism,
        arrays_bytes=plan.arrays_bytes,
        max_norm=campaign.max_update_norm,
        layout=read_layout(hub.store.path(plan.arrays)),
        seeded=campaign.seeded_test is not None,
        masked=campaign.secure is not None,
    )


def _close(
    hub: Hub, campaign: Campaign, plan: RoundPlan, missing: dict[str, str], opened: secure.Opened | None = None
) -> bool:
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


def _close_once(
    hub: Hub, campaign: Campaign, plan: RoundPlan, missing: dict[str, str], opened: secure.Opened | None
) -> bool:
    sent = hub.registry.updates(campaign.digest, plan.number)
    accepted = hub.registry.contributions(campaign.digest, plan.number)
    gone = {p.site for p in plan.cohort} - {c.site for c in accepted} - missing.keys()
    missing = missing | dict.fromkeys(gone, STALE_CLEARANCE)
    whole = opened is None or opened.holds({c.site for c in accepted})
    if len(accepted) < campaign.plan.quorum or not whole:
        hub.registry.abort_round(campaign.digest, plan.number, missing, hub.now())
        _discard(hub, sent)
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
    moved = len(plan.cohort) * plan.arrays_bytes + sum(c.update_bytes for c in accepted)
    shares = written.shares if opened is None else opened.shares
    hub.registry.commit_round(
        campaign.digest, plan.number, version, written.server_state, shares, missing, moved, hub.now()
    )
    _discard(hub, [*sent, *([before.server_state] if before.server_state else [])])
    return True


def _sweep(hub: Hub) -> None:
    """Delete updates that came too late, or whose round was never closed."""
    _discard(hub, hub.store.whole(hub.now() - _STALE))


def _discard(hub: Hub, arrays: Sequence[Digest]) -> None:
    for one in arrays:
        if not hub.registry.keeps(one):
            hub.store.discard(one)
