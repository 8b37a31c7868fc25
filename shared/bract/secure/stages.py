"""The messages of a secure round and what must hold of them, for hub and site alike.

    stage      the hub asks with              a site answers, signed
    advertise  the round's signed plan        its two public keys
    share      everybody's signed keys        a box of shares for every site in the roster
    mask       the boxes that are for it      its masked update (an ordinary `Contribution`)
    agree      who survived                   that set
    unmask     who signed that set            shares of the survivors' seeds, and of the mask keys of those who are gone

Everything a site signs names the round's plan, so that nothing can be used in another round.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field

from bract.digest import Digest, digest_of
from bract.errors import BAD_SHARE, PEER_KEY, POLICY, UNTRUSTED, BractError
from bract.plan import Name, RoundPlan
from bract.secure.shares import SHARE_BYTES
from bract.secure.spec import MOST_SITES
from bract.signing import MAX_ENVELOPE, parse_envelope, sign, unseal, verify_key
from bract.value import decode, digest_value, encode, strict

_Signed = TypeVar("_Signed", "Advert", "Dealing", "Agreement", "Unmasking")
Stage = Literal["advertise", "share", "mask", "agree", "unmask"]
Key = Annotated[str, Field(max_length=64)]
Names = Annotated[tuple[Name, ...], Field(max_length=MOST_SITES)]
Envelopes = Annotated[tuple[Annotated[str, Field(max_length=MAX_ENVELOPE)], ...], Field(max_length=MOST_SITES)]


@strict
@dataclass(frozen=True)
class Advert:
    """A site's public keys of one round, base64 of 32 bytes each."""

    site: Name
    plan: Digest
    channel_key: Key
    mask_key: Key


@strict
@dataclass(frozen=True)
class RosterQuestion:
    """Every advert that the hub has, as signed envelopes' JSON."""

    adverts: Envelopes


@strict
@dataclass(frozen=True)
class Dealt:
    """One receiver's shares: the box that only it opens, and the digests by which false ones are known."""

    peer: Name
    box: Annotated[str, Field(max_length=1024)]
    seed_share: Digest
    key_share: Digest


@strict
@dataclass(frozen=True)
class Dealing:
    """A site's shares for everybody in the roster, itself included. `seed` is the digest of its seed."""

    site: Name
    plan: Digest
    roster: Digest
    seed: Digest
    dealt: Annotated[tuple[Dealt, ...], Field(max_length=MOST_SITES)]


@strict
@dataclass(frozen=True)
class Box:
    """A box from one site."""

    peer: Name
    box: Annotated[str, Field(max_length=1024)]


@strict
@dataclass(frozen=True)
class Delivery:
    """The boxes that are for one site. Their senders are whom it shares masks with."""

    roster: Digest
    boxes: Annotated[tuple[Box, ...], Field(max_length=MOST_SITES)]


@strict
@dataclass(frozen=True)
class SurvivorsQuestion:
    """The sites whose masked updates the hub has."""

    survivors: Names


@strict
@dataclass(frozen=True)
class Agreement:
    """The one set of survivors that a site will help to unmask in this round, out of those that shared masks."""

    site: Name
    plan: Digest
    roster: Digest
    sharers: Names
    survivors: Names


@strict
@dataclass(frozen=True)
class UnmaskQuestion:
    """Signed agreements, as envelopes' JSON."""

    agreements: Envelopes


@strict
@dataclass(frozen=True)
class Revealed:
    """A share of a peer's secret, base64."""

    peer: Name
    share: Annotated[str, Field(max_length=128)]


@strict
@dataclass(frozen=True)
class Unmasking:
    """What opens the sum: shares of survivors' seeds, and of the mask keys of those who are gone. No site is in both."""

    site: Name
    plan: Digest
    seeds: Annotated[tuple[Revealed, ...], Field(max_length=MOST_SITES)]
    keys: Annotated[tuple[Revealed, ...], Field(max_length=MOST_SITES)]


