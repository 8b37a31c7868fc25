"""Nothing is published past the gate; each criterion is seen to fail, and to name what is in its way."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, GATE, MALFORMED, SAME_PERSON, STATE, UNTRUSTED, BractError
from bract.log import exchange
from bract.log.note import cosign as note_line
from bract.model import ModelCard, Signal
from bract.release import Criterion, PersonRole, Policy, Release, Remedy
from bract.signing import unseal
from bract.value import digest_value
from bract.vocabulary.modifiers import Modifier
from bract.vocabulary.purposes import Purpose
from bract_server.registry.models import LOG, EdgeRow, NodeRow, QuarantineRow
from bract_server.registry.verdict import GateReport
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, SITES, World, named

LATER = AT + timedelta(hours=2)
"""When what was reserved has expired."""

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Of a rule that no database sees; what it reads and writes runs on both in the other tests."""


@pytest.fixture
def studio(world: World) -> Studio:
    return Studio(world)


@pytest.fixture
def version(world: World, campaign: Digest) -> Digest:
    return world.whole_round(campaign, "alder", "birch")


def ready(studio: Studio, version: Digest, **changes: Any) -> Digest:
    """A proposed release that lacks nothing but approvals."""
    wiki = studio.source("tests-of-wiki")
    judged = studio.evaluation(version, wiki)
    studio.card(version)
    return studio.propose(version, judged, **changes)


def failing(report: GateReport) -> dict[str, tuple[str, ...]]:
    return {str(one.criterion): one.offenders for one in report.criteria if not one.ok}


