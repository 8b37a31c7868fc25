"""A site reveals nothing that would open one update: whatever the hub says, and however often, it refuses by name."""

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import digest
from bract.errors import BAD_SHARE, MALFORMED, PEER_KEY, POLICY, SECOND_ANSWER, STATE, UNTRUSTED, BractError
from bract.plan import SiteKey
from bract.secure.agreement import new_keys, public_text
from bract.secure.stages import (
    Advert,
    Agreement,
    Box,
    Delivery,
    RosterQuestion,
    SurvivorsQuestion,
    Unmasking,
    UnmaskQuestion,
)
from bract.signing import key_text, parse_envelope, sign
from bract.value import decode, encode
from bract_client.policy import SitePolicy
from bract_client.secure import Cover, forget
from tests.secure_world import Member, Payload, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Five sites, threshold three, of which all have answered every stage."""
    world = World(tmp_path, sites=5)
    world.members["site-4"].leaves = "mask"
    world.collect().remove()
    return world


def never(_: Cover) -> bytes:
    raise AssertionError("nothing may be trained")


def refused(member: Member, stage: str, question: object, contribute: Callable[[Cover], bytes] = never) -> str:
    data = question if isinstance(question, bytes) else encode(question)
    with pytest.raises(BractError) as caught:
        member.round.answer(stage, data, contribute)
    return caught.value.code


def fresh(world: World, *stages: str) -> Member:
    """Site 0 in the same round, as if it had answered none of these stages."""
    member = world.members["site-0"]
    for stage in stages:
        (member.round.memory.folder / f"{stage}.json").unlink()
    return member


def roster(world: World) -> tuple[str, ...]:
    return decode(RosterQuestion, world.members["site-0"].asked["share"]).adverts


def unmasking(reply: Payload) -> Unmasking:
    data = reply["answer"]
    assert isinstance(data, bytes)
    return decode(Unmasking, parse_envelope(data).payload)


@pytest.mark.parametrize("stage", ["advertise", "share", "agree", "unmask"])
def test_the_same_question_gets_the_same_answer_also_after_a_restart(world: World, stage: str) -> None:
    member = world.members["site-0"]
    before = member.round.answer(stage, member.asked[stage], never)
    member.round = world.join(member)
    assert member.round.answer(stage, member.asked[stage], never) == before


def test_a_second_roster_set_of_boxes_or_of_survivors_is_refused_also_after_a_restart(world: World) -> None:
    member = world.members["site-0"]
    member.round = world.join(member)
    fewer = RosterQuestion(roster(world)[:4])
    delivery = decode(Delivery, member.asked["mask"])
    survivors = SurvivorsQuestion(("site-0", "site-1", "site-2"))
    assert refused(member, "share", fewer) == SECOND_ANSWER
    assert refused(member, "mask", replace(delivery, boxes=delivery.boxes[:4])) == SECOND_ANSWER
    assert refused(member, "agree", survivors) == SECOND_ANSWER


def test_of_each_peer_one_secret_is_revealed_and_never_both(world: World) -> None:
    member = world.members["site-0"]
    answer = unmasking(member.round.answer("unmask", member.asked["unmask"], never))
    assert [one.peer for one in answer.seeds] == ["site-0", "site-1", "site-2", "site-3"]
    assert [one.peer for one in answer.keys] == ["site-4"]


def test_nothing_is_unmasked_before_enough_sites_signed_one_set(world: World) -> None:
    member = world.members["site-0"]
    signed = decode(UnmaskQuestion, member.asked["unmask"]).agreements
    assert len(signed) == 3, "as many as the threshold, of the four who signed"
    assert refused(member, "unmask", UnmaskQuestion(signed[:2])) == POLICY
    assert refused(member, "unmask", UnmaskQuestion((*signed[:2], signed[0]))) == UNTRUSTED
    assert refused(member, "unmask", UnmaskQuestion(())) == POLICY


def test_signatures_on_another_set_of_survivors_open_nothing(world: World) -> None:
    """The hub shows one set to this site and has the others sign another one."""
    member = world.members["site-0"]
    signed = list(decode(UnmaskQuestion, member.asked["unmask"]).agreements)
    liar = world.members["site-1"]
    other = replace(
        decode(Agreement, parse_envelope(signed[1].encode()).payload), survivors=("site-1", "site-2", "site-3")
    )
    signed[1] = sign(other, liar.key).to_json().decode()
    assert refused(member, "unmask", UnmaskQuestion(tuple(signed))) == UNTRUSTED


def test_an_agreement_that_its_site_did_not_sign_or_of_another_round_counts_for_nothing(world: World) -> None:
    member = world.members["site-0"]
    signed = list(decode(UnmaskQuestion, member.asked["unmask"]).agreements)
    value = decode(Agreement, parse_envelope(signed[1].encode()).payload)
    for forged in (
        sign(value, Ed25519PrivateKey.generate()),
        sign(replace(value, plan=digest(b"another")), world.members["site-1"].key),
        sign(replace(value, site="site-9"), world.members["site-1"].key),
    ):
        changed = (signed[0], forged.to_json().decode(), *signed[2:])
        assert refused(member, "unmask", UnmaskQuestion(changed)) == UNTRUSTED


def test_a_survivor_set_without_this_site_with_strangers_or_too_small_is_refused(world: World) -> None:
    member = fresh(world, "agree")
    assert refused(member, "agree", SurvivorsQuestion(("site-1", "site-2", "site-3"))) == UNTRUSTED
    assert refused(member, "agree", SurvivorsQuestion(("site-0", "site-1", "site-9"))) == UNTRUSTED
    assert refused(member, "agree", SurvivorsQuestion(("site-0", "site-1", "site-1"))) == UNTRUSTED
    assert refused(member, "agree", SurvivorsQuestion(("site-0", "site-1"))) == POLICY


def test_no_set_may_be_smaller_than_the_sites_own_least_cohort(world: World) -> None:
    member = fresh(world, "agree", "share")
    member.policy = SitePolicy(min_cohort=5)
    member.round = world.join(member)
    assert refused(member, "share", RosterQuestion(roster(world)[:4])) == POLICY
    assert member.round.answer("share", member.asked["share"], never)
    assert refused(member, "agree", SurvivorsQuestion(("site-0", "site-1", "site-2", "site-3"))) == POLICY


def swapped(world: World, place: int, key: Ed25519PrivateKey) -> RosterQuestion:
    """The roster with other X25519 keys for one site, signed with `key`."""
    keys, adverts = new_keys(), list(roster(world))
    advert = decode(Advert, parse_envelope(adverts[place].encode()).payload)
    forged = replace(advert, channel_key=public_text(keys.channel), mask_key=public_text(keys.mask))
    adverts[place] = sign(forged, key).to_json().decode()
    return RosterQuestion(tuple(adverts))


def test_a_hub_that_swaps_a_key_is_refused(world: World) -> None:
    member = fresh(world, "share")
    assert refused(member, "share", swapped(world, 1, world.hub_key)) == UNTRUSTED
    assert refused(member, "share", swapped(world, 1, Ed25519PrivateKey.generate())) == UNTRUSTED
    assert refused(member, "share", swapped(world, 0, member.key)) == PEER_KEY
    without = RosterQuestion(roster(world)[1:])
    assert refused(member, "share", without) == PEER_KEY
    assert refused(member, "share", RosterQuestion((*roster(world), roster(world)[1]))) == UNTRUSTED


def test_keys_of_low_order_give_no_secret(world: World) -> None:
    member, victim = fresh(world, "share"), world.members["site-1"]
    advert = decode(Advert, parse_envelope(roster(world)[1].encode()).payload)
    zero = replace(advert, channel_key=base64.b64encode(bytes(32)).decode())
    adverts = (roster(world)[0], sign(zero, victim.key).to_json().decode(), *roster(world)[2:])
    assert refused(member, "share", RosterQuestion(adverts)) == UNTRUSTED


def rebuilt(boxes: tuple[Box, ...], change: Callable[[list[str]], None]) -> tuple[Box, ...]:
    texts = [box.box for box in boxes]
    change(texts)
    return tuple(Box(box.peer, text) for box, text in zip(boxes, texts, strict=True))


def test_a_tampered_box_or_one_for_somebody_else_is_refused_before_anything_is_trained(world: World) -> None:
    member = fresh(world, "mask")
    delivery = decode(Delivery, member.asked["mask"])

    def tampered(texts: list[str]) -> None:
        data = bytearray(base64.b64decode(texts[1]))
        data[20] ^= 1
        texts[1] = base64.b64encode(data).decode()

    def exchanged(texts: list[str]) -> None:
        texts[1], texts[2] = texts[2], texts[1]

    for change in (tampered, exchanged):
        assert refused(member, "mask", replace(delivery, boxes=rebuilt(delivery.boxes, change))) == BAD_SHARE
    assert refused(member, "mask", replace(delivery, boxes=delivery.boxes[1:])) == UNTRUSTED
    assert refused(member, "mask", replace(delivery, roster=digest(b"another"))) == UNTRUSTED
    assert refused(member, "mask", replace(delivery, boxes=delivery.boxes[:2])) == POLICY


def test_what_was_said_in_one_round_is_of_no_use_in_the_next(world: World) -> None:
    member = world.members["site-0"]
    old = dict(member.asked)
    world.open(2)
    assert refused(member, "share", old["share"]) == UNTRUSTED
    for stage in ("mask", "agree", "unmask"):
        assert refused(member, stage, old[stage]) == STATE
    world.collect().remove()
    assert refused(member, "unmask", old["unmask"]) == UNTRUSTED


def test_a_key_in_the_plan_that_is_not_the_known_one_is_refused(world: World) -> None:
    member = world.members["site-0"]
    strange = key_text(Ed25519PrivateKey.generate().public_key())
    own, first, *rest = world.plan.keys
    for keys in (
        (replace(own, verify_key=strange), first, *rest),
        (own, replace(first, verify_key=strange), *rest),
        (own, *rest),
        (own, own, first, *rest),
    ):
        with pytest.raises(BractError) as caught:
            world.join(member, replace(world.plan, keys=keys))
        assert caught.value.code == PEER_KEY


def test_where_the_steward_lists_peers_no_other_takes_part(world: World) -> None:
    member = world.members["site-0"]
    listed = tuple(key for key in world.plan.keys if key.site != "site-0")
    member.policy = SitePolicy(peers=listed)
    world.join(member)
    for peers in (listed[1:], (SiteKey("site-1", world.plan.keys[0].verify_key), *listed[1:])):
        member.policy = SitePolicy(peers=peers)
        with pytest.raises(BractError) as caught:
            world.join(member)
        assert caught.value.code == PEER_KEY


def test_stages_out_of_turn_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    member: Any = world.members["site-0"]
    delivery = Delivery(digest(b"roster"), ())
    assert refused(member, "mask", delivery) == STATE
    assert refused(member, "agree", SurvivorsQuestion(())) == STATE
    assert refused(member, "unmask", UnmaskQuestion(())) == STATE
    assert refused(member, "open", b"") == MALFORMED
    assert refused(member, "share", b"\x00") == MALFORMED


def test_a_round_an_hour_past_its_deadline_is_forgotten_with_its_keys(world: World) -> None:
    member = world.members["site-0"]
    folder, deadline = member.round.memory.folder, world.plan.deadline
    assert (folder / "keys.json").stat().st_mode & 0o777 == 0o600
    forget(member.home, deadline + timedelta(minutes=59))
    assert folder.exists()
    forget(member.home, deadline + timedelta(minutes=61))
    assert not folder.exists()
