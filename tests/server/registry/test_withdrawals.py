"""A withdrawal ends clearances at once and names every version, made or to be made, that it touches."""

from dataclasses import replace
from datetime import timedelta

import pytest

from bract.database import allow_changes
from bract.digest import Digest
from bract.errors import LOG, MALFORMED, QUORUM, STALE_CLEARANCE, STATE, UNTRUSTED, BractError
from bract.release import Remedy
from bract.signing import sign
from bract.update import Contribution
from bract.value import decode
from bract_server.withdrawal import Effect
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, MECHANISM, SITES, World, campaign_plan, named


def test_every_descendant_is_listed_and_no_other(world: World, campaign: Digest) -> None:
    without = world.whole_round(campaign, "birch", "cedar")
    with_alder = world.whole_round(campaign, "alder", "birch")
    after = world.whole_round(campaign, "birch", "cedar")
    other = world.start(campaign_plan("lung"))
    world.whole_round(other, "birch", "cedar")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder"), named("never seen")), AT)
    impacts = world.registry.impacts("n-1")
    assert [i.version for i in impacts] == [with_alder, after]
    assert without not in {i.version for i in impacts}
    assert {i.effect for i in impacts} == {"bounded-by-dp"}
    assert [i.mechanisms for i in impacts] == [(MECHANISM,), (MECHANISM,)]
    (notice,) = world.registry.withdrawals()
    assert (notice.site, notice.notice, notice.noticed_at, notice.received_at) == ("alder", "n-1", AT, AT)
    assert notice.snapshots == (named("snapshot alder"), named("never seen"))


def test_the_bound_is_of_everything_that_the_site_has_in_a_version(world: World, campaign: Digest) -> None:
    """The subject may be in snapshots that the notice need not name: the bound composes all of the site's parts."""
    world.whole_round(campaign, "alder", "birch")
    world.whole_round(campaign, "alder", "birch", snapshot=named("later"))
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    assert [i.mechanisms for i in world.registry.impacts("n-1")] == [
        (MECHANISM,),
        (replace(MECHANISM, steps=2 * MECHANISM.steps),),
    ]


def test_versions_made_later_are_listed_too(world: World, campaign: Digest) -> None:
    first = world.whole_round(campaign, "alder", "birch")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    second = world.whole_round(campaign, "birch", "cedar")
    assert [i.version for i in world.registry.impacts("n-1")] == [first, second]