def test_a_release_goes_out_with_its_report(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    release = ready(studio, version)
    assert failing(registry.gate("spring", LATER)) == {"approvals": ("1 more",)}
    with pytest.raises(BractError) as refusal:
        registry.publish("spring", LATER)
    assert (refusal.value.code, refusal.value.detail) == (GATE, "approvals")
    studio.approve("otto", release)
    value = unseal(Release, registry.publish("spring", LATER), registry.verify_key)
    (view,) = registry.releases()
    assert (view.state, view.author, view.published_at) == ("published", "ada", LATER)
    assert view.report is not None and view.report["ok"] and len(view.report["criteria"]) == len(Criterion)
    assert (value.proposal, value.weights, value.overrides) == (release, registry.weights(version), ())
    assert value.approvals == (view.approvals[0].digest,)
    for verb in (lambda: registry.publish("spring", LATER), lambda: studio.approve("dora", release)):
        with pytest.raises(BractError) as refusal:
            verb()
        assert refusal.value.code == STATE


@one_database
def test_a_release_is_taken_back_and_stays_on_record(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    release = ready(studio, version)
    studio.approve("otto", release)
    registry.publish("spring", LATER)
    with pytest.raises(BractError) as refusal:
        registry.withdraw_release(studio.withdrawn("emil", release, "no"), LATER)
    assert refusal.value.code == UNTRUSTED
    registry.withdraw_release(studio.withdrawn("dora", release, "a site left"), LATER)
    (view,) = registry.releases()
    assert (view.state, view.withdrawn_reason, view.published_at) == ("withdrawn", "a site left", LATER)
    with pytest.raises(BractError) as refusal:
        registry.publish("spring", LATER)
    assert refusal.value.code == STATE


@one_database
def test_nobody_can_release_what_a_seeded_test_made(studio: Studio, campaign: Digest) -> None:
    world = studio.world
    number, plan = world.open(campaign, "alder", "birch")
    for site, private in (("alder", True), ("birch", False)):
        sealed = world.contribution(site, campaign, number, plan.name, private=private)
        world.registry.accept(sealed, site, AT)
    release = ready(studio, world.commit(campaign, number))
    studio.approve("otto", release)
    assert failing(world.registry.gate("spring", LATER)) == {"randomness": (sealed.name,)}
    with pytest.raises(BractError) as refused:
        world.registry.override(studio.override("ada", release, Criterion.RANDOMNESS), AT)
    assert refused.value.code == STATE


@one_database
def test_a_rejection_blocks(studio: Studio, version: Digest) -> None:
    release = ready(studio, version)
    studio.approve("otto", release)
    studio.approve("dora", release, "reject")
    assert failing(studio.world.registry.gate("spring", LATER)) == {"approvals": ("dora",)}
    assert studio.world.registry.releases()[0].state == "rejected"


@one_database
def test_the_policys_offices_and_numbers_count(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    release = ready(studio, version)
    registry.set_policy(Policy(Purpose.RELEASE_INTERNAL, 2, (PersonRole.DPO, PersonRole.ETHICS)), AT)
    studio.approve("otto", release)
    assert failing(registry.gate("spring", LATER)) == {"approvals": ("1 more", "dpo", "ethics-board")}
    studio.approve("dora", release)
    assert failing(registry.gate("spring", LATER)) == {"approvals": ("ethics-board",)}
    studio.approve("emil", release)
    assert registry.gate("spring", LATER).ok


@one_database
def test_going_public_asks_for_more(studio: Studio, version: Digest) -> None:
    """By default: a declared use, two persons, and a data protection officer among them."""
    registry = studio.world.registry
    ready(studio, version, channel=Purpose.RELEASE_PUBLIC)
    snapshots = tuple(sorted(f"{site}/{named(f'snapshot {site}')}" for site in ("alder", "birch")))
    assert failing(registry.gate("spring", LATER)) == {"approvals": ("2 more", "dpo"), "purpose": snapshots}
    studio.declare(Purpose.RELEASE_PUBLIC)
    assert failing(registry.gate("spring", LATER)) == {"approvals": ("2 more", "dpo")}


@one_database
def test_card_and_evaluation_are_of_this_very_model(studio: Studio, version: Digest, campaign: Digest) -> None:
    registry = studio.world.registry
    other = studio.world.whole_round(campaign, "alder", "birch")
    judged = studio.evaluation(other, studio.source())
    studio.card(other)
    release = studio.propose(version, judged)
    studio.approve("otto", release)
    assert failing(registry.gate("spring", LATER)) == {"card": (version,), "evaluation": (version,)}


def test_an_approval_is_of_the_card_that_was_there(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    release = ready(studio, version)
    studio.approve("otto", release)
    assert failing(registry.gate("spring", LATER)) == {}
    registry.add_card(ModelCard(version, "# Fit for everything"), AT)
    assert failing(registry.gate("spring", LATER)) == {"approvals": ("1 more",)}
    studio.approve("dora", release)
    value = unseal(Release, registry.publish("spring", LATER), registry.verify_key)
    (view,) = registry.releases()
    assert value.approvals == tuple(one.digest for one in view.approvals if one.by == "dora")


@one_database
def test_modifiers_are_honoured_or_overridden(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    region = Modifier("DUO:0000022", ("CH",))
    studio.declare(modifiers=(region,))
    release = ready(studio, version)
    studio.approve("otto", release)
    assert failing(registry.gate("spring", LATER)) == {"modifiers": ("DUO:0000022=CH",)}
    honest = ready_again(studio, version, honours=(region,))
    assert "modifiers" not in failing(registry.gate(honest, LATER))
    registry.override(studio.override("emil", release, Criterion.MODIFIERS), AT)
    report = registry.gate("spring", LATER)
    assert report.ok and [one.by for one in report.overrides] == ["emil"]
    assert not registry.gate(honest, LATER).overrides
    registry.publish("spring", LATER)
    assert registry.releases()[0].report["overrides"][0]["reason"] == "the board agreed on 3 May"  # type: ignore[index]


def ready_again(studio: Studio, version: Digest, **changes: Any) -> Digest:
    judged, _ = next((n.ref, n) for n in studio.world.registry.lineage().nodes if n.kind == "evaluation")
    return studio.propose(version, judged, name="summer", **changes)


@one_database
def test_an_override_above_is_shown_and_does_not_open_the_gate(studio: Studio, version: Digest) -> None:
    registry, wiki = studio.world.registry, studio.source()
    value = studio.fine_tune(version, wiki)
    tuned = registry.derive(value, AT, studio.override("dora", digest_value(value), Criterion.PURPOSE))
    studio.card(tuned)
    release = studio.propose(tuned, studio.evaluation(tuned, wiki), channel=Purpose.RELEASE_PUBLIC)
    report = registry.gate(release, LATER)
    assert [(one.about, one.criterion) for one in report.overrides] == [(tuned, "purpose")]
    assert "purpose" in failing(report) and not next(c for c in report.criteria if c.criterion == "purpose").passes
    assert [one.by for one in registry.releases()[0].overrides] == ["dora"]


@one_database
def test_a_source_that_reserved_its_rights_is_told(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    studio.declare(Purpose.FINETUNING)
    said = Signal("tdmrep", "tdm-reservation: 1", AT)
    news = studio.source("news", signal=said)
    free = studio.source("free", signal=replace(said, raw="tdm-reservation: 0"))
    tuned = registry.derive(studio.fine_tune(version, news), AT)
    studio.card(tuned)
    release = studio.propose(tuned, studio.evaluation(tuned, free))
    studio.approve("otto", release)
    assert failing(registry.gate(release, LATER)) == {"licences": (news,)}
    with pytest.raises(BractError) as refusal:
        registry.override(studio.override("dora", release, Criterion.LICENCES), AT)
    assert refusal.value.code == UNTRUSTED
    studio.person("olga", PersonRole.OWNER)
    registry.override(studio.override("olga", release, Criterion.LICENCES), AT)
    assert registry.gate(release, LATER).ok


def test_nobody_overrides_for_a_release_of_their_own(studio: Studio, version: Digest) -> None:
    """Neither after it was proposed nor, knowing what they will propose, before; what was taken is shown all the same."""
    registry = studio.world.registry
    sealed = studio.proposal(version, studio.evaluation(version, studio.source()))
    registry.override(studio.override("ada", sealed.name, Criterion.CARD), AT)
    release = registry.propose_release(sealed, AT)
    studio.approve("otto", release)
    for criterion in (Criterion.CARD, Criterion.EVALUATION):
        with pytest.raises(BractError) as refusal:
            registry.override(studio.override("ada", release, criterion), AT)
        assert refusal.value.code == SAME_PERSON
    report = registry.gate(release, LATER)
    assert not report.ok and failing(report) == {"card": (version,)} and [one.by for one in report.overrides] == ["ada"]
    with pytest.raises(BractError) as refusal:
        registry.publish(release, LATER)
    assert (refusal.value.code, refusal.value.detail) == (GATE, "card")
    studio.person("olga", PersonRole.OWNER)
    registry.override(studio.override("olga", release, Criterion.CARD), AT)
    assert registry.gate(release, LATER).ok


def test_open_reservations_hold_a_release_back(studio: Studio, campaign: Digest) -> None:
    """A third site had a place and sent nothing: until its reservation expires nobody knows what left it."""
    world, registry = studio.world, studio.world.registry
    number, plan = world.open(campaign, *SITES)
    for site in ("alder", "birch"):
        registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    release = ready(studio, world.commit(campaign, number))
    studio.approve("otto", release)
    (open_one,) = failing(registry.gate(release, AT))["reservations"]
    assert open_one == next(p.reservation for p in registry.answers(campaign, number, AT).places if p.site == "cedar")
    registry.expire_reservations(LATER)
    assert registry.gate(release, LATER).ok


def test_what_nobody_cleared_or_registered_is_no_source(studio: Studio, version: Digest) -> None:
    """Rows that could only come from outside the verbs; the gate looks all the same."""
    registry = studio.world.registry
    release = ready(studio, version)
    studio.approve("otto", release)
    strange = (("snapshot", f"cedar/{named('never cleared')}"), ("base-model", named("unknown")), ("round", named("r")))
    with Session(studio.world.engine) as session, session.begin():
        target = session.query(NodeRow).filter_by(ref=version).one().id
        top = max(number for (number,) in session.query(NodeRow.id))
        for place, (kind, ref) in enumerate(strange, start=1):
            session.execute(insert(NodeRow), [{"id": top + place, "kind": kind, "ref": ref}])
            edge = {"src": target, "dst": top + place, "relation": "used", "late": True}
            session.execute(insert(EdgeRow), [edge])
        whole = session.query(NodeRow).filter_by(ref="alder/adult").one().id
        session.execute(insert(EdgeRow), [{"src": target, "dst": whole, "relation": "used", "late": False}])
    found = failing(registry.gate(release, LATER))
    assert found["sources"] == tuple(sorted([*(ref for _, ref in strange), "alder/adult"]))
    assert "purpose" in found


def test_undecided_withdrawals_hold_a_release_back_when_their_time_is_over(studio: Studio, version: Digest) -> None:
    world, registry = studio.world, studio.world.registry
    release = ready(studio, version)
    studio.approve("otto", release)
    registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    assert registry.gate(release, LATER).ok
    overdue = AT + timedelta(days=31)
    undecided = {i.ref for i in registry.impacts("n-1", None) if i.options}
    assert failing(registry.gate(release, overdue))["withdrawals"] == tuple(sorted(undecided))
    registry.decide(studio.decide("dora", "n-1", Remedy.FLAG, *undecided), LATER)
    assert registry.gate(release, overdue).ok
    for remedy, criteria in ((Remedy.RETRAIN, {"standing"}), (Remedy.NONE, set()), (Remedy.RETIRE, {"standing"})):
        registry.decide(studio.decide("dora", "n-1", remedy, version), LATER)
        assert set(failing(registry.gate(release, overdue))) == criteria


def cosign(studio: Studio, name: str, key: Ed25519PrivateKey) -> None:
    """That witness signs the hub's newest head."""
    registry = studio.world.registry
    head = registry.head()
    assert head is not None
    line = note_line(head, name, key, int(AT.timestamp()))
    with registry.writing(LATER) as unit:
        assert exchange.keep(unit.session, LOG, line, key.public_key(), head.size, LATER)


def test_witnesses_must_have_seen_all_that_it_rests_on(studio: Studio, version: Digest) -> None:
    registry, alder = studio.world.registry, studio.world.keys["alder"]
    registry.set_policy(Policy(Purpose.RELEASE_INTERNAL, 1, (), witnesses=1), AT)
    release = ready(studio, version)
    cosign(studio, "alder", alder)
    studio.approve("otto", release)
    (entry,) = failing(registry.gate(release, LATER))["witnesses"]
    assert entry.startswith("entry ")
    cosign(studio, "alder", alder)
    assert registry.gate(release, LATER).ok


def test_witnesses_are_sites_in_good_standing_and_auditors_by_name(studio: Studio, version: Digest) -> None:
    """Each once: neither a key that anybody made, nor an officer, nor who was shut out, set apart or has left, counts."""
    registry, world = studio.world.registry, studio.world
    registry.set_policy(Policy(Purpose.RELEASE_INTERNAL, 1, (), witnesses=2), AT)
    release = ready(studio, version)
    studio.approve("otto", release)
    studio.person("aud", PersonRole.AUDITOR)
    stranger = Ed25519PrivateKey.generate()
    for name, key in (("stranger", stranger), ("otto", studio.keys["otto"]), ("alder", world.keys["alder"])):
        cosign(studio, name, key)
    told = {one.criterion: one.detail for one in registry.gate(release, LATER).criteria}
    assert told[Criterion.WITNESSES].startswith("1 of 2 witnesses")
    cosign(studio, "birch", world.keys["birch"])
    assert registry.gate(release, LATER).ok
    with registry.writing(AT) as unit:
        unit.session.add(QuarantineRow(site="birch", codes={"replay": 3}, began_at=AT))
    assert set(failing(registry.gate(release, LATER))) == {"witnesses"}
    cosign(studio, "aud.example", studio.keys["aud"])
    assert registry.gate(release, LATER).ok
    registry.end_person("aud", LATER)
    assert set(failing(registry.gate(release, LATER))) == {"witnesses"}
    registry.lift_quarantine("birch", "olga", "a broken disk", LATER)
    assert registry.gate(release, LATER).ok
    registry.revoke_site("alder", LATER)
    assert set(failing(registry.gate(release, LATER))) == {"witnesses"}


@one_database
def test_a_proposal_names_its_own_weights(studio: Studio, version: Digest) -> None:
    studio.propose(version)
    for changes, code in (
        ({"name": "other", "weights": named("other")}, MALFORMED),
        ({"name": "other", "evaluations": (named("none"),)}, MALFORMED),
        ({"honours": (Modifier("DUO:0000022", ("CH",)),)}, ALREADY_EXISTS),
    ):
        with pytest.raises(BractError) as refusal:
            studio.propose(version, **changes)
        assert refusal.value.code == code
    assert len(studio.world.registry.releases()) == 1
