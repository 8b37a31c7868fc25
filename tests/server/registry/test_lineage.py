"""What is registered has sources that permit it, no circle, and a name by which it is found; overrides stay in sight."""

from dataclasses import replace

import pytest
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, OFF_PURPOSE, STATE, UNTRUSTED, BractError
from bract.model import Input, NodeKind, PublicWeights, Relation, Role
from bract.release import Criterion, Remedy
from bract.value import digest_value
from bract.vocabulary.modifiers import Modifier
from bract.vocabulary.purposes import Purpose
from bract_server.registry.models import EdgeRow
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, World, named

ALDER = f"alder/{named('snapshot alder')}"
DEFAULT = ("evaluation", "release-internal", "ssl-pretraining")
DECLARED = ("evaluation", "release-internal", "ssl-pretraining", "supervised-finetuning")

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Of a rule that no database sees; what it reads and writes runs on both in the other tests."""


@pytest.fixture
def studio(world: World) -> Studio:
    return Studio(world)


@pytest.fixture
def version(world: World, campaign: Digest) -> Digest:
    return world.whole_round(campaign, "alder", "birch")


def test_a_round_is_told_from_the_data_set_to_the_version(world: World, version: Digest) -> None:
    lineage = world.registry.ancestry(version)
    kinds = [node.kind for node in lineage.nodes]
    assert sorted(kinds) == sorted(
        [NodeKind.DATASET, NodeKind.SNAPSHOT, NodeKind.CONTRIBUTION] * 2
        + [NodeKind.ROUND, NodeKind.VERSION, NodeKind.VERSION, NodeKind.BASE]
    )
    steps = {(e.src_kind, e.relation, e.role, e.dst_kind) for e in lineage.edges}
    assert steps == {
        (NodeKind.VERSION, Relation.DERIVED, Role.INITIALISED, NodeKind.BASE),
        (NodeKind.VERSION, Relation.DERIVED, Role.INITIALISED, NodeKind.VERSION),
        (NodeKind.VERSION, Relation.GENERATED, None, NodeKind.ROUND),
        (NodeKind.ROUND, Relation.USED, None, NodeKind.CONTRIBUTION),
        (NodeKind.CONTRIBUTION, Relation.DERIVED, Role.TRAINED, NodeKind.SNAPSHOT),
        (NodeKind.SNAPSHOT, Relation.DERIVED, Role.DRAWN, NodeKind.DATASET),
    }
    by_ref = {node.ref: node for node in lineage.nodes}
    assert by_ref[version].permits == DEFAULT
    assert (by_ref[version].name, by_ref[version].at) == ("heart/1", AT)
    assert by_ref[ALDER].body == {
        "site": "alder",
        "snapshot": named("snapshot alder"),
        "datasets": ["adult"],
        "purposes": ["ssl-pretraining"],
    }
    assert world.registry.lineage() == lineage
    below = world.registry.descendants_of(ALDER)
    assert [node.kind for node in below.nodes] == ["snapshot", "contribution", "round", "version"]
    assert below.nodes[-1] == by_ref[version]


@one_database
def test_fine_tuning_an_encoder_needs_a_declared_use(studio: Studio, version: Digest) -> None:
    registry, wiki = studio.world.registry, studio.source()
    value = studio.fine_tune(version, wiki)
    with pytest.raises(BractError) as refusal:
        registry.derive(value, AT)
    assert refusal.value.code == OFF_PURPOSE
    assert ALDER in refusal.value.detail and named("snapshot birch") in refusal.value.detail
    studio.declare(Purpose.FINETUNING, sites=("alder",))
    with pytest.raises(BractError) as refusal:
        registry.derive(value, AT)
    assert ALDER not in refusal.value.detail
    studio.declare(Purpose.FINETUNING, sites=("birch",))
    ref = registry.derive(value, AT)
    made = registry.ancestry("tuned").nodes[-1]
    assert (made.ref, made.kind, made.permits) == (ref, NodeKind.FINETUNE, DECLARED)


@one_database
def test_uses_only_narrow_along_the_way(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    region = Modifier("DUO:0000022", ("CH",))
    studio.declare(Purpose.FINETUNING, Purpose.DISTILLATION, modifiers=(region,))
    narrow = studio.source("narrow", permits=(Purpose.FINETUNING, Purpose.EVALUATION))
    tuned = registry.derive(studio.fine_tune(version, narrow), AT)
    node = registry.ancestry(tuned).nodes[-1]
    assert (node.permits, node.modifiers) == (("evaluation", "supervised-finetuning"), ("DUO:0000022=CH",))
    teacher = Input(NodeKind.FINETUNE, tuned, Role.DISTILLED)
    student = studio.fine_tune(
        version, narrow, "pupil", kind=NodeKind.STUDENT, purpose=Purpose.DISTILLATION, inputs=(teacher,)
    )
    with pytest.raises(BractError) as refusal:
        registry.derive(student, AT)
    assert (refusal.value.code, narrow in refusal.value.detail) == (OFF_PURPOSE, True)
    # What is declared later and takes away holds for what is there already.
    studio.declare(modifiers=(Modifier("DUO:0000015"),), sites=("birch",))
    assert "ssl-pretraining" not in registry.ancestry(version).nodes[-1].permits


def test_an_override_is_a_dpos_and_stays_in_sight(studio: Studio, version: Digest) -> None:
    registry, wiki = studio.world.registry, studio.source()
    value = studio.fine_tune(version, wiki)
    for by, about, criterion, code in (
        ("ada", digest_value(value), Criterion.PURPOSE, UNTRUSTED),
        ("dora", named("another"), Criterion.PURPOSE, UNTRUSTED),
        ("dora", digest_value(value), Criterion.MODIFIERS, UNTRUSTED),
        ("dora", digest_value(value), Criterion.APPROVALS, STATE),
    ):
        with pytest.raises(BractError) as refusal:
            registry.derive(value, AT, studio.override(by, about, criterion))
        assert refusal.value.code == code
    assert registry.overrides() == ()
    tuned = registry.derive(value, AT, studio.override("dora", digest_value(value), Criterion.PURPOSE))
    judged = studio.evaluation(tuned, wiki)
    (override,) = registry.ancestry(judged).overrides
    assert (override.about, override.by, override.reason) == (tuned, "dora", "the board agreed on 3 May")
    # It lets this one thing pass, and widens nothing for what comes of it.
    assert "supervised-finetuning" not in registry.ancestry(tuned).nodes[-1].permits
    again = studio.fine_tune(tuned, wiki, "again")
    with pytest.raises(BractError) as refusal:
        registry.derive(again, AT)
    assert refusal.value.code == OFF_PURPOSE


@one_database
def test_inputs_must_be_there_and_fit(studio: Studio, version: Digest) -> None:
    registry, wiki = studio.world.registry, studio.source()
    studio.declare(Purpose.FINETUNING)
    good = studio.fine_tune(version, wiki)
    start, data = good.inputs
    for inputs in (
        (data,),
        (replace(start, ref=named("none")), data),
        (start, Input(NodeKind.DATASET, "alder/adult", Role.TRAINED)),
        (start, Input(NodeKind.VERSION, version, Role.TRAINED)),
        (Input(NodeKind.EXTERNAL, wiki, Role.INITIALISED), data),
        (start, replace(data, role=Role.EVIDENCE)),
    ):
        with pytest.raises(BractError) as refusal:
            registry.derive(replace(good, inputs=inputs), AT)
        assert refusal.value.code == MALFORMED
    registry.derive(good, AT)
    for again in (good, replace(good, content=named("other weights"))):
        with pytest.raises(BractError) as refusal:
            registry.derive(again, AT)
        assert refusal.value.code == ALREADY_EXISTS


@one_database
def test_terms_are_the_sites_or_the_dpos(studio: Studio, version: Digest) -> None:
    world = studio.world
    studio.keys |= world.keys
    for by, site in (("ada", "alder"), ("birch", "alder")):
        with pytest.raises(BractError) as refusal:
            world.registry.set_terms(studio.terms(site, Purpose.FINETUNING, by=by), AT)
        assert refusal.value.code == UNTRUSTED
    world.registry.set_terms(studio.terms("alder", Purpose.FINETUNING, by="alder"), AT)
    snapshot = next(node for node in world.registry.ancestry(version).nodes if node.ref == ALDER)
    assert snapshot.permits == DECLARED


def test_no_round_opens_over_data_whose_terms_forbid_its_purpose(studio: Studio, campaign: Digest) -> None:
    """Also where they came after the clearance, and whoever of the two signed them; other terms and none forbid nothing."""
    world, registry, forbids = studio.world, studio.world.registry, (Modifier("DUO:0000015"),)
    studio.keys |= world.keys
    registry.declare("alder", studio.terms("alder", modifiers=(Modifier("DUO:0000022", ("CH",)),), by="alder"), AT)
    number, _ = world.open(campaign, "alder", "birch")
    registry.abort_round(campaign, number, {}, AT)
    number = registry.propose(campaign, AT).number
    registry.set_terms(studio.terms("birch", modifiers=forbids), AT)
    with pytest.raises(BractError) as refusal:
        world.answer(campaign, number, "birch")
    assert refusal.value.code == OFF_PURPOSE
    world.answer(campaign, number, "alder", "cedar")
    places = registry.answers(campaign, number, AT).places
    for by, code in (("cedar", UNTRUSTED), ("dora", UNTRUSTED)):
        with pytest.raises(BractError) as refusal:
            registry.declare("alder", studio.terms("alder", modifiers=forbids, by=by), AT)
        assert refusal.value.code == code
    registry.declare("alder", studio.terms("alder", modifiers=forbids, by="alder"), AT)
    found = registry.answers(campaign, number, AT)
    assert ([place.site for place in found.places], found.refusals) == (
        ["cedar"],
        dict.fromkeys(("alder", "birch"), OFF_PURPOSE),
    )
    with pytest.raises(BractError) as refusal:
        registry.open_round(world.round_plan(campaign, number, places), AT)
    assert refusal.value.code == OFF_PURPOSE
    registry.declare("alder", studio.terms("alder", Purpose.FINETUNING, by="alder"), AT)
    registry.open_round(world.round_plan(campaign, number, places), AT)


def test_no_edge_closes_a_circle(studio: Studio, version: Digest) -> None:
    registry = studio.world.registry
    studio.declare(Purpose.FINETUNING)
    wiki = studio.source()
    first = registry.derive(studio.fine_tune(version, wiki, "first"), AT)
    second = registry.derive(studio.fine_tune(first, wiki, "second"), AT)
    for older in (second, first):
        with pytest.raises(BractError) as refusal:
            registry.relate(first, older, Role.INITIALISED, AT)
        assert refusal.value.code == STATE
    later = studio.source("later")
    registry.relate(first, later, Role.TRAINED, AT)
    registry.relate(first, later, Role.TRAINED, AT)
    assert later in {node.ref for node in registry.ancestry(second).nodes}
    with Session(studio.world.engine) as session:
        (late,) = session.query(EdgeRow).filter(EdgeRow.late).all()
        session.add(EdgeRow(src=late.src, dst=late.dst, relation="wasDerivedFrom", late=False))
        with pytest.raises(DatabaseError):
            session.flush()


def test_what_is_learnt_late_is_listed_under_old_notices(studio: Studio, version: Digest, campaign: Digest) -> None:
    world, registry = studio.world, studio.world.registry
    studio.declare(Purpose.FINETUNING)
    clean = registry.latest_version(campaign).value.parent
    assert clean is not None
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    tuned = registry.derive(studio.fine_tune(clean, studio.source()), AT)
    child = registry.derive(studio.fine_tune(tuned, studio.source("more"), "child"), AT)
    touched = {impact.ref for impact in registry.impacts("n-1", None)}
    assert not {tuned, child} & touched
    registry.relate(tuned, ALDER, Role.TRAINED, AT)
    late = {impact.ref: impact for impact in registry.impacts("n-1", None)}
    assert {tuned, child} == late.keys() - touched
    assert (late[child].effect, late[child].path_length, late[child].clean) == ("without-dp", 2, clean)


@one_database
def test_nothing_is_made_from_a_retired_model(studio: Studio, version: Digest) -> None:
    world, registry, wiki = studio.world, studio.world.registry, studio.source()
    studio.declare(Purpose.FINETUNING)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    registry.decide(studio.decide("dora", "n-1", Remedy.RETIRE, version), AT)
    with pytest.raises(BractError) as refusal:
        registry.derive(studio.fine_tune(version, wiki), AT)
    assert refusal.value.code == STATE
    registry.decide(studio.decide("dora", "n-1", Remedy.FLAG, version), AT)
    registry.derive(studio.fine_tune(version, wiki), AT)


@one_database
def test_weights_from_elsewhere_are_a_source_once_they_are_registered(studio: Studio) -> None:
    registry, wiki = studio.world.registry, studio.source()
    value = PublicWeights("backbone", "https://example.org/b", "MIT", named("backbone"), (Purpose.FINETUNING,))
    ref = registry.add_source(value, AT)
    tuned = registry.derive(studio.fine_tune(ref, wiki), AT)
    assert registry.ancestry(tuned).nodes[-1].permits == ("supervised-finetuning",)
    with pytest.raises(BractError) as refusal:
        registry.add_source(value, AT)
    assert refusal.value.code == ALREADY_EXISTS


def test_things_are_found_by_every_name(studio: Studio, version: Digest) -> None:
    registry, wiki = studio.world.registry, studio.source()
    for ref in (version, version[:19], version[7:19], "heart/1"):
        assert registry.thing(ref) == (NodeKind.VERSION, version)
    assert registry.thing("wiki") == (NodeKind.EXTERNAL, wiki)
    for ref in ("nothing", version[7:18], "heart/9", "", "%", "heart/1' OR 1=1 --", "heart/99999999999999999999"):
        with pytest.raises(BractError) as refusal:
            registry.thing(ref)
        assert refusal.value.code == MALFORMED
