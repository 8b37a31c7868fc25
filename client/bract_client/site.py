"""What a site answers to its hub: pure decisions over its own registry, policy and keys; no network here.

Rules of `answer` (before a round) and `task` (when it runs); the first that does not hold refuses with its code:
    1. The hub's key, pinned at enrolment, signed it.
    2. The campaign is the one that was proposed, and names this site.
    3. The site's own policy permits it, and so do the data set's terms, if there are any; the hub's word cannot loosen that.
    4. Enough subjects consent, now, to this purpose; the clearance is short-lived and names no one.
    5. The ledger has reserved the round's cost on disk.
    6. When the round runs: this site's own clearance and reservation are in the plan, the cohort is no smaller than the
       policy asks, the deadline is ahead, and the round was not trained before. What was kept of it is sent again only while
       everybody in it is still permitted.
    7. Neither is dated minutes ahead of this site's clock: deadlines and clearances would mean nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bract.database import open_engine
from bract.errors import (
    CLOCK,
    FOREIGN_CODE,
    LATE,
    NO_CLEARANCE,
    POLICY,
    STALE_CLEARANCE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.identity import SKEW
from bract.migrations import migrate, revisions
from bract.plan import CampaignPlan, Place, Proposal, RoundPlan
from bract.signing import Envelope, parse_envelope, sign, unseal, verify_key
from bract.supervisor import Program, environment, python
from bract.update import Refusal
from bract_client.home import SiteHome
from bract_client.policy import SitePolicy, permit
from bract_client.registry import MIGRATIONS
from bract_client.registry.store import SiteRegistry

_RESERVATION_SLACK = timedelta(hours=1)


@dataclass(frozen=True)
class Answer:
    """A site's yes to a proposal: both are needed for a place in the round."""

    clearance: Envelope
    reservation: Envelope


@dataclass(frozen=True)
class Task:
    """A round that this site has agreed to train: the plans and its own place."""

    campaign: CampaignPlan
    plan: RoundPlan
    sealed: Envelope
    place: Place


@dataclass(frozen=True)
class Site:
    """A site's name, what it trusts, what it permits and what it knows; its keys are arguments of what needs them."""

    name: str
    hub_key: Ed25519PublicKey
    policy: SitePolicy
    registry: SiteRegistry

    def answer(self, proposal: Envelope, campaign: Envelope, at: datetime) -> Answer:
        """Clear and reserve for a proposed round.

        Raises:
            BractError: with the code of the first rule that does not hold.
        """
        asked = unseal(Proposal, proposal, self.hub_key)
        _check_clock(asked.opened_at, at)
        plan = self._campaign(campaign, asked.campaign, at)
        # A campaign has one round open at a time: what its earlier ones reserved and never began is free again.
        self.registry.relinquish_before(asked.campaign, asked.number, at)
        ttl = timedelta(seconds=self.policy.clearance_ttl_s)
        clearance = self.registry.issued(asked.campaign, asked.number, at)
        if clearance is None:
            snapshot = self.registry.freeze(plan.dataset, plan.purpose, at)
            clearance = self.registry.clearance(plan, asked.number, snapshot, ttl, self.policy.min_subjects, at)
        reservation = self.registry.reserve(
            asked.campaign,
            asked.number,
            plan.dataset,
            plan.privacy.mechanism,
            at,
            2 * timedelta(seconds=plan.deadline_s) + _RESERVATION_SLACK,
            self.policy.cap(plan.dataset),
        )
        return Answer(clearance, reservation)

    def refusal(self, proposal: Envelope, code: str, key: Ed25519PrivateKey) -> Envelope:
        """The signed no to a proposal, which says a code and nothing else.

        Raises:
            BractError: when the proposal itself is not the hub's; then there is nobody to answer.
        """
        asked = unseal(Proposal, proposal, self.hub_key)
        return sign(Refusal(self.name, asked.campaign, asked.number, code), key)

    def task(self, payload: Mapping[str, bytes | str], bundle_files: tuple[str, ...], at: datetime) -> Task:
        """The round that a message asks this site to train.

        Raises:
            BractError: with the code of the first rule that does not hold.
        """
        if set(bundle_files) - {"pyproject.toml", ".info/CONTENT"}:
            raise BractError(FOREIGN_CODE, f"{len(bundle_files)} files in the bundle")
        sealed, campaign = payload.get("plan"), payload.get("campaign")
        if not isinstance(sealed, bytes) or not isinstance(campaign, bytes):
            raise BractError(UNTRUSTED, "the message holds no signed plan")
        envelope = parse_envelope(sealed)
        plan = unseal(RoundPlan, envelope, self.hub_key)
        asked = self._campaign(parse_envelope(campaign), plan.campaign, at)
        places = [place for place in plan.cohort if place.site == self.name]
        if len(places) != 1:
            raise BractError(NO_CLEARANCE, "the round's plan has no place for this site")
        self.registry.cleared(places[0].clearance, plan.campaign, plan.number)
        self.registry.reserved(places[0].reservation, plan.campaign, plan.number)
        if len(plan.cohort) < self.policy.min_cohort:
            raise BractError(POLICY, "the cohort is smaller than this site's policy allows")
        _check_clock(plan.opened_at, at)
        _check_fit(plan, asked)
        if at >= plan.deadline:
            raise BractError(LATE, "the plan's deadline is past")
        begun = self.registry.begun(plan.campaign, plan.number)
        if begun is not None and self.registry.left(places[0].clearance, plan.campaign, plan.number, begun, at):
            raise BractError(STALE_CLEARANCE, "somebody left since the round was trained")
        return Task(asked, plan, envelope, places[0])

    def _campaign(self, envelope: Envelope, named: str, at: datetime) -> CampaignPlan:
        if envelope.name != named:
            raise BractError(UNTRUSTED, "the campaign is not the one that was named")
        plan = unseal(CampaignPlan, envelope, self.hub_key).check()
        if self.name not in {site.name for site in plan.sites}:
            raise BractError(UNKNOWN_SITE, "the campaign does not name this site")
        permit(self.policy, plan)
        self.registry.check_terms(plan.dataset, plan.purpose, at)
        return plan