def test_an_update_without_real_noise_has_no_bound(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    seeded = decode(Contribution, world.contribution("alder", campaign, number, plan.name).payload)
    world.registry.accept(sign(replace(seeded, private=False), world.keys["alder"]), "alder", AT)
    world.registry.accept(world.contribution("birch", campaign, number, plan.name), "birch", AT)
    world.commit(campaign, number)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    world.registry.withdraw("birch", world.notice("birch", named("snapshot birch"), notice="n-2"), AT)
    assert [(i.effect, i.mechanisms) for i in world.registry.impacts("n-1")] == [("without-dp", ())]
    assert [i.effect for i in world.registry.impacts("n-2")] == ["bounded-by-dp"]


def test_a_site_withdraws_only_from_its_own_snapshots(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.withdraw("cedar", world.notice("cedar", named("snapshot alder")), AT)
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    assert world.registry.impacts("n-1") == ()
    forged = world.notice("cedar", named("snapshot alder"))
    with pytest.raises(BractError) as refusal:
        world.registry.withdraw("alder", forged, AT)
    assert refusal.value.code == UNTRUSTED


def test_the_same_notice_again_changes_nothing_and_another_is_refused(world: World, campaign: Digest) -> None:
    world.whole_round(campaign, "alder", "birch")
    notice = world.notice("alder", named("snapshot alder"))
    world.registry.withdraw("alder", notice, AT)
    entries = world.registry.verify_log().entries
    world.registry.withdraw("alder", notice, AT)
    assert world.registry.verify_log().entries == entries
    with pytest.raises(BractError) as refusal:
        world.registry.withdraw("alder", world.notice("alder", named("other")), AT)
    assert refusal.value.code == STATE
    with pytest.raises(BractError) as refusal:
        world.registry.impacts("n-9")
    assert refusal.value.code == MALFORMED


def test_a_contribution_after_the_notice_is_refused(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, *SITES)
    envelope = world.contribution("alder", campaign, number, plan.name)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    with pytest.raises(BractError) as refusal:
        world.registry.accept(envelope, "alder", AT)
    assert refusal.value.code == STALE_CLEARANCE


def test_a_contribution_before_the_notice_is_left_out_of_the_version(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, *SITES)
    for site in SITES:
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    before = world.version(campaign, number)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    with pytest.raises(BractError) as refusal:
        world.registry.commit_round(campaign, number, before, None, dict.fromkeys(SITES, 1 / 3), {}, 0, AT)
    assert refusal.value.code == STALE_CLEARANCE
    assert [c.site for c in world.registry.contributions(campaign, number)] == ["birch", "cedar"]
    world.commit(campaign, number)
    (report,) = world.registry.rounds(campaign)
    assert (report.participants, report.missing) == (("birch", "cedar"), {"alder": STALE_CLEARANCE})
    assert world.registry.impacts("n-1") == ()


def test_a_round_that_loses_its_quorum_to_a_withdrawal_makes_nothing(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    for site in ("alder", "birch"):
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    with pytest.raises(BractError) as refusal:
        world.commit(campaign, number)
    assert refusal.value.code == QUORUM


def test_all_kinds_are_touched_each_with_its_way_back(world: World, campaign: Digest) -> None:
    clean = world.whole_round(campaign, "birch", "cedar")
    touched = world.whole_round(campaign, "alder", "birch")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    impacts = world.registry.impacts("n-1", None)
    assert [(i.kind, i.path_length, bool(i.options)) for i in impacts] == [
        ("contribution", 1, False),
        ("round", 2, False),
        ("version", 3, True),
    ]
    version = impacts[-1]
    assert (version.ref, version.clean, version.campaign, version.number) == (touched, clean, campaign, 2)
    assert (version.due_at, version.decision) == (AT + timedelta(days=30), None)
    assert version.delta == 1e-5 and version.epsilon is not None and 0 < version.epsilon < 8
    assert world.registry.impacts_all() == impacts
    assert world.registry.effect_on("n-1", touched) is Effect.BOUNDED
    assert world.registry.effect_on("n-1", clean) is Effect.UNAFFECTED
    for notice, ref in (("n-1", "nothing"), ("n-2", touched)):
        with pytest.raises(BractError) as refusal:
            world.registry.effect_on(notice, ref)
        assert refusal.value.code == MALFORMED


def test_decisions_are_signed_by_an_office_and_keep_their_history(world: World, campaign: Digest) -> None:
    studio, registry = Studio(world), world.registry
    version = world.whole_round(campaign, "alder", "birch")
    registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    plan = next(i.ref for i in registry.impacts("n-1", None) if i.kind == "round")
    for envelope, code in (
        (studio.decide("otto", "n-1", Remedy.FLAG, version), UNTRUSTED),
        (studio.decide("dora", "n-2", Remedy.FLAG, version), MALFORMED),
        (studio.decide("dora", "n-1", Remedy.FLAG, version, site="birch"), MALFORMED),
        (studio.decide("dora", "n-1", Remedy.FLAG, named("untouched")), MALFORMED),
        (studio.decide("dora", "n-1", Remedy.FLAG, plan), MALFORMED),
    ):
        with pytest.raises(BractError) as refusal:
            registry.decide(envelope, AT)
        assert refusal.value.code == code
    assert registry.impacts("n-1")[0].decisions == ()
    first = studio.decide("dora", "n-1", Remedy.FLAG, version)
    registry.decide(first, AT)
    registry.decide(first, AT)
    registry.decide(studio.decide("ada", "n-1", Remedy.RETRAIN, version), AT)
    (impact,) = registry.impacts("n-1")
    assert [(d.by, d.remedy, d.rationale) for d in impact.decisions] == [
        ("dora", "flag", "as the plan says"),
        ("ada", "retrain", "as the plan says"),
    ]
    assert impact.decision == impact.decisions[-1]


def test_doing_nothing_is_no_choice_without_a_bound(world: World, campaign: Digest) -> None:
    studio = Studio(world)
    number, plan = world.open(campaign, "alder", "birch")
    seeded = decode(Contribution, world.contribution("alder", campaign, number, plan.name).payload)
    world.registry.accept(sign(replace(seeded, private=False), world.keys["alder"]), "alder", AT)
    world.registry.accept(world.contribution("birch", campaign, number, plan.name), "birch", AT)
    version = world.commit(campaign, number)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    with pytest.raises(BractError) as refusal:
        world.registry.decide(studio.decide("dora", "n-1", Remedy.NONE, version), AT)
    assert refusal.value.code == MALFORMED
    world.registry.decide(studio.decide("dora", "n-1", Remedy.RETRAIN, version), AT)


def test_a_row_that_was_changed_or_taken_out_is_found(world: World, campaign: Digest) -> None:
    """One log entry stands for all rows; it is no weaker for that."""
    world.whole_round(campaign, "alder", "birch")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    dialect = world.engine.dialect.name
    with world.engine.begin() as connection:
        for statement in allow_changes(dialect, "withdrawal_impact"):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql("CREATE TABLE saved AS SELECT * FROM withdrawal_impact")
    for damage in (
        "UPDATE withdrawal_impact SET effect = 'without-dp' WHERE path_length = 3",
        "UPDATE withdrawal_impact SET clean = NULL",
        "UPDATE withdrawal_impact SET path_length = 1 WHERE path_length = 2",
        "DELETE FROM withdrawal_impact WHERE path_length = 3",
        "DELETE FROM withdrawal_impact",
    ):
        with world.engine.begin() as connection:
            connection.exec_driver_sql(damage)
        with pytest.raises(BractError) as refusal:
            world.registry.verify_log()
        assert (refusal.value.code, refusal.value.detail.split(":")[0]) == (LOG, "withdrawal.spread")
        with world.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM withdrawal_impact")
            connection.exec_driver_sql("INSERT INTO withdrawal_impact SELECT * FROM saved")
        world.registry.verify_log()
