"""A site's part in a round with secure aggregation: what it answers at each stage, and what it refuses.

Rules, at every stage:
    1. The round is one that this site would run: signed plan, own place, policy, deadline (`Site.task`).
    2. The plan's key for this site is its own, and a peer's is the one the steward listed, or else the first that it used.
    3. No set is smaller than the plan's threshold and the policy's least cohort: roster, sharers, survivors.
    4. A stage is answered once. The same question gets the same answer, another one none, also after a crash.
    5. Of a peer the site reveals a share of its seed or of its mask key, never both; and only once as many sites as the
       threshold have signed the same set of survivors.
A hub that invents peers is stopped by rule 2 only where the steward listed them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.arrays import ArraysFile, Layout, count_of
from bract.digest import Digest, digest
from bract.errors import MALFORMED, PEER_KEY, POLICY, STATE, UNTRUSTED, BractError
from bract.files import PRIVATE_FOLDER, read_private, write_private
from bract.plan import SiteKey
from bract.secure import ring
from bract.secure.agreement import open_box, public_text, seal_box
from bract.secure.masks import site_masks
from bract.secure.ring import quantised, shortening, write_words
from bract.secure.shares import SHARE_BYTES, share_digest, split
from bract.secure.skellam import SkellamNoise
from bract.secure.spec import SecureSpec
from bract.secure.stages import (
    Advert,
    Agreement,
    Dealing,
    Dealt,
    Delivery,
    Revealed,
    Roster,
    RosterQuestion,
    SurvivorsQuestion,
    Unmasking,
    UnmaskQuestion,
    check_set,
    keys_of,
    open_agreements,
    open_roster,
    revealed,
)
from bract.signing import key_text, sign
from bract.value import decode, encode, strict
from bract_client.home import SiteHome
from bract_client.secure_memory import Memory
from bract_client.site import Site, Task

Cover = Callable[[Path, Layout], None]
"""Puts a site's masks over its update's file, in place."""

_KEPT = timedelta(hours=1)


@strict
@dataclass(frozen=True)
class _Peers:
    """The keys that peers were first seen with."""

    keys: tuple[SiteKey, ...] = ()


@dataclass(frozen=True)
class SecureRound:
    """One round at one site. Make it with `join`."""

    site: Site
    task: Task
    spec: SecureSpec
    key: Ed25519PrivateKey = field(repr=False)
    memory: Memory
    peers: Path

    @property
    def _plan(self) -> Digest:
        return self.task.sealed.name

    @property
    def _least(self) -> int:
        return max(self.spec.threshold, self.site.policy.min_cohort)

    def answer(self, stage: str, question: bytes, contribute: Callable[[Cover], bytes]) -> dict[str, bytes | str]:
        """What this site answers at a stage.

        Args:
            stage: one of `bract.secure.stages.Stage`.
            question: what the hub asks with.
            contribute: trains, has the update covered, and gives the signed contribution.

        Raises:
            BractError: with the code of the first rule that does not hold.
        """
        if stage == "mask":
            return {"contribution": contribute(self._cover(question))}
        stages = {"advertise": self._advertise, "share": self._share, "agree": self._agree, "unmask": self._unmask}
        if stage not in stages:
            raise BractError(MALFORMED, "no stage of a secure round")
        return {"answer": sign(stages[stage](question), self.key).to_json()}

    def _advertise(self, _: bytes) -> Advert:
        keys = self.memory.keys()
        return Advert(self.site.name, self._plan, public_text(keys.channel), public_text(keys.mask))

    def _share(self, question: bytes) -> Dealing:
        roster = self._roster(question)
        answer = self.memory.once("share", question, lambda: encode(self._dealing(roster)))
        _remember(self.peers, [key for key in self.task.plan.keys if key.site in roster.adverts])
        return decode(Dealing, answer)

    def _roster(self, question: bytes) -> Roster:
        roster = open_roster(decode(RosterQuestion, question), self.task.plan, self._plan)
        check_set(roster.names, roster.names, self._least)
        if roster.adverts.get(self.site.name) != self._advertise(b""):
            raise BractError(PEER_KEY, "the roster does not hold this site's own keys")
        return roster

    def _dealing(self, roster: Roster) -> Dealing:
        keys, holders = self.memory.keys(), len(roster.names)
        seeds = split(keys.seed, holders, self.spec.threshold)
        masks = split(keys.mask.private_bytes_raw(), holders, self.spec.threshold)
        dealt = []
        for name, seed, mask in zip(roster.names, seeds, masks, strict=True):
            peer = roster.adverts[name].channel_key
            box = seal_box(keys.channel, peer, roster.digest, (self.site.name, name), seed + mask)
            dealt.append(Dealt(name, box, share_digest(seed), share_digest(mask)))
        return Dealing(self.site.name, self._plan, roster.digest, digest(keys.seed), tuple(dealt))

    def _opened(self, question: bytes) -> tuple[Roster, dict[str, bytes]]:
        """The roster, and both shares of each site that this one shares masks with."""
        delivery, roster = decode(Delivery, question), self._roster(self.memory.question("share"))
        if delivery.roster != roster.digest:
            raise BractError(UNTRUSTED, "boxes of another roster")
        sharers = check_set((box.peer for box in delivery.boxes), roster.names, self._least)
        if self.site.name not in sharers:
            raise BractError(UNTRUSTED, "this site's own box is not there")
        channel, own = self.memory.keys().channel, self.site.name
        shares = {
            box.peer: open_box(channel, roster.adverts[box.peer].channel_key, roster.digest, (box.peer, own), box.box)
            for box in delivery.boxes
        }
        return roster, shares

    def _cover(self, question: bytes) -> Cover:
        roster, shares = self._opened(question)
        self.memory.once("mask", question)
        campaign, keys, own = self.task.campaign, self.memory.keys(), self.site.name
        peers = [(name, roster.adverts[name].mask_key) for name in shares if name != own]
        weights = [site.weight for site in campaign.sites]
        at = ring.scale_of(self.spec, len(weights))

        def cover(update: Path, layout: Layout) -> None:
            masks = site_masks(keys.mask, keys.seed, roster.digest, own, peers)
            noise = None if self.spec.noise is None else SkellamNoise(self.spec)
            with ArraysFile(update, layout).opened() as numbers:
                count = count_of(layout)
                cuts = list(ring.blocks(count))
                norm = ring.norm(numbers.read(start, stop) for start, stop in cuts)
                bound = at.clip if noise is None else ring.bounded_clip(at, count)
                factor = shortening(norm, bound) * campaign.site(own).weight / max(weights)
                parts = (quantised(numbers.read(start, stop), factor, at) for start, stop in cuts)
                noised = parts if noise is None else (part + noise.words(len(part)) for part in parts)
                write_words(update, map(masks.apply, noised))

        return cover

    def _agree(self, question: bytes) -> Agreement:
        agreement, _ = self._agreement(question)
        if self.site.registry.trained(self.task.plan.campaign, self.task.plan.number) is None:
            raise BractError(STATE, "nothing was sent in this round")
        self.memory.once("agree", question)
        return agreement

    def _agreement(self, question: bytes) -> tuple[Agreement, dict[str, bytes]]:
        """What this site signs of a set of survivors, and the shares that it holds."""
        roster, shares = self._opened(self.memory.question("mask"))
        survivors = check_set(decode(SurvivorsQuestion, question).survivors, shares, self._least)
        if self.site.name not in survivors:
            raise BractError(UNTRUSTED, "this site survived")
        return Agreement(self.site.name, self._plan, roster.digest, tuple(sorted(shares)), survivors), shares

    def _unmask(self, question: bytes) -> Unmasking:
        agreement, shares = self._agreement(self.memory.question("agree"))
        open_agreements(decode(UnmaskQuestion, question), agreement, self.task.plan, self.spec.threshold)
        gone = sorted(set(agreement.sharers) - set(agreement.survivors))
        seeds = tuple(Revealed(name, revealed(shares[name][:SHARE_BYTES])) for name in agreement.survivors)
        keys = tuple(Revealed(name, revealed(shares[name][SHARE_BYTES:])) for name in gone)
        return Unmasking(self.site.name, self._plan, seeds, keys)


def join(site: Site, home: SiteHome, task: Task) -> SecureRound:
    """The round at this site, once it may be one.

    Raises:
        BractError: `policy` when the campaign has no secure aggregation; `peer-key`; `key-permissions`.
    """
    if task.campaign.secure is None:
        raise BractError(POLICY, "the campaign has no secure aggregation")
    root = home.root / "secure"
    root.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    folder = root / f"{int(task.plan.deadline.timestamp())}-{task.sealed.name.removeprefix('sha256:')}"
    folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    key = home.signing_key()
    _check_keys(site, task, key_text(key.public_key()), root / "peers.json")
    return SecureRound(site, task, task.campaign.secure, key, Memory(folder), root / "peers.json")


def _check_keys(site: Site, task: Task, own: str, peers: Path) -> None:
    named = keys_of(task.plan)
    if named.get(site.name) != own:
        raise BractError(PEER_KEY, "the plan has another key for this site")
    listed = {key.site: key.verify_key for key in site.policy.peers}
    if listed and not set(named) - {site.name} <= set(listed):
        raise BractError(PEER_KEY, "a site of the round is not on the steward's list of peers")
    for name, key in ({one.site: one.verify_key for one in _seen(peers).keys} | listed).items():
        if named.get(name, key) != key:
            raise BractError(PEER_KEY, name)


def _seen(path: Path) -> _Peers:
    return decode(_Peers, read_private(path)) if path.exists() else _Peers()


def _remember(path: Path, keys: list[SiteKey]) -> None:
    before = {key.site: key for key in _seen(path).keys}
    after = {key.site: key for key in keys} | before
    if after != before:
        write_private(path, encode(_Peers(tuple(after[name] for name in sorted(after)))))


def forget(home: SiteHome, at: datetime) -> None:
    """Delete the keys and answers of rounds whose deadline is an hour past."""
    for folder in (home.root / "secure").glob("*-*"):
        if int(folder.name.split("-")[0]) < (at - _KEPT).timestamp():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