def _check_fit(plan: RoundPlan, campaign: CampaignPlan) -> None:
    """A round is of the campaign's sites, each once, and takes no longer than the campaign says."""
    cohort = [place.site for place in plan.cohort]
    if len(set(cohort)) != len(cohort) or not set(cohort) <= {site.name for site in campaign.sites}:
        raise BractError(UNTRUSTED, "the cohort has a site twice, or one that the campaign does not name")
    if plan.deadline > plan.opened_at + timedelta(seconds=campaign.deadline_s):
        raise BractError(UNTRUSTED, "the round would take longer than the campaign's deadline")


def _check_clock(said: datetime, at: datetime) -> None:
    """What the hub dates in this site's future was dated by a wrong clock, the hub's or the site's."""
    if said > at + SKEW:
        raise BractError(CLOCK, "the hub's time is ahead of this site's")


def runtime_address(home: SiteHome) -> str:
    """Where the executor meets `flower-supernode`, on this machine only."""
    return f"127.0.0.1:{home.settings().runtime_port}"


def open_registry(home: SiteHome) -> SiteRegistry:
    """The site's own registry, brought to the newest schema.

    Raises:
        BractError: `key-permissions`, `disk`, `concurrent`.
    """
    engine = open_engine(home.database_url())
    migrate(engine, MIGRATIONS)
    settings = home.settings()
    return SiteRegistry(engine, home.subject_key(), home.signing_key(), settings.name, settings.policy.use)


def open_site(home: SiteHome) -> Site:
    """Everything that a running site is made of.

    Raises:
        BractError: `not-enrolled`, `key-permissions`, `malformed`, `disk`.
    """
    settings = home.settings()
    return Site(settings.name, verify_key(home.bundle().hub_key), settings.policy, open_registry(home))


def programs(home: SiteHome) -> tuple[Program, ...]:
    """What `bract-site run` keeps running: Flower's SuperNode for the messages, our executor for the work."""
    variables = environment(home.root)
    return (
        Program("supernode", python("bract_client.node", str(home.root)), variables, home.logs / "supernode.log"),
        Program("executor", python("bract_client.executor", str(home.root)), variables, home.logs / "executor.log"),
    )


def schema_revisions(home: SiteHome) -> tuple[str | None, str | None]:
    """The registry's schema revision and the newest one; nothing is changed."""
    engine = open_engine(home.database_url(), read_only=True)
    try:
        return revisions(engine, MIGRATIONS)
    finally:
        engine.dispose()
