"""How a round's plan goes out to its sites and their contributions come in, one by one, each verified before it counts."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bract import flower
from bract.arrays import read_layout
from bract.digest import Digest
from bract.errors import CODES, CONCURRENT, DISK, LATE, QUORUM, SITE_FAILED, SUPERSEDED, UNREACHABLE, BractError
from bract.identity import node_fingerprint
from bract.plan import Place, RoundPlan
from bract.signing import Envelope, parse_envelope, unseal, verify_key
from bract.update import Contribution
from bract_server.means import Hub
from bract_server.registry.store import Campaign
from bract_server.verify import Expected, signed, verify, verify_arrays

NODE_WAIT = timedelta(seconds=60)
"""How long a site's node may be away when its plan is to be sent: Flower takes as long to notice that one has gone."""

MAX_RESENDS = 3
"""How often a plan is sent again to a site after Flower lost its node or its task."""

OWN = frozenset({SUPERSEDED, UNREACHABLE, CONCURRENT, DISK})
"""What goes wrong with a contribution at the hub itself: another run, a database or a disk that is away. It ends this run, and
the next one asks the site again, which sends what it has kept."""

TTL_SLACK_S = 30.0
LOOK = timedelta(seconds=1)

log = logging.getLogger("bract.collecting")


@dataclass(frozen=True)
class Sent:
    """A message under way: to whom, for which round, and until when Flower keeps it."""

    place: Place
    number: int
    until: datetime


@dataclass
class Post:
    """What was sent in a campaign and not yet answered, over all its rounds.

    A site works on one message at a time. One whose former task has not ended gets no other until it has, so that nothing
    piles up; a hub that was killed meanwhile does not know, and the site itself then takes one after the other.
    """

    _sent: dict[str, Sent] = field(default_factory=dict)

    def busy(self, site: str) -> bool:
        """Whether the site has a message that it has not answered."""
        return any(sent.place.site == site for sent in self._sent.values())

    def send(
        self, hub: Hub, campaign: Campaign, sealed: Envelope, plan: RoundPlan, places: Mapping[str, Place]
    ) -> frozenset[str]:
        """Push the signed plan to the nodes, found by the fingerprint of their public keys, of sites that are not busy.

        Returns:
            The sites that it was sent to; the others' nodes are away, or they are busy.
        """
        free = [place for place in places.values() if not self.busy(place.site)]
        if not free:
            return frozenset()
        by_key = {node_fingerprint(public_key): node for node, public_key in flower.nodes(hub.grid).items()}
        keys = {place.site: hub.registry.site(place.site).node_fingerprint for place in free}
        reached = [place for place in free if keys[place.site] in by_key]
        if not reached:
            return frozenset()
        payload = {"plan": sealed.to_json(), "campaign": campaign.envelope}
        ttl = (plan.deadline - hub.now()).total_seconds() + TTL_SLACK_S
        nodes = [by_key[keys[place.site]] for place in reached]
        messages = flower.push(hub.grid, payload, nodes, group=str(plan.number), ttl_s=ttl)
        until = hub.now() + timedelta(seconds=ttl)
        went = {message: place for message, place in zip(messages, reached, strict=True) if message}
        self._sent |= {message: Sent(place, plan.number, until) for message, place in went.items()}
        return frozenset(place.site for place in went.values())

    def give_up(self, messages: Mapping[str, Place], number: int, until: datetime) -> None:
        """Wait no more for these answers to be used; what comes of them yet is late."""
        self._sent |= {message: Sent(place, number, until) for message, place in messages.items()}

    def replies(self, hub: Hub) -> Iterator[tuple[Sent, flower.Reply]]:
        """The answers that have come, each once; what Flower no longer keeps is forgotten."""
        for message, sent in list(self._sent.items()):
            reply = flower.pull(hub.grid, message)
            if reply is not None or hub.now() >= sent.until:
                del self._sent[message]
            if reply is not None:
                yield sent, reply

    def waits(self, number: int) -> list[str]:
        """The sites whose answers for a round have not come."""
        return [sent.place.site for sent in self._sent.values() if sent.number == number]


def collect(hub: Hub, post: Post, campaign: Campaign, sealed: Envelope, plan: RoundPlan) -> dict[str, str]:
    """Send the plan, take answers one by one until all are in, the grace is over, or the deadline; who is missing and why.

    What was received before is not asked for again.

    Raises:
        Stopped: as `Hub.pause`.
        BractError: `superseded`.
    """
    have = {c.site for c in hub.registry.contributions(campaign.digest, plan.number)}
    round_ = _Collecting(hub, post, campaign, sealed, plan, have)
    while not round_.over():
        round_.send()
        round_.take()
        if round_.over():
            break
        hub.pause()
    return round_.missing | round_.left()


