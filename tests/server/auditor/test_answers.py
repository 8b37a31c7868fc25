"""The fifteen questions at the hub, each with something to find and, where time matters, before it happened."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bract.digest import Digest
from bract.disposal.stock import Stocked
from bract.errors import BUDGET, LOG, UNTRUSTED, BractError
from bract.log.checkpoint import Checkpoint
from bract.migrations import migrate
from bract.model import NodeKind, Role
from bract.privacy.accounting import epsilon, rounded_up
from bract.question import Answer, SnapshotAnswer
from bract.release import Criterion, Remedy
from bract.retention import Action, LegalHold, ObjectKind, RetentionPolicy, Selector, Trigger, parse_period
from bract.signing import Envelope, sign
from bract.update import WithdrawalNotice
from bract.value import digest_value
from bract.vocabulary.purposes import Purpose
from bract_server.registry import MIGRATIONS
from tests.server.auditor.conftest import LATER, Hub
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, MECHANISM, campaign_plan, named

SOON = AT + timedelta(seconds=1)
EVALUATES = (Role.EVALUATED, Role.EVALUATED_ON)


def column(told: Answer, name: str) -> list[Any]:
    return [row[name] for row in told.rows]


def proved(hub: Hub, *answers: Answer) -> None:
    """Every cited entry is in the tree of the root that the answer names."""
    for told in answers:
        assert told.proof.entries and told.proof.root is not None
        for seq in told.proof.entries:
            point = hub.sight().proof(seq).verify(hub.key.public_key())
            assert point.size >= seq


def snapshots_said(hub: Hub, site: str, number: Any, *snapshots: Digest, signer: str = "") -> Envelope:
    value = SnapshotAnswer(site, number, snapshots, AT, AT, AT, 7, named("root"))
    return sign(value, hub.world.keys[signer or site])


def test_what_a_site_says_of_a_person_is_expanded_to_models_and_rounds(hub: Hub) -> None:
    world = hub.world
    campaign = world.start(campaign_plan())
    first = world.whole_round(campaign, "alder", "birch")
    second = world.whole_round(campaign, "birch", "cedar")
    snapshot = named("snapshot alder")
    told = hub.ask(1, answer=snapshots_said(hub, "alder", 1, snapshot, named("of no round")))
    assert column(told, "model") == [first, second]
    assert any("1 of the snapshots went into no round" in note for note in told.notes)
    assert column(hub.ask(1, answer=snapshots_said(hub, "cedar", 1, named("snapshot cedar"))), "model") == [second]
    assert column(hub.ask(1, of=f"alder/{snapshot}"), "model") == [first, second]
    assert {row["snapshot"]: row["models"] for row in hub.ask(1).rows}[f"cedar/{named('snapshot cedar')}"] == 1
    for forged in (
        snapshots_said(hub, "alder", 1, snapshot, signer="birch"),
        snapshots_said(hub, "alder", 7, snapshot),
    ):
        with pytest.raises(BractError) as refused:
            hub.ask(1, answer=forged)
        assert refused.value.code == UNTRUSTED
    # reading what a site said of one person is an entry of the log
    entry = world.registry.entry_about("access.read", "question 1")
    assert entry is not None and entry.actor == "ada"

    assert set(column(hub.ask(2, campaign="heart", number=1), "known_now")) == {"in force"}
    assert hub.ask(7).rows == ()
    said = hub.ask(7, answer=snapshots_said(hub, "alder", 7, snapshot))
    assert [(r["site"], r["round"], r["known_now"]) for r in said.rows] == [("alder", 1, "the site says it differs")]
    world.registry.withdraw("birch", world.notice("birch", named("snapshot birch")), SOON)
    ended = hub.ask(7)
    assert [(r["site"], r["round"], r["known_now"]) for r in ended.rows] == [
        ("birch", 1, "somebody withdrew since"),
        ("birch", 2, "somebody withdrew since"),
    ]
    assert hub.ask(7, known=AT).rows == ()
    proved(hub, told, said, ended)


def test_the_log_the_privacy_and_the_contributions(hub: Hub) -> None:
    world = hub.world
    campaign = world.start(campaign_plan())
    head = world.registry.head()
    assert head is not None
    kept = Checkpoint("hub", head.size, Digest(f"sha256:{head.root.hex()}"), AT)
    world.whole_round(campaign, "alder", "birch")
    assert column(hub.ask(3, checkpoint=kept), "holds") == [True, True]
    with pytest.raises(BractError) as refused:
        hub.ask(3, checkpoint=replace(kept, root=named("another history")))
    assert refused.value.code == LOG

    number, plan = world.open(campaign, "alder", "birch", "cedar")
    fewer = replace(MECHANISM, steps=3)
    for site, changes in (("alder", {}), ("birch", {"spent": fewer}), ("cedar", {"private": False})):
        world.registry.accept(world.contribution(site, campaign, number, plan.name, **changes), site, AT)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    world.commit(campaign, number)
    told = hub.ask(13)
    assert sorted((r["site"], r["finding"]) for r in told.rows) == [
        ("alder", "not in the aggregate"),
        ("birch", "steps is not the plan's"),
        ("cedar", "made by a seeded test sampler: no guarantee"),
    ]
    (steps,) = (row for row in told.rows if row["site"] == "birch")
    assert (steps["plan"], steps["reported"]) == (MECHANISM.steps, 3)

    spent = hub.ask(5, valid=AT)
    by_site = {row["site"]: row for row in spent.rows}
    both = rounded_up(epsilon([MECHANISM, MECHANISM], 1e-5))
    assert (by_site["alder"]["rounds"], by_site["alder"]["epsilon_alone"]) == (2, both)
    (alder,) = (one for one in world.registry.accounts() if one.site == "alder")
    assert by_site["alder"]["remaining"] == pytest.approx(alder.remaining(), abs=2e-4)
    assert by_site["alder"]["remaining"] < 8.0 - both, "what the ledger would still grant, not what reports carry"
    assert by_site["cedar"]["rounds"] == 1
    assert column(hub.ask(5, known=AT - timedelta(seconds=1)), "site") == []
    proved(hub, told, spent)


def test_refusals_withdrawals_and_records_of_processing(hub: Hub) -> None:
    world, studio = hub.world, Studio(hub.world)
    campaign = world.start(campaign_plan())
    version = world.whole_round(campaign, "alder", "birch")
    for _ in range(2):
        number = world.registry.propose(campaign, AT).number
        world.registry.refuse("cedar", world.refusal("cedar", campaign, number, BUDGET), AT)
        world.registry.abort_round(campaign, number, {}, AT)
    world.open(campaign, "alder", "birch")
    late = sign_notice(hub, "alder", noticed_days_ago=4)
    world.registry.withdraw("alder", late, SOON)

    told = hub.ask(8)
    assert [(r["site"], r["what"], r["reason"], r["times"]) for r in told.rows] == [
        ("alder", "revoked", "withdrawal", 1),
        ("cedar", "refused", BUDGET, 2),
    ]
    assert told.rows[1]["purpose"] == "ssl-pretraining" and told.rows[1]["rounds"] == ["heart/2", "heart/3"]
    assert [row["what"] for row in hub.ask(8, known=AT).rows] == ["refused"]

    (open_one,) = hub.ask(9).rows
    assert (open_one["breach"], open_one["undecided"], open_one["overdue"]) == (True, [version], 0)
    assert hub.ask(9, valid=AT + timedelta(days=40)).rows[0]["overdue"] == 1
    world.registry.decide(studio.decide("dora", "n-1", Remedy.FLAG, version), LATER)
    (late_one,) = hub.ask(9, at=LATER).rows  # decided on, and it came too late all the same
    assert (late_one["breach"], late_one["undecided"]) == (True, [])
    assert hub.ask(9, at=LATER, known=SOON).rows[0]["undecided"] == [version]

    matrix = {(r["site"], r["dataset"], r["purpose"]): r for r in hub.ask(11).rows}
    assert matrix["alder", "adult", "ssl-pretraining"]["rounds"] == 2
    assert "DUO:0000042" in matrix["alder", "adult", "ssl-pretraining"]["duo"]
    proved(hub, told, hub.ask(9), hub.ask(11))
    assert [row["asked"] for row in hub.ask(14).rows][:2] == ["question 8", "question 8"]


def sign_notice(hub: Hub, site: str, noticed_days_ago: int) -> Envelope:
    noticed = AT - timedelta(days=noticed_days_ago)
    return sign(WithdrawalNotice(site, "n-1", (named(f"snapshot {site}"),), noticed), hub.world.keys[site])


def test_where_a_model_comes_from_and_what_it_lacks(hub: Hub) -> None:
    world, studio = hub.world, Studio(hub.world)
    campaign = world.start(campaign_plan())
    version = world.whole_round(campaign, "alder", "birch")
    studio.declare(Purpose.FINETUNING, Purpose.RELEASE_INTERNAL)
    assert hub.ask(12).rows == () and "No evaluation is registered" in hub.ask(12).notes[0]
    assert hub.ask(10).rows == () and "no gate was overridden" in hub.ask(10).notes[-1]
    tuned = world.registry.derive(studio.fine_tune(version, studio.source(), code="commit 4f2a"), AT)

    told = hub.ask(6, of=tuned)
    kinds = column(told, "kind")
    assert kinds[0] == "fine-tune" and kinds.count("snapshot") == 2 and {"round", "version"} <= set(kinds)
    assert told.rows[0]["code"] == "commit 4f2a"
    depths = {row["ref"]: row["depth"] for row in told.rows}
    assert depths[tuned] == 0 and depths[version] == 1
    assert hub.ask(6).rows[0]["ref"] == tuned  # the newest without being named
    proved(hub, told)

    missing = {(r["document"], r["field"]) for r in hub.ask(15, of=version).rows if not r["present"]}
    assert ("model card", "text: intended use, limits, risks") in missing
    studio.card(version)
    now = {(r["document"], r["field"]) for r in hub.ask(15, of=version).rows if not r["present"]}
    assert ("model card", "text: intended use, limits, risks") not in now and now < missing
    assert (
        hub.ask(15, of=version).rows[3]["field"] == "privacy guarantee" and hub.ask(15, of=version).rows[3]["present"]
    )
    assert {row["model"] for row in hub.ask(15).rows} == {version, tuned}

    _what_it_was_tried_on_and_what_was_overridden(hub, studio, version)


def _what_it_was_tried_on_and_what_was_overridden(hub: Hub, studio: Studio, version: Digest) -> None:
    registry = hub.world.registry
    outside = studio.evaluation(version, studio.source("held-out"), name="fair")
    inside = hub.ask(12)
    assert [(r["evaluation"], r["overlap"]) for r in inside.rows] == [("fair", "none found")]
    on_training = f"alder/{named('snapshot alder')}"
    leaky = studio.fine_tune(version, on_training)  # only its inputs are of interest
    value = replace(
        leaky,
        kind=NodeKind.EVALUATION,
        name="leaky",
        purpose=Purpose.EVALUATION,
        inputs=tuple(replace(one, role=role) for one, role in zip(leaky.inputs, EVALUATES, strict=True)),
    )
    override = studio.override("dora", digest_value(value), Criterion.PURPOSE)
    registry.derive(value, AT, override)
    assert {r["evaluation"]: r["overlap"] for r in hub.ask(12).rows} == {"fair": "none found", "leaky": "yes"}
    (overridden,) = hub.ask(10).rows
    assert (overridden["by"], overridden["criterion"], overridden["roles"]) == ("dora", "purpose", ["dpo"])
    assert hub.ask(10, known=AT - timedelta(seconds=1)).rows == ()

    sealed = studio.proposal(version, outside)
    registry.override(studio.override("ada", sealed.name, Criterion.CARD), AT)
    registry.propose_release(sealed, AT)
    release = hub.ask(6)
    assert release.rows[0]["kind"] == "release" and any("No approval" in note for note in release.notes)
    assert sorted(column(hub.ask(10), "what")) == ["overridden", "overridden by the author"]


def test_what_was_learnt_late_is_not_known_before(hub: Hub) -> None:
    """A fine-tune turns out, a day later, to hold alder's data: question by question, then and now."""
    world, studio, day = hub.world, Studio(hub.world), timedelta(days=1)
    campaign = world.start(campaign_plan())
    world.whole_round(campaign, "alder", "birch")
    studio.declare(Purpose.FINETUNING)
    clean = world.registry.latest_version(campaign).value.parent
    assert clean is not None
    alder = f"alder/{named('snapshot alder')}"
    tuned = world.registry.derive(studio.fine_tune(clean, studio.source()), AT)
    studio.evaluation(tuned, alder)
    early = [hub.ask(1, of=alder), hub.ask(6, of=tuned), hub.ask(12)]
    for _ in range(2):  # the second time nothing is learnt
        world.registry.relate(tuned, alder, Role.TRAINED, AT + day)
    then = [hub.ask(n, known=AT + day / 2, **of) for n, of in ((1, {"of": alder}), (6, {"of": tuned}), (12, {}))]
    now = [hub.ask(n, known=AT + day, **of) for n, of in ((1, {"of": alder}), (6, {"of": tuned}), (12, {}))]
    assert [told.rows for told in then] == [told.rows for told in early]
    assert tuned not in column(then[0], "model") and tuned in column(now[0], "model")
    assert alder not in column(then[1], "ref") and alder in column(now[1], "ref")
    assert [column(told, "overlap") for told in (then[2], now[2])] == [["none found"], ["yes"]]
    # a registry whose schema did not keep when is dated by its log
    migrate(world.engine, MIGRATIONS, "0008")
    migrate(world.engine, MIGRATIONS)
    assert [hub.ask(6, known=AT + at, of=tuned).rows for at in (day / 2, day)] == [then[1].rows, now[1].rows]


def test_what_is_due_and_what_blocks_it(hub: Hub) -> None:
    registry = hub.world.registry
    assert "No retention policy" in hub.ask(4).notes[-1]
    kind = ObjectKind.CHECKPOINT
    ten = RetentionPolicy(
        "ten-days", 1, kind, "notice 3", Trigger.COLLECTION, None, parse_period("P10D"), Action.DELETE, "Ana"
    )
    registry.add_policy(ten, AT)
    registry.bind_policy("ten-days", "", "Ana", AT)
    registry.take_stock([kind], [Stocked(kind, "state.bin", AT - timedelta(days=11), AT)], AT)
    hold = LegalHold("suit-7", Selector((kind,)), "case 7", "Ana", "Bo", AT, None)
    (free,) = hub.ask(4).rows
    assert (free["object"], free["state"], free["blocked_by"]) == ("state.bin", "due", [])
    registry.place_hold(hold, lambda: AT)
    (held,) = hub.ask(4).rows
    assert held["state"] == "blocked" and "suit-7" in held["blocked_by"][0]
    assert hub.ask(4, valid=AT - timedelta(days=5)).rows == ()
