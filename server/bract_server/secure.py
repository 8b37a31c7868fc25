"""A round in which the hub learns the sum of the sites' updates, and none of them.

What it may still check of one site is all but the values: signatures, plan, clearance, reservation, spend, and that the
file has as many words as the encoder has numbers (any word is a value of the ring). After the sum: that the mean's norm is
one that clipped updates can have. Whoever sends a vector within that bound can still move the mean; see
`deploy/decisions/0012-secure-aggregation.md`.

The hub keeps nothing between the stages. Taken up again, it asks again, and sites answer the same question the same way; where
another set of sites answers than before, they refuse, and the round is aborted.
"""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bract import flower
from bract.digest import Digest
from bract.errors import BAD_SHARE, LATE, QUORUM, UNREACHABLE, UNTRUSTED, BractError
from bract.identity import node_fingerprint
from bract.plan import Place, RoundPlan
from bract.secure.agreement import exchanged
from bract.secure.shares import share_digest
from bract.secure.spec import SecureSpec
from bract.secure.stages import (
    Advert,
    Agreement,
    Box,
    Dealing,
    Delivery,
    Revealed,
    Roster,
    RosterQuestion,
    Stage,
    SurvivorsQuestion,
    Unmasking,
    UnmaskQuestion,
    open_roster,
    open_signed,
    share_bytes,
)
from bract.signing import Envelope, parse_envelope
from bract.value import encode
from bract_server.collecting import LOOK, MAX_RESENDS, NODE_WAIT, OWN, TTL_SLACK_S, Post, take_late, told
from bract_server.means import Hub
from bract_server.registry.store import Campaign
from bract_server.unmask import Mean, Opened, opening

Take = Callable[[Place, bytes], None]
"""Takes what a site signed at a stage; raises what is wrong with it."""

_Said = TypeVar("_Said", Advert, Dealing, Agreement, Unmasking)

log = logging.getLogger("bract.secure")


def collect(hub: Hub, post: Post, campaign: Campaign, sealed: Envelope, plan: RoundPlan, receive: Take) -> Opened:
    """Lead the sites through the stages and open the sum of what they sent.

    Args:
        hub: what the rounds have.
        post: what is still under way from former rounds; what comes too late for its stage is left to it.
        campaign: one whose plan has `secure`.
        sealed: the round's signed plan.
        plan: what is in it.
        receive: takes a contribution, masked or not, as any other round does.

    Raises:
        Stopped: as `Hub.pause`.
        BractError: what fails at the hub itself, `collecting.OWN`.
    """
    spec = campaign.plan.secure
    assert spec is not None  # noqa: S101 - as the caller promises
    stages = _Stages(hub, post, campaign, sealed, plan, spec)
    try:
        weights, mean = stages.run(receive)
    except BractError as error:
        if error.code in OWN:
            raise
        log.warning("round %d is not opened: %s", plan.number, error)
        weights, mean = {}, None
    return Opened(stages.missing, weights, mean)