@dataclass
class _Collecting:
    """A round while its answers come in."""

    hub: Hub
    post: Post
    campaign: Campaign
    sealed: Envelope
    plan: RoundPlan
    have: set[str]
    missing: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._began = self.hub.now()
        self._look = self._began
        self._enough: datetime | None = None
        self._resends = dict[str, int]()
        # whose answer was refused before this hub came up is not asked again, and the refusal not counted again
        self.missing |= self.hub.registry.rejections(self.campaign.digest, self.plan.number)
        self.missing = {site: code for site, code in self.missing.items() if site not in self.have}
        known = self.have | self.missing.keys()
        self._unsent = {place.site: place for place in self.plan.cohort if place.site not in known}

    def send(self) -> None:
        """Send the plan to whom it was not sent yet and who can be reached; give up those who stay away."""
        now = self.hub.now()
        if not self._unsent or now < self._look or now >= self.plan.deadline:
            return
        self._look = now + LOOK
        for site in self.post.send(self.hub, self.campaign, self.sealed, self.plan, self._unsent):
            del self._unsent[site]
        if now >= self._began + NODE_WAIT:
            away = [site for site in self._unsent if not self.post.busy(site)]
            self.missing |= {site: UNREACHABLE for site in away if self._unsent.pop(site)}

    def take(self) -> None:
        """Take the answers that have come."""
        for sent, reply in self.post.replies(self.hub):
            site = sent.place.site
            if sent.number != self.plan.number:
                keep_late(self.hub, self.campaign, sent, reply)
            elif reply.failed and self._resends.get(site, 0) < MAX_RESENDS:
                self._resends[site] = self._resends.get(site, 0) + 1
                self._unsent[site] = sent.place
            else:
                self._receive(sent.place, reply)

    def _receive(self, place: Place, reply: flower.Reply) -> None:
        try:
            sealed = told(reply)
        except BractError as error:
            log.warning("round %d: %s is out: %s", self.plan.number, place.site, error.code)
            self.missing[place.site] = error.code
            return
        try:
            receive(self.hub, self.campaign, self.plan, self.sealed.name, place, sealed)
            self.have.add(place.site)
        except BractError as error:
            if error.code in OWN:
                raise
            log.warning("round %d: %s is out: %s", self.plan.number, place.site, error.code)
            self.missing[place.site] = error.code

    def over(self) -> bool:
        """Whether nobody is left to wait for, or the time is over, or the quorum can no longer be met."""
        now, plan = self.hub.now(), self.campaign.plan
        left = self.left()
        if len(self.have) >= plan.quorum:
            self._enough = self._enough or now
        grace_over = self._enough is not None and now >= self._enough + timedelta(seconds=plan.grace_s)
        hopeless = len(self.have) + len(left) < plan.quorum
        return not left or hopeless or grace_over or now >= self.plan.deadline

    def left(self) -> dict[str, str]:
        """The sites that may still answer, and what each is missing as if they never do."""
        waits = self.post.waits(self.plan.number)
        if len(self.have) + len(self._unsent) + len(waits) < self.campaign.plan.quorum:
            return dict.fromkeys([*self._unsent, *waits], QUORUM)
        away = {site: LATE if self.post.busy(site) else UNREACHABLE for site in self._unsent}
        return away | dict.fromkeys(waits, LATE)


def told(reply: flower.Reply, what: str = "contribution") -> bytes:
    """The signed contribution in an answer, or what else was asked for.

    Raises:
        BractError: `unreachable` when Flower could not get one; the code that the site gave instead.
    """
    if reply.failed:
        raise BractError(UNREACHABLE, "Flower lost the site's node or its task")
    sealed = reply.payload.get(what)
    if not isinstance(sealed, bytes):
        code = reply.payload.get("refused")
        raise BractError(code if isinstance(code, str) and code in CODES else SITE_FAILED)
    return sealed


def receive(hub: Hub, campaign: Campaign, plan: RoundPlan, plan_digest: Digest, place: Place, sealed: bytes) -> None:
    """Verify one contribution and its arrays; accepted only if every rule holds, else kept as evidence (digest and code).

    Raises:
        BractError: the code of the rule that does not hold; one of `OWN` when the hub failed, which is not charged to the site.
    """
    named: Digest | None = None
    update: Digest | None = None
    try:
        envelope = parse_envelope(sealed)
        named = envelope.name
        expected = _expected(hub, campaign, plan, plan_digest, place)
        contribution = signed(envelope, expected)
        update = contribution.update
        verify(contribution, expected)
        verify_arrays(hub.store.path(update), contribution, expected)
        hub.registry.accept(envelope, place.site, hub.now())
    except BractError as error:
        if error.code not in OWN:
            hub.registry.reject(place.site, campaign.digest, plan.number, error.code, named, hub.now(), hub.patience)
            hub.discard([update] if update else [])
        raise


def take_late(hub: Hub, post: Post, campaign: Campaign) -> None:
    """Take the answers to former rounds, or to stages of a secure one, that have come since."""
    for sent, reply in post.replies(hub):
        keep_late(hub, campaign, sent, reply)


def keep_late(hub: Hub, campaign: Campaign, sent: Sent, reply: flower.Reply) -> None:
    """What a site signed and sent after its round or stage is kept as evidence, by its digest, and never used."""
    contributed = "contribution" in reply.payload
    sealed = reply.payload.get("contribution" if contributed else "answer")
    if reply.failed or not isinstance(sealed, bytes):
        return
    site, named, update = sent.place.site, None, None
    try:
        envelope = parse_envelope(sealed)
        named = envelope.name
        if contributed:
            update = unseal(Contribution, envelope, verify_key(hub.registry.site(site).verify_key)).update
    except BractError as error:
        log.info("round %d: what %s sent too late is not even that: %s", sent.number, site, error.code)
    log.info("round %d: %s answered too late", sent.number, site)
    hub.registry.reject(site, campaign.digest, sent.number, LATE, named, hub.now())
    hub.discard([update] if update else [])


def _expected(hub: Hub, campaign: Campaign, plan: RoundPlan, plan_digest: Digest, place: Place) -> Expected:
    accepted = hub.registry.contributions(campaign.digest, plan.number)
    asked = campaign.plan
    return Expected(
        place=place,
        plan=plan_digest,
        mechanism=asked.privacy.mechanism,
        arrays_bytes=plan.arrays_bytes,
        max_norm=asked.max_update_norm,
        layout=read_layout(hub.store.path(plan.arrays)),
        key=verify_key(hub.registry.site(place.site).verify_key),
        live=not hub.registry.is_revoked(place.clearance),
        taken=frozenset(one.digest for one in accepted),
        seeded=asked.seeded_test is not None,
        masked=asked.secure is not None,
    )
