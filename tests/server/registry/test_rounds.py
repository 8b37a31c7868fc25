"""A round from its proposal to its contributions, and every way in which it may not go."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete, insert, text, update
from sqlalchemy.exc import DBAPIError

from bract.digest import Digest
from bract.errors import (
    BAD_ARRAYS,
    BUDGET,
    MALFORMED,
    NO_CLEARANCE,
    NO_RESERVATION,
    NOT_FINITE,
    OVERSPEND,
    POLICY,
    QUORUM,
    REPLAY,
    STALE_CLEARANCE,
    STATE,
    STOPPED,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import Place, RoundPlan
from bract.signing import sign, unseal
from bract.update import Contribution
from bract.value import decode
from bract_server.registry.models import MUTABLE, Base, ParticipantRow
from tests.server.registry.world import ARRAYS_BYTES, AT, MECHANISM, SITES, World, campaign_plan, named

HOUR = timedelta(hours=1)


def _refused(attempt: Callable[[], object]) -> str:
    with pytest.raises(BractError) as refusal:
        attempt()
    return refusal.value.code


def test_numbers_are_never_used_again(world: World, campaign: Digest) -> None:
    assert world.registry.propose(campaign, AT).number == 1
    assert _refused(lambda: world.registry.propose(campaign, AT)) == STATE
    world.registry.abort_round(campaign, 1, {}, AT)
    assert _refused(lambda: world.registry.abort_round(campaign, 1, {}, AT)) == STATE
    assert world.registry.propose(campaign, AT).number == 2
    assert [(r.number, r.state) for r in world.registry.rounds(campaign)] == [(1, "aborted"), (2, "planned")]


def test_only_a_running_campaign_has_rounds(world: World, campaign: Digest) -> None:
    world.registry.propose(campaign, AT)
    world.answer(campaign, 1, *SITES)
    plan = world.round_plan(campaign, 1, world.registry.answers(campaign, 1, AT).places)
    world.registry.set_state("heart", "stopped", "", AT)
    assert _refused(lambda: world.registry.open_round(plan, AT)) == STATE
    assert _refused(lambda: world.registry.propose(campaign, AT)) == STATE


@pytest.mark.parametrize("state", ["stopped", "failed"])
def test_a_campaign_that_ceases_to_run_leaves_no_round_open(world: World, campaign: Digest, state: str) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    (update,) = world.registry.updates(campaign, number)
    other = world.start(campaign_plan("lung"))
    world.registry.propose(other, AT + HOUR)
    world.registry.set_state("heart", state, "", AT)
    (report,) = world.registry.rounds(campaign)
    assert (report.state, report.missing) == ("aborted", dict.fromkeys(SITES, STOPPED))
    assert not world.registry.keeps(update), "nothing is kept of what was sent"
    assert world.registry.oldest_open() == AT + HOUR, "the other campaign's round alone is open"
    late = world.contribution("birch", campaign, number, plan.name)
    assert _refused(lambda: world.registry.accept(late, "birch", AT)) == STATE
    assert _refused(lambda: world.registry.may_put("birch", update, 10, AT)) == NO_CLEARANCE
    assert len(world.registry.spent("alder", "adult")) == 1, "what was reserved stays spent"
    world.registry.set_state("heart", "running", "", AT)
    assert world.registry.propose(campaign, AT).number == number + 1
    assert world.registry.verify_log().verified


def test_who_was_out_of_a_round_before_it_was_stopped_keeps_its_own_reason(world: World, campaign: Digest) -> None:
    number = world.registry.propose(campaign, AT).number
    world.registry.refuse("cedar", world.refusal("cedar", campaign, number, POLICY), AT)
    world.answer(campaign, number, "alder", "birch")
    plan = world.round_plan(campaign, number, world.registry.answers(campaign, number, AT).places)
    sealed = world.registry.open_round(plan, AT)
    for site, kept in (("alder", True), ("birch", False)):
        world.registry.reject(site, campaign, number, NOT_FINITE, None, AT)
        if kept:
            world.registry.accept(world.contribution(site, campaign, number, sealed.name), site, AT)
    world.registry.set_state("heart", "stopped", "", AT)
    (report,) = world.registry.rounds(campaign)
    assert report.missing == {"alder": STOPPED, "birch": NOT_FINITE, "cedar": POLICY}


def test_a_round_opens_over_clearances_and_reservations(world: World, campaign: Digest) -> None:
    number, envelope = world.open(campaign, "alder", "birch")
    plan = unseal(RoundPlan, envelope, world.registry.verify_key)
    assert [place.site for place in plan.cohort] == ["alder", "birch"]
    assert world.registry.round_plan(campaign, number) == envelope
    (report,) = world.registry.rounds(campaign)
    assert (report.state, report.participants, report.version) == ("running", ("alder", "birch"), None)
    assert _refused(lambda: world.registry.open_round(plan, AT)) == STATE


def _places(world: World, campaign: Digest) -> tuple[Place, ...]:
    return world.registry.answers(campaign, 1, AT).places


def test_the_gate(world: World, campaign: Digest) -> None:
    """Each line is a way around the gate; none opens the round, and the last one, the right way, does."""
    world.registry.propose(campaign, AT)
    world.answer(campaign, 1, "alder", "birch")
    world.registry.clear("cedar", world.clearance("cedar", campaign, 1), AT)
    alder, birch = _places(world, campaign)
    cedar = Place("cedar", world.clearance("cedar", campaign, 1).name, birch.reservation)
    right = world.round_plan(campaign, 1, (alder, birch))
    ways: list[tuple[dict[str, Any], timedelta, str]] = [
        ({"cohort": (alder, cedar)}, timedelta(), NO_RESERVATION),
        ({"cohort": (alder, replace(birch, clearance=named("x")))}, timedelta(), NO_CLEARANCE),
        ({"cohort": (alder, replace(birch, clearance=alder.clearance))}, timedelta(), NO_CLEARANCE),
        ({"cohort": (alder, replace(birch, reservation=alder.reservation))}, timedelta(), NO_RESERVATION),
        ({"cohort": (alder, replace(birch, site="elsewhere"))}, timedelta(), MALFORMED),
        ({"cohort": (alder, alder)}, timedelta(), MALFORMED),
        ({"cohort": (alder,)}, timedelta(), QUORUM),
        ({"parent": named("x")}, timedelta(), MALFORMED),
        ({"arrays": named("x")}, timedelta(), MALFORMED),
        ({"number": 2}, timedelta(), STATE),
        ({}, timedelta(minutes=10), STATE),
        ({"deadline": AT + 3 * HOUR}, HOUR, STALE_CLEARANCE),
    ]
    for changes, later, code in ways:
        plan = replace(right, **changes)
        assert _refused(lambda: world.registry.open_round(plan, AT + later)) == code, changes  # noqa: B023
    assert world.registry.round_plan(campaign, 1) is None
    world.registry.open_round(right, AT)


def test_a_place_ends_with_refusal_revocation_or_withdrawal(world: World, campaign: Digest) -> None:
    world.registry.propose(campaign, AT)
    world.answer(campaign, 1, *SITES)
    plan = world.round_plan(campaign, 1, _places(world, campaign))
    world.registry.refuse("alder", world.refusal("alder", campaign, 1, BUDGET), AT)
    world.registry.revoke_site("birch", AT)
    world.registry.withdraw("cedar", world.notice("cedar", named("snapshot cedar")), AT)
    assert world.registry.answers(campaign, 1, AT).refusals == {
        "alder": BUDGET,
        "birch": UNKNOWN_SITE,
        "cedar": STALE_CLEARANCE,
    }
    for site, code in (("alder", BUDGET), ("birch", UNKNOWN_SITE), ("cedar", STALE_CLEARANCE)):
        one = [place for place in plan.cohort if place.site == site]
        others = [place for place in plan.cohort if place.site != site]
        assert _refused(lambda: world.registry.open_round(replace(plan, cohort=(*one, *others)), AT)) == code  # noqa: B023


def test_the_schema_itself_is_a_gate(world: World, campaign: Digest) -> None:
    """Nobody gets a place without a clearance and reservation of that site and round, not even past the registry."""
    world.open(campaign, "alder", "birch")
    world.registry.abort_round(campaign, 1, {}, AT)
    world.open(campaign, "alder", "birch")
    rows = [
        {"round_id": 2, "site": "cedar", "clearance_id": None, "reservation_id": None},
        {"round_id": 2, "site": "cedar", "clearance_id": 99, "reservation_id": 99},
        {"round_id": 2, "site": "cedar", "clearance_id": 3, "reservation_id": 3},
        {"round_id": 1, "site": "alder", "clearance_id": 3, "reservation_id": 3},
    ]
    for row in rows:
        with pytest.raises(DBAPIError), world.engine.begin() as connection:
            connection.execute(insert(ParticipantRow).values(**row))


def test_history_cannot_be_changed_through_the_database(world: World, campaign: Digest) -> None:
    world.registry.propose(campaign, AT)
    world.registry.refuse("cedar", world.refusal("cedar", campaign, 1, POLICY), AT)
    world.registry.abort_round(campaign, 1, {}, AT)
    world.whole_round(campaign, "alder", "birch")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    world.open(campaign, "cedar", "birch", snapshot=named("new"))
    world.registry.withdraw("birch", world.notice("birch", named("new")), AT)
    unused = next(p.reservation for p in world.registry.answers(campaign, 3, AT).places if p.site == "cedar")
    world.registry.relinquish("cedar", world.relinquishment("cedar", campaign, 3, unused), AT)
    tried = set()
    for name, table in Base.metadata.tables.items():
        with world.engine.connect() as connection:
            if connection.execute(table.select()).first() is None:
                continue
        tried.add(name)
        if name != "log_body":
            with pytest.raises(DBAPIError, match="keeps its rows"), world.engine.begin() as connection:
                connection.execute(delete(table))
        for column in table.columns:
            if column.name not in MUTABLE.get(name, ()):
                with pytest.raises(DBAPIError, match="keeps its rows"), world.engine.begin() as connection:
                    connection.execute(update(table).values({column: column}))
    assert tried >= {"site", "round", "contribution", "withdrawal_impact", "relinquishment", "log_entry"}


def test_every_table_has_the_triggers_that_keep_its_rows(world: World) -> None:
    """Also those that no row of this file's story is in."""
    asked = {
        "sqlite": "SELECT tbl_name, sql FROM sqlite_master WHERE type = 'trigger'",
        "postgresql": "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    }
    with world.engine.connect() as connection:
        triggers = [tuple(row) for row in connection.execute(text(asked[world.engine.dialect.name]))]
    for table, verb in itertools.product(Base.metadata.tables, ("UPDATE", "DELETE")):
        found = [sql for on, sql in triggers if on == table and f"BEFORE {verb}" in sql]
        assert found or (table, verb) == ("log_body", "DELETE"), (table, verb)


def test_a_contribution_is_accepted_once(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    envelope = world.contribution("alder", campaign, number, plan.name)
    assert world.registry.contributions(campaign, number) == ()
    world.registry.accept(envelope, "alder", AT)
    assert _refused(lambda: world.registry.accept(envelope, "alder", AT)) == REPLAY
    (one,) = world.registry.contributions(campaign, number)
    assert (one.site, one.digest, one.update) == ("alder", envelope.name, named("update alder 1"))
    assert one.update_bytes == ARRAYS_BYTES


def test_a_contribution_must_be_the_sites_under_this_plan(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"plan": named("x")}, UNTRUSTED),
        ({"site": "birch"}, UNTRUSTED),
        ({"clearance": named("x")}, UNTRUSTED),
        ({"reservation": named("x")}, UNTRUSTED),
        ({"spent": replace(MECHANISM, steps=21)}, OVERSPEND),
        ({"spent": replace(MECHANISM, noise_multiplier=1.19)}, OVERSPEND),
    ]
    good = decode(Contribution, world.contribution("alder", campaign, number, plan.name).payload)
    for changes, code in wrong:
        envelope = sign(replace(good, **changes), world.keys["alder"])
        assert _refused(lambda: world.registry.accept(envelope, "alder", AT)) == code, changes  # noqa: B023
    forged = sign(good, world.keys["birch"])
    assert _refused(lambda: world.registry.accept(forged, "alder", AT)) == UNTRUSTED
    assert world.registry.contributions(campaign, number) == ()