@dataclass(frozen=True)
class _Stages:
    """The hub's side of the stages, one after the other."""

    hub: Hub
    post: Post
    campaign: Campaign
    sealed: Envelope
    plan: RoundPlan
    spec: SecureSpec
    missing: dict[str, str] = field(default_factory=dict)

    def run(self, receive: Take) -> tuple[dict[str, float], Path]:
        quorum = self.campaign.plan.quorum
        adverts: dict[str, str] = {}

        def advert(place: Place, data: bytes) -> None:
            self._signed(Advert, place, data, _usable)
            adverts[place.site] = parse_envelope(data).to_json().decode()

        self._ask("advertise", {place.site: b"" for place in self.plan.cohort}, advert, quorum)
        question = RosterQuestion(tuple(adverts[name] for name in sorted(adverts)))
        roster = open_roster(question, self.plan, self.sealed.name)
        dealings = self._dealt(roster, encode(question))
        self._masked(roster, dealings, receive)
        agreements = self._agreed(roster, dealings)
        unmaskings = self._revealed(roster, dealings, agreements)
        mean = Mean(self.campaign.plan, self.spec, self._contributions(), self.hub.store)
        return mean.weights, mean.write(
            opening(roster, dealings, unmaskings, mean.sites, self.spec.threshold), self.plan
        )

    def _dealt(self, roster: Roster, question: bytes) -> dict[str, Dealing]:
        _enough(roster.names, self.campaign.plan.quorum, "advertised keys")
        dealings: dict[str, Dealing] = {}

        def dealing(place: Place, data: bytes) -> None:
            value = self._signed(Dealing, place, data)
            if value.roster != roster.digest or tuple(one.peer for one in value.dealt) != roster.names:
                raise BractError(BAD_SHARE, "shares for another roster")
            dealings[place.site] = value

        self._ask("share", dict.fromkeys(roster.names, question), dealing, self.campaign.plan.quorum)
        _enough(dealings, self.campaign.plan.quorum, "dealt shares")
        return dealings

    def _masked(self, roster: Roster, dealings: Mapping[str, Dealing], receive: Take) -> None:
        boxes = {name: {one.peer: one.box for one in dealings[name].dealt} for name in sorted(dealings)}
        have = self._contributions()
        questions = {
            site: encode(Delivery(roster.digest, tuple(Box(name, boxes[name][site]) for name in boxes)))
            for site in dealings
            if site not in have
        }
        self._ask("mask", questions, receive, self.campaign.plan.quorum - len(have))
        _enough(self._contributions(), self.campaign.plan.quorum, "sent a masked update")

    def _agreed(self, roster: Roster, dealings: Mapping[str, Dealing]) -> dict[str, bytes]:
        survivors = tuple(sorted(self._contributions()))
        if not set(survivors) <= set(dealings):
            raise BractError(QUORUM, "the round was begun with other sites")
        agreements: dict[str, bytes] = {}

        def agreement(place: Place, data: bytes) -> None:
            value = self._signed(Agreement, place, data)
            sharers = tuple(sorted(dealings))
            if value != Agreement(place.site, self.sealed.name, roster.digest, sharers, survivors):
                raise BractError(UNTRUSTED, "another set of survivors")
            agreements[place.site] = parse_envelope(data).to_json()

        question = encode(SurvivorsQuestion(survivors))
        self._ask("agree", dict.fromkeys(survivors, question), agreement, self.spec.threshold)
        _enough(agreements, self.spec.threshold, "agreed on who survived")
        return agreements

    def _revealed(
        self, roster: Roster, dealings: Mapping[str, Dealing], agreements: Mapping[str, bytes]
    ) -> dict[str, Unmasking]:
        survivors = set(self._contributions())
        gone = sorted(set(dealings) - survivors)
        unmaskings: dict[str, Unmasking] = {}

        def unmasking(place: Place, data: bytes) -> None:
            value = self._signed(Unmasking, place, data)
            if [one.peer for one in value.seeds] != sorted(survivors) or [one.peer for one in value.keys] != gone:
                raise BractError(BAD_SHARE, "shares of other sites than asked for")
            holder = roster.names.index(place.site)
            for one in value.seeds:
                _check_share(one, dealings[one.peer].dealt[holder].seed_share)
            for one in value.keys:
                _check_share(one, dealings[one.peer].dealt[holder].key_share)
            unmaskings[place.site] = value

        shown = sorted(agreements)[: self.spec.threshold]  # as many as convince a site
        question = encode(UnmaskQuestion(tuple(agreements[name].decode() for name in shown)))
        self._ask("unmask", dict.fromkeys(agreements, question), unmasking, self.spec.threshold)
        _enough(unmaskings, self.spec.threshold, "gave their shares")
        return unmaskings

    def _contributions(self) -> dict[str, Digest]:
        """The masked updates that the round has, by site."""
        return {one.site: one.update for one in self.hub.registry.contributions(self.campaign.digest, self.plan.number)}

    def _signed(
        self, cls: type[_Said], place: Place, data: bytes, check: Callable[[_Said], None] = lambda _: None
    ) -> _Said:
        """What a site signed; that it is not what it should be is kept as evidence."""
        try:
            value = open_signed(cls, data, self.plan, self.sealed.name)
            if value.site != place.site:
                raise BractError(UNTRUSTED, "a site speaks for itself only")
            check(value)
        except BractError as error:
            hub, number = self.hub, self.plan.number
            hub.registry.reject(place.site, self.campaign.digest, number, error.code, None, hub.now(), hub.patience)
            raise
        return value

    def _ask(self, stage: Stage, questions: Mapping[str, bytes], take: Take, enough: int) -> None:
        """Ask sites and take their answers, until all are in, the grace after `enough` is over, or the deadline.

        Whose node is away is waited for, and who was lost is asked again: the same question has the same answer.
        """
        take_late(self.hub, self.post, self.campaign)
        began = look = self.hub.now()
        unsent, pending, resends = dict(questions), dict[str, Place](), Counter[str]()
        taken, enough_since = 0, None
        while enough <= taken + len(unsent) + len(pending) and (unsent or pending):
            now = self.hub.now()
            if unsent and now >= look:
                look = now + LOOK
                went = self._send(stage, unsent)
                pending |= went
                unsent = {site: question for site, question in unsent.items() if site not in _sites(went)}
                if now >= began + NODE_WAIT:
                    break
            for message, place in list(pending.items()):
                reply = flower.pull(self.hub.grid, message)
                if reply is None:
                    continue
                del pending[message]
                if reply.failed and resends[place.site] < MAX_RESENDS:
                    resends[place.site] += 1
                    unsent[place.site] = questions[place.site]
                else:
                    taken += self._took(stage, place, reply, take)
            if taken >= enough:
                enough_since = enough_since or now
            grace = timedelta(seconds=self.campaign.plan.grace_s)
            if now >= self.plan.deadline or (enough_since is not None and now >= enough_since + grace):
                break
            if unsent or pending:
                self.hub.pause()
        self.post.give_up(pending, self.plan.number, self.plan.deadline + timedelta(seconds=TTL_SLACK_S))
        self.missing.update(dict.fromkeys(unsent, UNREACHABLE) | dict.fromkeys(_sites(pending), LATE))

    def _took(self, stage: Stage, place: Place, reply: flower.Reply, take: Take) -> bool:
        """Whether the answer was taken; else its site is missing. What fails at the hub itself is not the site's fault."""
        try:
            data = told(reply, "contribution" if stage == "mask" else "answer")
        except BractError as error:
            self.missing[place.site] = error.code
            return False
        try:
            take(place, data)
        except BractError as error:
            if error.code in OWN:
                raise
            log.warning("round %d: %s is out at %s: %s", self.plan.number, place.site, stage, error.code)
            self.missing[place.site] = error.code
            return False
        return True

    def _send(self, stage: Stage, questions: Mapping[str, bytes]) -> dict[str, Place]:
        """Push to each site its question, at once to all whose question is the same; the messages' places."""
        hub, pending = self.hub, dict[str, Place]()
        nodes = {node_fingerprint(public_key): node for node, public_key in flower.nodes(hub.grid).items()}
        ttl = (self.plan.deadline - hub.now()).total_seconds() + TTL_SLACK_S
        common = {"plan": self.sealed.to_json(), "campaign": self.campaign.envelope, "stage": stage}
        asked = [place for place in self.plan.cohort if place.site in questions]
        keys = {place: hub.registry.site(place.site).node_fingerprint for place in asked}
        for question in dict.fromkeys(questions.values()):
            reached = [one for one in asked if questions[one.site] == question and keys[one] in nodes]
            payload, ids = {**common, "question": question}, [nodes[keys[one]] for one in reached]
            messages = flower.push(hub.grid, payload, ids, group=str(self.plan.number), ttl_s=ttl)
            pending |= {message: one for message, one in zip(messages, reached, strict=False) if message}
        return pending


def _sites(pending: Mapping[str, Place]) -> set[str]:
    return {place.site for place in pending.values()}


def _usable(advert: Advert) -> None:
    """Keys that every honest site would refuse are their owner's fault, and nobody else's round."""
    for key in (advert.channel_key, advert.mask_key):
        exchanged(X25519PrivateKey.generate(), key)


def _enough(sites: Collection[str], least: int, did: str) -> None:
    if len(sites) < least:
        raise BractError(QUORUM, f"{len(sites)} sites {did}, {least} must")


def _check_share(one: Revealed, dealt: Digest) -> None:
    if share_digest(share_bytes(one)) != dealt:
        raise BractError(BAD_SHARE, f"not the share that {one.peer} dealt")