@dataclass(frozen=True)
class Roster:
    """The verified adverts of a round, by site."""

    plan: Digest
    adverts: Mapping[str, Advert]

    @property
    def names(self) -> tuple[str, ...]:
        """The sites, sorted."""
        return tuple(sorted(self.adverts))

    @cached_property
    def digest(self) -> Digest:
        """What names this roster in this round: every secret derived from its keys is bound to it."""
        return digest_of([self.plan, [digest_value(self.adverts[name]) for name in self.names]])

    def holder(self, site: str) -> int:
        """The site's number, from 1, as a holder of shares."""
        return self.names.index(site) + 1


def keys_of(plan: RoundPlan) -> dict[str, str]:
    """The verify keys that the plan names, by site.

    Raises:
        BractError: `peer-key` unless there is one for each place and for nobody else.
    """
    keys = {key.site: key.verify_key for key in plan.keys}
    if len(keys) != len(plan.keys) or set(keys) != {place.site for place in plan.cohort}:
        raise BractError(PEER_KEY, "the plan does not name one key for each place")
    return keys


def open_signed(cls: type[_Signed], data: bytes, plan: RoundPlan, named: Digest) -> _Signed:
    """What a site of the cohort signed for this round, with the key that the plan names for it.

    Args:
        cls: what it should be.
        data: the envelope's JSON.
        plan: of the round.
        named: the plan's digest.

    Raises:
        BractError: `untrusted` for another signature or round, or no site of it; `malformed`; as `keys_of`.
    """
    envelope, keys = parse_envelope(data), keys_of(plan)
    claimed = decode(cls, envelope.payload)
    if claimed.site not in keys:
        raise BractError(UNTRUSTED, "not a site of this round")
    value = unseal(cls, envelope, verify_key(keys[claimed.site]))
    if value.plan != named:
        raise BractError(UNTRUSTED, "signed for another round")
    return value


def open_roster(question: RosterQuestion, plan: RoundPlan, named: Digest) -> Roster:
    """The roster, once every advert in it is signed for this round by the site that it is of.

    Raises:
        BractError: as `open_signed`.
    """
    adverts = [open_signed(Advert, text.encode(), plan, named) for text in question.adverts]
    roster = Roster(named, {advert.site: advert for advert in adverts})
    if len(roster.adverts) != len(adverts):
        raise BractError(UNTRUSTED, "a site is in the roster twice")
    return roster


def open_agreements(question: UnmaskQuestion, own: Agreement, plan: RoundPlan, least: int) -> None:
    """That enough survivors signed the same set as this site.

    Raises:
        BractError: `untrusted` for another set, a stranger or one who signed twice; `policy` for too few; as `open_signed`.
    """
    signed = [open_signed(Agreement, text.encode(), plan, own.plan) for text in question.agreements]
    if any(replace(one, site=own.site) != own for one in signed):
        raise BractError(UNTRUSTED, "a site signed another set of survivors")
    check_set((one.site for one in signed), own.survivors, least)


def largest_question(sites: Iterable[str], threshold: int) -> int:
    """Bytes of the largest question in a round of these sites: the one with as many agreements as open the sum."""
    names = tuple(sorted(sites))
    nobody = digest_of([])
    longest = Agreement(max(names, key=len), nobody, nobody, names, names)
    signed = sign(longest, Ed25519PrivateKey.generate()).to_json().decode()
    return len(encode(UnmaskQuestion((signed,) * threshold)))


def check_set(names: Iterable[str], among: Iterable[str], least: int) -> tuple[str, ...]:
    """The names, sorted, if they are different ones among those, and enough.

    Raises:
        BractError: `untrusted`; `policy` for fewer than `least`.
    """
    listed = sorted(names)
    if len(set(listed)) != len(listed) or not set(listed) <= set(among):
        raise BractError(UNTRUSTED, "not a set of sites of this round")
    if len(listed) < least:
        raise BractError(POLICY, f"{len(listed)} sites, where at least {least} must stay")
    return tuple(listed)


def revealed(share: bytes) -> str:
    """A share as it is sent."""
    return base64.b64encode(share).decode()


def share_bytes(one: Revealed) -> bytes:
    """The share of a message.

    Raises:
        BractError: `bad-share` for anything but a share's bytes.
    """
    try:
        data = base64.b64decode(one.share, validate=True)
    except (ValueError, binascii.Error) as error:
        raise BractError(BAD_SHARE, one.peer) from error
    if len(data) != SHARE_BYTES:
        raise BractError(BAD_SHARE, one.peer)
    return data
