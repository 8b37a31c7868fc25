"""One process speaks for a campaign: the newest run's; what a former one still writes is refused, whatever it is."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from bract.digest import Digest
from bract.errors import BAD_ARRAYS, HUB_FAILED, NOT_RUNNING, STATE, SUPERSEDED, UNKNOWN_CAMPAIGN, BractError
from bract.log import book
from bract.receipt import EncoderVersion
from bract.value import digest_value
from bract_server.registry.models import LOG
from bract_server.registry.store import HubRegistry
from tests.server.registry.world import ARRAYS_BYTES, AT, World, campaign_plan, named

LATER = AT + timedelta(seconds=1)


def _refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(BractError) as refusal:
        attempt()
    return refusal.value.code


def taken(world: World, flower_run: str) -> HubRegistry:
    """The registry of a process that has just become the campaign's newest run."""
    run = world.registry.open_run("heart", None, failed=False, at=AT)
    return world.registry.fenced(world.registry.take_run("heart", run.epoch, flower_run, AT))


def test_a_former_run_that_wakes_up_can_write_nothing(world: World, campaign: Digest) -> None:
    old = taken(world, "11")
    number, plan = world.open(campaign, "alder", "birch")
    envelopes = {site: world.contribution(site, campaign, number, plan.name) for site in ("alder", "birch")}
    old.accept(envelopes["alder"], "alder", AT)
    world.registry.open_run("heart", HUB_FAILED, failed=True, at=AT)
    writes: list[Callable[[], object]] = [
        lambda: old.accept(envelopes["birch"], "birch", AT),
        lambda: old.reject("birch", campaign, number, BAD_ARRAYS, None, AT),
        lambda: old.abort_round(campaign, number, {}, AT),
        lambda: old.commit_round(campaign, number, world.version(campaign, number), None, {"alder": 1.0}, {}, 1, AT),
        lambda: old.propose(campaign, AT),
        lambda: old.open_round(world.round_plan(campaign, number, ()), AT),
        lambda: old.set_state("heart", "completed", "", AT),
    ]
    before = world.registry.rounds(campaign), world.registry.contributions(campaign, number)
    assert [_refused(write) for write in writes] == [SUPERSEDED] * len(writes)
    assert (world.registry.rounds(campaign), world.registry.contributions(campaign, number)) == before
    assert world.registry.campaign("heart").state == "running"
    new = world.registry.fenced(world.registry.take_run("heart", 2, "12", AT))
    new.accept(envelopes["birch"], "birch", AT)
    assert len(old.contributions(campaign, number)) == 2, "reading is open to all"


def test_an_epoch_is_taken_by_one_process(world: World, campaign: Digest) -> None:
    assert world.registry.newest_run(campaign) is None
    taken(world, "11")
    again = world.registry.take_run("heart", 1, "11", AT)
    assert (again.campaign, again.epoch) == (campaign, 1)
    assert _refused(lambda: world.registry.take_run("heart", 1, "12", AT)) == SUPERSEDED
    assert _refused(lambda: world.registry.take_run("heart", 2, "11", AT)) == SUPERSEDED
    taken(world, "13")
    assert _refused(lambda: world.registry.take_run("heart", 1, "11", AT)) == SUPERSEDED
    assert [(run.epoch, run.flower_run) for run in world.registry.runs(campaign)] == [(1, "11"), (2, "13")]


def test_tries_count_failures_in_a_row_without_a_closed_round(world: World, campaign: Digest) -> None:
    def opened(failed: bool) -> int:
        after = HUB_FAILED if failed else NOT_RUNNING
        return world.registry.open_run("heart", after, failed=failed, at=AT).tries

    assert [opened(True), opened(True), opened(True)] == [1, 2, 3]
    assert opened(False) == 1, "the hub was restarted: that is no failure of the run"
    assert opened(True) == 2
    number = world.registry.propose(campaign, AT).number
    world.registry.abort_round(campaign, number, {}, LATER)
    newest = world.registry.newest_run(campaign)
    assert newest is not None and newest.progressed
    assert opened(True) == 1, "a round was closed"


def test_a_run_and_what_it_follows_stand_in_the_log(world: World, campaign: Digest) -> None:
    taken(world, "11")
    world.registry.open_run("heart", HUB_FAILED, failed=True, at=AT)
    world.registry.take_run("heart", 2, "12", AT)
    with world.engine.connect() as connection:
        entries = [entry for entry in book.entries(connection, LOG) if entry.kind.startswith("run.")]
        told = [(entry.kind, json.loads(book.body(connection, LOG, entry.seq) or b"")) for entry in entries]
    assert told == [
        ("run.open", {"epoch": 1, "tries": 1, "after": None, "parent": None}),
        ("run.take", {"epoch": 1, "flower_run": "11", "parent": None}),
        ("run.open", {"epoch": 2, "tries": 2, "after": HUB_FAILED, "parent": "11"}),
        ("run.take", {"epoch": 2, "flower_run": "12", "parent": "11"}),
    ]


def test_only_a_running_campaign_has_a_new_run(world: World, campaign: Digest) -> None:
    def opens(name: str) -> str:
        return _refused(lambda: world.registry.open_run(name, None, failed=False, at=AT))

    world.registry.set_state("heart", "stopped", "", AT)
    plan = campaign_plan("lung")
    first = EncoderVersion(digest_value(plan), 0, named("arrays"), ARRAYS_BYTES, None, ())
    world.registry.create_campaign(plan, first, AT)
    assert [opens("heart"), opens("lung"), opens("liver")] == [STATE, STATE, UNKNOWN_CAMPAIGN]
    assert world.registry.runs(campaign) == ()