def test_who_reserved_less_may_not_spend_the_plan(world: World, campaign: Digest) -> None:
    world.registry.propose(campaign, AT)
    world.answer(campaign, 1, "birch")
    world.registry.clear("alder", world.clearance("alder", campaign, 1), AT)
    less = world.reservation("alder", campaign, 1, mechanism=replace(MECHANISM, steps=10))
    world.registry.reserve("alder", less, AT)
    plan = world.registry.open_round(world.round_plan(campaign, 1, _places(world, campaign)), AT)
    envelope = world.contribution("alder", campaign, 1, plan.name)
    assert _refused(lambda: world.registry.accept(envelope, "alder", AT)) == OVERSPEND


def test_a_rejection_is_kept_and_leaves_the_place_free(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    envelope = world.contribution("alder", campaign, number, plan.name)
    world.registry.reject("alder", campaign, number, BAD_ARRAYS, envelope.name, AT)
    world.registry.reject("alder", campaign, number, BAD_ARRAYS, None, AT)
    assert world.registry.contributions(campaign, number) == ()
    assert _refused(lambda: world.registry.reject("cedar", campaign, number, BAD_ARRAYS, None, AT)) == STATE
    world.registry.accept(envelope, "alder", AT)


def test_contributions_at_once_count_once(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, *SITES)
    envelopes = {site: world.contribution(site, campaign, number, plan.name) for site in SITES}
    barrier, codes = threading.Barrier(12), list[str]()

    def deliver(site: str) -> None:
        barrier.wait()
        try:
            world.registry.accept(envelopes[site], site, AT)
        except BractError as error:
            codes.append(error.code)

    workers = [threading.Thread(target=deliver, args=(site,)) for site in SITES for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert codes == [REPLAY] * 9
    assert [one.site for one in world.registry.contributions(campaign, number)] == list(SITES)


def test_arrays_move_only_for_a_place_in_a_running_round(world: World, campaign: Digest) -> None:
    arrays, update_ = named("arrays 0 heart"), named("u")
    put = world.registry.may_put
    assert _refused(lambda: world.registry.may_get("alder", arrays, AT)) == NO_CLEARANCE
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.may_get("alder", arrays, AT)
    put("alder", update_, ARRAYS_BYTES + (64 << 10), AT)
    assert _refused(lambda: put("alder", update_, ARRAYS_BYTES + (64 << 10) + 1, AT)) == TOO_LARGE
    assert _refused(lambda: world.registry.may_get("alder", update_, AT)) == NO_CLEARANCE
    assert _refused(lambda: world.registry.may_get("cedar", arrays, AT)) == NO_CLEARANCE
    assert _refused(lambda: put("cedar", update_, 1, AT)) == NO_CLEARANCE
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    assert _refused(lambda: put("alder", update_, 1, AT)) == NO_CLEARANCE
    world.registry.abort_round(campaign, number, {}, AT)
    assert _refused(lambda: world.registry.may_get("alder", arrays, AT)) == NO_CLEARANCE
    assert _refused(lambda: put("birch", update_, 1, AT)) == NO_CLEARANCE


def test_two_campaigns_do_not_mix(world: World, campaign: Digest) -> None:
    other = world.start(campaign_plan("lung"))
    world.open(campaign, "alder", "birch")
    number, plan = world.open(other, "birch", "cedar")
    assert number == 1
    assert _refused(lambda: world.registry.may_get("alder", named("arrays 0 lung"), AT)) == NO_CLEARANCE
    envelope = world.contribution("birch", other, 1, plan.name)
    world.registry.accept(envelope, "birch", AT)
    assert world.registry.contributions(campaign, 1) == ()
    with world.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM participant")) == 4
