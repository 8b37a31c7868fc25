"""The sum of masked updates is exact whoever leaves, and below the threshold, or out of tampered shares, nothing is opened."""

import base64
import itertools
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bract import flower
from bract.arrays import Array
from bract.errors import BAD_SHARE, MALFORMED, SECOND_ANSWER, SITE_FAILED, TOO_LARGE, UNTRUSTED, BractError
from bract.secure.ring import quantised, real, scale, scale_of
from bract.secure.spec import MOST_SITES, SkellamSpec
from bract.secure.stages import (
    Advert,
    Agreement,
    Dealing,
    Revealed,
    Unmasking,
    UnmaskQuestion,
    largest_question,
    revealed,
)
from bract.signing import MAX_ENVELOPE
from bract.value import decode
from bract_server import campaigns
from bract_server.limits import MAX_BODY
from tests.secure_world import Payload, World, reworked

STAGES = ("advertise", "share", "mask", "agree", "unmask", "")


def expected(world: World, sites: list[str]) -> Array:
    """The mean as whole numbers give it, without masks."""
    every = [site.weight for site in world.campaign.sites]
    at, weights = scale(world.spec.clip, len(every)), [world.campaign.site(name).weight for name in sites]
    words = [
        quantised(world.members[name].values, weight / max(every), at)
        for name, weight in zip(sites, weights, strict=True)
    ]
    total = sum(word.view("<i4").astype(np.int64) for word in words)
    assert np.abs(total).max() < 2**31
    return real(np.asarray(total).astype("<i4").view("<u4"), max(every) / sum(weights), at).astype(np.float32)


def check(world: World) -> None:
    """The round's outcome is what the pattern of leaving sites says, and exact."""
    left = list(world.members)
    survivors: list[str] = []
    for stage in STAGES[:-1]:
        left = [name for name in left if world.members[name].leaves != stage]
        survivors = left if stage == "mask" else survivors
        if len(left) < world.spec.threshold:
            survivors = []
            break
    opened = world.collect()
    if not survivors:
        assert opened.mean is None and not opened.weights
        return
    assert set(opened.weights) == set(survivors)
    assert np.array_equal(world.mean(opened), expected(world, survivors)), "exact in the ring"
    opened.remove()


@pytest.mark.parametrize(
    "sites", [3, 4, pytest.param(5, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.slow)]
)
def test_the_sum_is_exact_whoever_leaves_after_dealing_shares(tmp_path: Path, sites: int) -> None:
    """Every subset of sites, gone before their masked update: opened down to the threshold, refused below."""
    world = World(tmp_path, sites)
    for number, gone in enumerate(itertools.product([False, True], repeat=sites), start=1):
        world.open(number)
        for member, leaves in zip(world.members.values(), gone, strict=True):
            member.up, member.leaves = True, "mask" if leaves else ""
        check(world)


@settings(max_examples=8, deadline=None)
@given(st.data(), st.integers(3, 8))
def test_the_sum_is_exact_whatever_stage_sites_leave_at(data: st.DataObject, sites: int) -> None:
    weights = data.draw(st.tuples(*[st.floats(0.1, 9.0)] * sites))
    with TemporaryDirectory() as folder:
        world = World(Path(folder), sites, weights=weights)
        for member in world.members.values():
            member.leaves = data.draw(st.sampled_from(STAGES))
        check(world)


@pytest.mark.parametrize("stage", STAGES[:-1])
def test_one_of_three_may_leave_at_any_stage(tmp_path: Path, stage: str) -> None:
    world = World(tmp_path)
    world.members["site-1"].leaves = stage
    check(world)
    assert world.members["site-1"].asked.keys() <= set(STAGES)


def test_an_update_longer_than_the_clip_is_shortened_to_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    for member in world.members.values():
        member.values = member.values * np.float32(1e4)
    opened = world.collect()
    assert np.linalg.norm(world.mean(opened)) <= world.spec.clip * 1.000001


def test_a_masked_vector_that_no_clipped_updates_add_up_to_opens_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    store, member = world.store, world.members["site-2"]

    def spoil(stage: str, reply: Payload) -> Payload:
        if stage == "mask":
            words = np.random.default_rng(0).integers(0, 2**32, len(member.values), np.uint32)
            store.path(member.sent).write_bytes(words.tobytes())
        return reply

    member.tamper = spoil
    opened = world.collect()
    assert opened.mean is None and not list(store.scratch.glob("*.mean"))


def flipped(one: Revealed) -> Revealed:
    return replace(one, share=revealed(bytes(66)))


def test_a_tampered_share_puts_its_sender_out_and_the_others_open_the_sum(tmp_path: Path) -> None:
    world = World(tmp_path, sites=4, threshold=3)
    member = world.members["site-1"]
    rework = reworked(
        member, Unmasking, lambda value: replace(value, seeds=(flipped(value.seeds[0]), *value.seeds[1:]))
    )
    member.tamper = lambda stage, reply: rework(reply) if stage == "unmask" else reply
    opened = world.collect()
    assert opened.missing == {"site-1": BAD_SHARE}
    assert np.array_equal(world.mean(opened), expected(world, list(world.members))), "its update stays in the sum"


def test_shares_of_another_secret_than_the_dealer_committed_to_open_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    member = world.members["site-0"]
    rework = reworked(member, Dealing, lambda value: replace(value, seed=value.roster))
    member.tamper = lambda stage, reply: rework(reply) if stage == "share" else reply
    assert world.collect().mean is None


