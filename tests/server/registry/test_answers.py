"""What a site answers is checked before it is kept, and counts once."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from bract.consent import Purpose
from bract.digest import Digest
from bract.errors import (
    BUDGET,
    DISK,
    LATE,
    MALFORMED,
    NO_CLEARANCE,
    NO_RESERVATION,
    OVERSPEND,
    POLICY,
    STALE_CLEARANCE,
    STATE,
    UNKNOWN_CAMPAIGN,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import CampaignPlan, Place, Proposal, SitePlan
from bract.privacy.spec import Mechanism
from bract.signing import parse_envelope, sign, unseal
from bract.update import Clearance
from bract.value import decode
from bract_server.registry.models import ClearanceRow, ReservationRow
from tests.server.registry.world import AT, MECHANISM, World, campaign_plan, named

HOUR = timedelta(hours=1)

CLEARANCES: list[tuple[dict[str, Any], str]] = [
    ({"site": "birch"}, UNTRUSTED),
    ({"campaign": named("none")}, UNKNOWN_CAMPAIGN),
    ({"number": 2}, STATE),
    ({"dataset": "other"}, NO_CLEARANCE),
    ({"purpose": Purpose.EVALUATION}, NO_CLEARANCE),
    ({"rule": named("another rule")}, NO_CLEARANCE),
    ({"expires_at": AT}, STALE_CLEARANCE),
    ({"expires_at": AT + timedelta(hours=24, microseconds=1)}, NO_CLEARANCE),
]
RESERVATIONS: list[tuple[dict[str, Any], str]] = [
    ({"site": "birch"}, UNTRUSTED),
    ({"campaign": named("none")}, UNKNOWN_CAMPAIGN),
    ({"number": 2}, STATE),
    ({"dataset": "other"}, NO_RESERVATION),
    ({"expires_at": AT}, NO_RESERVATION),
    ({"mechanism": replace(MECHANISM, noise_multiplier=1.1)}, OVERSPEND),
    ({"mechanism": replace(MECHANISM, sampling_rate=0.06)}, OVERSPEND),
    ({"mechanism": replace(MECHANISM, steps=21)}, OVERSPEND),
    ({"epsilon": 8.01}, BUDGET),
    ({"epsilon": -1.0}, BUDGET),
]


@pytest.fixture
def proposed(world: World, campaign: Digest) -> Digest:
    world.registry.propose(campaign, AT)
    return campaign


def test_a_wrong_clearance_is_refused(world: World, proposed: Digest) -> None:
    for changes, code in CLEARANCES:
        envelope = world.clearance("alder", **{"campaign": proposed, "number": 1, **changes})
        with pytest.raises(BractError) as refusal:
            world.registry.clear("alder", envelope, AT)
        assert refusal.value.code == code, changes
    assert world.registry.answers(proposed, 1, AT).waiting == ("alder", "birch", "cedar")


def test_a_wrong_reservation_is_refused(world: World, proposed: Digest) -> None:
    for changes, code in RESERVATIONS:
        envelope = world.reservation("alder", **{"campaign": proposed, "number": 1, **changes})
        with pytest.raises(BractError) as refusal:
            world.registry.reserve("alder", envelope, AT)
        assert refusal.value.code == code, changes
    assert world.registry.spent("alder", "adult") == ()


def test_a_tighter_reservation_and_the_longest_clearance_are_taken(world: World, proposed: Digest) -> None:
    tighter = Mechanism(2.0, 0.01, 5)
    world.registry.clear("alder", world.clearance("alder", proposed, 1, expires_at=AT + 24 * HOUR), AT)
    world.registry.reserve("alder", world.reservation("alder", proposed, 1, mechanism=tighter, epsilon=8.0), AT)
    assert world.registry.spent("alder", "adult") == (tighter,)
    assert [p.site for p in world.registry.answers(proposed, 1, AT).places] == ["alder"]


def test_another_key_or_type_does_not_speak_for_a_site(world: World, proposed: Digest) -> None:
    good = world.clearance("alder", proposed, 1)
    for envelope in (
        sign(decode(Clearance, good.payload), world.keys["birch"]),
        world.reservation("alder", proposed, 1),
        replace(good, signature=bytes(64)),
    ):
        with pytest.raises(BractError) as refusal:
            world.registry.clear("alder", envelope, AT)
        assert refusal.value.code == UNTRUSTED


def test_a_site_that_the_plan_does_not_name_has_no_say(world: World) -> None:
    campaign = world.start(campaign_plan(sites=(SitePlan("alder"), SitePlan("birch"))))
    world.registry.propose(campaign, AT)
    assert world.registry.proposals("cedar", AT) == []
    attempts: tuple[Callable[[], None], ...] = (
        lambda: world.registry.clear("cedar", world.clearance("cedar", campaign, 1), AT),
        lambda: world.registry.reserve("cedar", world.reservation("cedar", campaign, 1), AT),
        lambda: world.registry.refuse("cedar", world.refusal("cedar", campaign, 1, POLICY), AT),
    )
    for attempt in attempts:
        with pytest.raises(BractError) as refusal:
            attempt()
        assert refusal.value.code == STATE


def test_a_revoked_site_has_no_say_and_no_place(world: World, proposed: Digest) -> None:
    world.answer(proposed, 1, "alder", "birch")
    world.registry.revoke_site("alder", AT)
    with pytest.raises(BractError) as refusal:
        world.registry.clear("alder", world.clearance("alder", proposed, 1), AT)
    assert refusal.value.code == UNKNOWN_SITE
    answers = world.registry.answers(proposed, 1, AT)
    assert answers.refusals == {"alder": UNKNOWN_SITE}


def test_proposals_are_signed_and_end_with_a_full_answer(world: World, proposed: Digest) -> None:
    ((proposal, plan),) = world.registry.proposals("alder", AT)
    key = world.registry.verify_key
    assert unseal(Proposal, parse_envelope(proposal), key) == Proposal(proposed, 1, AT)
    assert unseal(CampaignPlan, parse_envelope(plan), key) == campaign_plan()
    world.registry.clear("alder", world.clearance("alder", proposed, 1), AT)
    assert len(world.registry.proposals("alder", AT)) == 1
    world.registry.reserve("alder", world.reservation("alder", proposed, 1), AT)
    assert world.registry.proposals("alder", AT) == []
    world.registry.refuse("birch", world.refusal("birch", proposed, 1, DISK), AT)
    assert world.registry.proposals("birch", AT) == []
    assert len(world.registry.proposals("cedar", AT)) == 1
    world.registry.set_state("heart", "stopped", "", AT)
    assert world.registry.proposals("cedar", AT) == []


def test_answers_tell_places_refusals_and_silence(world: World, proposed: Digest) -> None:
    clearance, reservation = world.clearance("alder", proposed, 1), world.reservation("alder", proposed, 1)
    world.registry.clear("alder", clearance, AT)
    world.registry.reserve("alder", reservation, AT)
    world.registry.refuse("birch", world.refusal("birch", proposed, 1, BUDGET), AT)
    answers = world.registry.answers(proposed, 1, AT)
    assert answers.places == (Place("alder", clearance.name, reservation.name),)
    assert (answers.refusals, answers.waiting) == ({"birch": BUDGET}, ("cedar",))
    later = world.registry.answers(proposed, 1, AT + HOUR)
    assert (later.places, later.refusals) == ((), {"alder": STALE_CLEARANCE, "birch": BUDGET})


def test_an_expired_reservation_is_no_reservation_but_stays_spent(world: World, proposed: Digest) -> None:
    world.registry.clear("alder", world.clearance("alder", proposed, 1, expires_at=AT + 2 * HOUR), AT)
    world.registry.reserve("alder", world.reservation("alder", proposed, 1), AT)
    assert world.registry.answers(proposed, 1, AT + HOUR).refusals == {"alder": NO_RESERVATION}
    assert world.registry.spent("alder", "adult") == (MECHANISM,)


def test_a_clearance_from_before_a_withdrawal_that_its_snapshot_is_named_in_is_refused(
    world: World, proposed: Digest
) -> None:
    """A site that heard no answer says the same again, and somebody may have withdrawn in between."""
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    early, late = (world.clearance("alder", proposed, 1, issued_at=AT + timedelta(minutes=after)) for after in (-1, 1))
    with pytest.raises(BractError) as refusal:
        world.registry.clear("alder", early, AT)
    assert refusal.value.code == STALE_CLEARANCE
    world.registry.clear("birch", world.clearance("birch", proposed, 1, issued_at=AT - timedelta(minutes=1)), AT)
    world.registry.clear("alder", late, AT + timedelta(minutes=1))


def test_a_refusal_needs_a_known_code(world: World, proposed: Digest) -> None:
    with pytest.raises(BractError) as refusal:
        world.registry.refuse("alder", world.refusal("alder", proposed, 1, "because of Jane"), AT)
    assert refusal.value.code == MALFORMED
    world.registry.refuse("alder", world.refusal("alder", proposed, 1, LATE), AT)


def test_the_same_answer_again_changes_nothing_and_another_is_refused(world: World, proposed: Digest) -> None:
    clearance, reservation = world.clearance("alder", proposed, 1), world.reservation("alder", proposed, 1)
    refusal_ = world.refusal("birch", proposed, 1, POLICY)
    for _ in range(2):
        world.registry.clear("alder", clearance, AT)
        world.registry.reserve("alder", reservation, AT)
        world.registry.refuse("birch", refusal_, AT)
    entries = world.registry.verify_log().entries
    world.registry.abort_round(proposed, 1, {}, AT)
    world.registry.clear("alder", clearance, AT)
    attempts: tuple[Callable[[], None], ...] = (
        lambda: world.registry.clear("alder", world.clearance("alder", proposed, 1, snapshot=named("x")), AT),
        lambda: world.registry.reserve("alder", world.reservation("alder", proposed, 1, epsilon=2.0), AT),
        lambda: world.registry.refuse("birch", world.refusal("birch", proposed, 1, DISK), AT),
    )
    for attempt in attempts:
        with pytest.raises(BractError) as refusal:
            attempt()
        assert refusal.value.code == STATE
    assert world.registry.verify_log().entries == entries + 1


def test_answers_come_before_the_round_opens_or_not_at_all(world: World, campaign: Digest) -> None:
    number, _ = world.open(campaign, "alder", "birch")
    attempts: tuple[Callable[[], None], ...] = (
        lambda: world.registry.clear("cedar", world.clearance("cedar", campaign, number), AT),
        lambda: world.registry.reserve("cedar", world.reservation("cedar", campaign, number), AT),
        lambda: world.registry.refuse("cedar", world.refusal("cedar", campaign, number, POLICY), AT),
    )
    for attempt in attempts:
        with pytest.raises(BractError) as refusal:
            attempt()
        assert refusal.value.code == STATE


def test_many_deliveries_at_once_count_once(world: World, proposed: Digest) -> None:
    """Every site sends two different reservations and the same clearance from several threads."""
    barrier, refused = threading.Barrier(12), list[str]()
    reservations = {
        (site, n): world.reservation(site, proposed, 1, epsilon=1.0 + n)
        for site in ("alder", "birch", "cedar")
        for n in range(2)
    }
    clearances = {site: world.clearance(site, proposed, 1) for site in ("alder", "birch", "cedar")}

    def deliver(site: str, n: int) -> None:
        barrier.wait()
        world.registry.clear(site, clearances[site], AT)
        try:
            world.registry.reserve(site, reservations[site, n], AT)
        except BractError as error:
            refused.append(error.code)

    jobs = [(site, n) for site, n in reservations for _ in range(2)]
    workers = [threading.Thread(target=deliver, args=job) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    with world.engine.connect() as connection:
        for table in (ClearanceRow, ReservationRow):
            assert connection.scalar(select(func.count()).select_from(table)) == 3
    assert refused == [STATE] * 6
    assert len(world.registry.answers(proposed, 1, AT).places) == 3
