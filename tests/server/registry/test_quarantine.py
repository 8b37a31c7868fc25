"""A site that keeps sending what has to be refused takes part in nothing, until a named person says why it may again."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from bract.digest import Digest
from bract.errors import (
    BAD_ARRAYS,
    LATE,
    NOT_FINITE,
    QUARANTINED,
    STALE_CLEARANCE,
    STATE,
    UNKNOWN_SITE,
    BractError,
)
from bract.log import book
from bract_server.patience import Patience
from bract_server.registry.models import LOG
from tests.server.registry.world import AT, World, campaign_plan, named

LATER = AT + timedelta(seconds=1)
THREE_OF_FOUR = Patience(refused=3, rounds=4)


def code_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(BractError) as refusal:
        attempt()
    return refusal.value.code


def rounds(world: World, campaign: Digest, *codes: str) -> None:
    """A round for each code, with which what alder sends in it is refused; in a round without a code it sends nothing."""
    for code in codes:
        number, _ = world.open(campaign, "alder", "birch")
        if code:
            world.registry.reject("alder", campaign, number, code, named(f"{number}"), AT, THREE_OF_FOUR)
        world.registry.abort_round(campaign, number, {}, AT)


def is_apart(world: World, site: str = "alder") -> bool:
    return world.registry.site(site).quarantined_at is not None


def test_refused_contributions_in_the_newest_rounds_set_a_site_apart_and_only_it(
    world: World, campaign: Digest
) -> None:
    rounds(world, campaign, BAD_ARRAYS, "", NOT_FINITE)
    assert not is_apart(world)
    rounds(world, campaign, BAD_ARRAYS)
    assert is_apart(world) and not is_apart(world, "birch")
    (one,) = world.registry.quarantines()
    assert (one.site, one.codes, one.began_at, one.lifted_by) == ("alder", {BAD_ARRAYS: 2, NOT_FINITE: 1}, AT, None)


@pytest.mark.parametrize("code", [LATE, STALE_CLEARANCE])
def test_what_is_no_fault_of_the_site_never_counts(world: World, campaign: Digest, code: str) -> None:
    rounds(world, campaign, code, code, code, code)
    assert not is_apart(world)


def test_old_faults_are_forgotten(world: World, campaign: Digest) -> None:
    rounds(world, campaign, BAD_ARRAYS, BAD_ARRAYS, "", "", BAD_ARRAYS)
    assert not is_apart(world), "the first is beyond the four newest rounds"


def test_a_site_apart_is_asked_nothing_and_nothing_of_it_counts_but_its_withdrawals(
    world: World, campaign: Digest
) -> None:
    other = world.start(campaign_plan("lung"))
    number, plan = world.open(other, "alder", "birch")
    contribution = world.contribution("alder", other, number, plan.name)
    rounds(world, campaign, BAD_ARRAYS, BAD_ARRAYS, BAD_ARRAYS)
    assert is_apart(world)
    assert code_of(lambda: world.registry.accept(contribution, "alder", AT)) == QUARANTINED, "in whatever campaign"
    proposed = world.registry.propose(campaign, AT).number
    assert world.registry.proposals("alder", AT) == []
    assert len(world.registry.proposals("birch", AT)) == 1
    clearance, reservation = (make("alder", campaign, proposed) for make in (world.clearance, world.reservation))
    assert code_of(lambda: world.registry.clear("alder", clearance, AT)) == QUARANTINED
    assert code_of(lambda: world.registry.reserve("alder", reservation, AT)) == QUARANTINED
    answers = world.registry.answers(campaign, proposed, AT)
    assert answers.refusals == {"alder": QUARANTINED} and answers.waiting == ("birch", "cedar")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)


def test_what_was_accepted_before_its_site_was_set_apart_does_not_enter_the_version(
    world: World, campaign: Digest
) -> None:
    other = world.start(campaign_plan("lung"))
    number, plan = world.open(other, "alder", "birch", "cedar")
    for site in ("alder", "birch", "cedar"):
        world.registry.accept(world.contribution(site, other, number, plan.name), site, AT)
    before = world.version(other, number)
    rounds(world, campaign, BAD_ARRAYS, BAD_ARRAYS, BAD_ARRAYS)
    assert [one.site for one in world.registry.contributions(other, number)] == ["birch", "cedar"]
    assert code_of(lambda: world.commit(other, number, contributions=before.contributions)) == STALE_CLEARANCE
    world.commit(other, number)
    (report,) = world.registry.rounds(other)
    assert (report.participants, report.missing) == (("birch", "cedar"), {"alder": QUARANTINED})
    assert world.registry.receipts("alder", 0) == [], "nothing says that it was used"


def test_a_place_that_was_promised_is_lost(world: World, campaign: Digest) -> None:
    other = world.start(campaign_plan("lung"))
    world.registry.propose(other, AT)
    world.answer(other, 1, "alder", "birch")
    plan = world.round_plan(other, 1, world.registry.answers(other, 1, AT).places)
    rounds(world, campaign, BAD_ARRAYS, BAD_ARRAYS, BAD_ARRAYS)
    assert code_of(lambda: world.registry.open_round(plan, AT)) == QUARANTINED


def test_a_named_person_lifts_it_with_a_reason_and_the_site_starts_anew(world: World, campaign: Digest) -> None:
    def lift(site: str) -> None:
        world.registry.lift_quarantine(site, "Ada", "the disk was replaced", LATER)

    assert code_of(lambda: lift("alder")) == STATE
    assert code_of(lambda: lift("elsewhere")) == UNKNOWN_SITE
    rounds(world, campaign, BAD_ARRAYS, BAD_ARRAYS, BAD_ARRAYS)
    lift("alder")
    assert not is_apart(world)
    number, _ = world.open(campaign, "alder", "birch")
    world.registry.reject("alder", campaign, number, BAD_ARRAYS, None, LATER + timedelta(seconds=1), THREE_OF_FOUR)
    assert not is_apart(world), "what was before counts no more"
    (one,) = world.registry.quarantines()
    assert (one.lifted_by, one.reason, one.lifted_at) == ("Ada", "the disk was replaced", LATER)
    with world.engine.connect() as connection:
        told = [
            (entry.kind, entry.actor, entry.about, json.loads(book.body(connection, LOG, entry.seq) or b""))
            for entry in book.entries(connection, LOG)
            if entry.kind.startswith("quarantine.")
        ]
    assert told == [
        ("quarantine.begin", "hub", "alder", {"codes": {BAD_ARRAYS: 3}, "rounds": 4}),
        ("quarantine.lift", "Ada", "alder", {"reason": "the disk was replaced", "began_at": AT.isoformat()}),
    ]