@pytest.mark.parametrize(
    ("stage", "cls"), [("advertise", Advert), ("share", Dealing), ("agree", Agreement), ("unmask", Unmasking)]
)
def test_what_was_signed_for_another_round_is_refused_and_kept_as_evidence(
    tmp_path: Path, stage: str, cls: type
) -> None:
    world = World(tmp_path)
    member = world.members["site-2"]
    rework = reworked(member, cls, lambda value: replace(value, plan=world.plan.parent))
    member.tamper = lambda at, reply: rework(reply) if at == stage else reply
    assert world.collect().missing == {"site-2": UNTRUSTED}
    assert world.books.evidence == [("site-2", UNTRUSTED)]


def test_an_answer_signed_by_another_sites_key_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    thief = world.members["site-2"]
    rework = reworked(world.members["site-1"], Advert, lambda value: value)
    thief.tamper = lambda at, reply: rework(reply) if at == "advertise" else reply
    assert world.collect().missing == {"site-2": UNTRUSTED}


LOW_ORDER = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(("key", "code"), [(LOW_ORDER, UNTRUSTED), ("no key", MALFORMED)])
def test_a_key_that_nobody_can_use_puts_its_owner_out_and_nobody_else(tmp_path: Path, key: str, code: str) -> None:
    world = World(tmp_path)
    rework = reworked(world.members["site-2"], Advert, lambda value: replace(value, mask_key=key))
    world.members["site-2"].tamper = lambda at, reply: rework(reply) if at == "advertise" else reply
    opened = world.collect()
    assert opened.missing == {"site-2": code} and world.books.evidence == [("site-2", code)]
    assert np.array_equal(world.mean(opened), expected(world, ["site-0", "site-1"]))


@pytest.mark.parametrize("stage", ["advertise", "share", "agree", "unmask"])
def test_an_answer_in_another_encoding_is_refused_and_ends_nothing(tmp_path: Path, stage: str) -> None:
    world = World(tmp_path)

    def tamper(at: str, reply: Payload) -> Payload:
        data = reply.get("answer")
        return {"answer": data.decode().encode("utf-16")} if at == stage and isinstance(data, bytes) else reply

    world.members["site-2"].tamper = tamper
    assert world.collect().missing == {"site-2": MALFORMED}


def test_a_hub_that_was_killed_asks_again_and_opens_the_same_sum(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.mean(world.collect())
    for member in world.members.values():
        member.round = world.join(member)
    assert np.array_equal(world.mean(world.collect()), first)


def test_no_second_set_of_survivors_is_opened_in_a_round(tmp_path: Path) -> None:
    """After all three were opened together, the sum of two of them would show the third."""
    world = World(tmp_path)
    world.collect().remove()
    del world.books.accepted["site-2"]
    world.members["site-2"].leaves = "mask"
    opened = world.collect()
    assert opened.mean is None
    assert opened.missing == {"site-0": SECOND_ANSWER, "site-1": SECOND_ANSWER, "site-2": SITE_FAILED}


@pytest.mark.parametrize("gone", [0, 1])
def test_the_opened_mean_holds_every_survivors_noise(tmp_path: Path, gone: int) -> None:
    """Of the variance that is accounted: what a site drew and what the sum opened agree, also when a site has left."""
    noise, numbers = SkellamSpec(0.5), 20_000
    world = World(tmp_path, numbers=numbers, noise=noise)
    for member in world.members.values():
        member.values = member.values / np.float32(100)
    world.members["site-1"].leaves = "mask" if gone else ""
    opened = world.collect()
    left = list(opened.weights)
    assert len(left) == 3 - gone
    exact = sum(world.members[name].values.astype(np.float64) for name in left) / len(left)
    at, honest = scale_of(world.spec, 3), world.spec.honest
    meant = math.sqrt(2 * noise.rate(honest) * len(left)) * at.step / len(left)
    assert abs(np.std(world.mean(opened) - exact) / meant - 1) < 0.03
    assert meant * len(left) >= noise.multiplier * world.spec.clip * math.sqrt(len(left) / honest) * (1 - 1e-6)


def test_too_few_sites_is_a_quorum_that_is_not_there(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in ("site-0", "site-1"):
        world.members[name].leaves = "share"
    opened = world.collect()
    assert opened.mean is None and set(opened.missing) == {"site-0", "site-1"}
    assert "mask" not in world.members["site-2"].asked, "nobody was asked for an update"


def test_sites_are_shown_as_many_agreements_as_convince_them(tmp_path: Path) -> None:
    world = World(tmp_path, sites=4, threshold=3)
    check(world)
    for member in world.members.values():
        assert len(decode(UnmaskQuestion, member.asked["unmask"]).agreements) == 3


@pytest.mark.parametrize("letters", [63, 12])
def test_a_plan_is_refused_whose_questions_would_not_pass_flowers_door_and_what_is_let_through_does(
    letters: int,
) -> None:
    """Of 256 sites with the longest names some thresholds are too many; with ordinary names none is."""
    names = [f"{number:03d}".ljust(letters, "x") for number in range(MOST_SITES)]

    def passes(threshold: int) -> bool:
        try:
            campaigns.check_questions(names, threshold)
        except BractError as error:
            assert error.code == TOO_LARGE
            return False
        return True

    most = max(filter(passes, range(129, MOST_SITES + 1)))
    assert passes(2) and (most < MOST_SITES) == (letters == 63)
    question = b"q" * largest_question(names, most)
    envelopes = dict.fromkeys(("plan", "campaign"), b"e" * MAX_ENVELOPE)
    message = flower.ConfigRecord({**envelopes, "stage": "unmask", "question": question})
    assert len(message.deflate()) + 1000 < MAX_BODY
