"""Facts are those of the registry, of the thing that was asked for, and of the time that was asked for."""

from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import aliased

from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.export.facts import Facts
from bract.export.privacy import privacy_of
from bract.model import NodeKind, Role
from bract.privacy.accounting import epsilon, rounded_up
from bract.release import Remedy
from bract.vocabulary.purposes import Purpose
from bract_server.export.known import as_known
from bract_server.export.read import as_of, read_facts
from bract_server.registry.models import RoundRow, VersionRow
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, MECHANISM, World, named

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what is Python's own to compute; the statements run on both databases above."""

LATER = AT + timedelta(days=30)
ALDER = f"alder/{named('snapshot alder')}"


def facts(world: World, ref: str | None = None, at: object = LATER, **more: bool) -> Facts:
    return read_facts(world.registry, "hub", ref, at, **more)  # type: ignore[arg-type]


def refs(found: Facts) -> set[str]:
    return {node.ref for node in found.lineage.nodes}


def test_facts_are_of_one_model_and_what_it_descends_from(world: World, campaign: Digest) -> None:
    first = world.whole_round(campaign, "alder", "birch")
    second = world.whole_round(campaign, "alder", "cedar")
    one, two = facts(world, first), facts(world, second)
    assert one.subject.ref == first
    assert second in refs(two) - refs(one)
    assert [part.clearing.site for part in one.parts] == ["alder", "birch"]
    assert sorted(part.clearing.site for part in two.parts) == ["alder", "alder", "birch", "cedar"]
    assert {part.mechanism for part in two.parts} == {MECHANISM}
    assert (one.checkpoint_size, one.checkpoint_root) == (
        world.registry.verify_log().entries,
        world.registry.verify_log().root,
    )
    everything = facts(world)
    assert refs(everything) == {node.ref for node in world.registry.lineage().nodes}
    # the same by every name that people use
    assert facts(world, "heart/1").about == facts(world, first[7:25]).about == one.about
    privacy = privacy_of(two)
    assert privacy.guaranteed
    assert {one.site: one.epsilon for one in privacy.spends}["alder"] == rounded_up(epsilon([MECHANISM] * 2, 1e-5))


@one_database
def test_a_test_sampler_breaks_the_guarantee(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    for site in ("alder", "birch"):
        envelope = world.contribution(site, campaign, number, plan.name, private=site == "alder")
        world.registry.accept(envelope, site, AT)
    privacy = privacy_of(facts(world, world.commit(campaign, number)))
    assert not privacy.guaranteed
    assert "test sampler" in " ".join(privacy.broken)


def test_as_of_a_time_nothing_later_is_known(world: World, campaign: Digest) -> None:
    """Every later fact of each kind is absent, and every earlier one there."""
    hour = timedelta(hours=1)
    studio, registry = Studio(world), world.registry
    version = world.whole_round(campaign, "alder", "birch")
    before = facts(world, at=AT)
    studio.declare(Purpose.FINETUNING)
    assert refs(before) == refs(facts(world, at=AT + hour))
    notice = world.notice("alder", named("snapshot alder"))
    registry.withdraw("alder", notice, AT + hour)
    # terms, a notice and a source that came an hour later
    second = studio.terms("alder", Purpose.FINETUNING, Purpose.DISTILLATION)
    registry.set_terms(second, AT + hour)
    for at, touched in ((AT, 0), (AT + hour, None)):
        found = facts(world, version, at=at)
        assert (len(found.touches) == 0) is (touched == 0)
        permits = {node.ref: node.permits for node in found.lineage.nodes}[ALDER]
        assert ("distillation" in permits) is (at > AT)
    early, late = facts(world, at=AT), facts(world, at=AT + hour)
    assert early.checkpoint_size < late.checkpoint_size
    with pytest.raises(BractError) as refusal:
        facts(world, version, at=AT - hour)
    assert refusal.value.code == MALFORMED
    assert facts(world, at=AT - hour).lineage.nodes == ()
    assert facts(world, at=AT - hour).checkpoint_root is None


@one_database
def test_a_late_edge_is_not_known_before_it_was_learnt(world: World, campaign: Digest) -> None:
    hour = timedelta(hours=1)
    studio, registry = Studio(world), world.registry
    world.whole_round(campaign, "alder", "birch")
    studio.declare(Purpose.FINETUNING)
    clean = registry.latest_version(campaign).value.parent
    assert clean is not None
    tuned = registry.derive(studio.fine_tune(clean, studio.source()), AT)
    registry.relate(tuned, ALDER, Role.TRAINED, AT + hour)
    assert ALDER not in refs(facts(world, tuned, at=AT))
    late = facts(world, tuned, at=AT + hour)
    assert ALDER in refs(late)
    assert any("without a stated mechanism" in why for why in privacy_of(late).broken)


@one_database
def test_a_round_that_runs_is_told_as_running_and_with_what_came_in_only(world: World, campaign: Digest) -> None:
    hour = timedelta(hours=1)
    number, plan = world.open(campaign, "alder", "birch")
    for site in ("alder", "birch"):
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    world.commit(campaign, number, AT + hour)
    (running,) = (node for node in facts(world, at=AT).lineage.nodes if node.kind is NodeKind.ROUND)
    assert running.body["state"] == "running"
    assert not any(edge.src == running.ref for edge in facts(world, at=AT).lineage.edges)
    (ended,) = (node for node in facts(world, at=AT + hour).lineage.nodes if node.kind is NodeKind.ROUND)
    assert ended.body["state"] == "committed"


@one_database
def test_a_release_leads_to_its_model_with_its_evaluations_and_decisions(world: World, campaign: Digest) -> None:
    studio, registry = Studio(world), world.registry
    version = world.whole_round(campaign, "alder", "birch")
    wiki = studio.source()
    judged = studio.evaluation(version, wiki)
    release = studio.propose(version, judged)
    registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    registry.decide(studio.decide("dora", "n-1", Remedy.FLAG, version), AT)
    model = facts(world, "spring", model=True)
    assert model.subject.ref == version
    assert [node.ref for node in model.evaluations] == [judged]
    assert model.evaluations[0].body["measures"] == {"accuracy": 0.83}
    assert [(one.digest, one.state) for one in model.releases] == [(release, "proposed")]
    assert {touch.ref: touch.decision for touch in model.touches}[version] == "flag"
    graph = facts(world, "spring")
    assert graph.subject.kind is NodeKind.RELEASE
    assert {release, version, judged, wiki} <= refs(graph)


def test_no_way_of_reading_finds_a_later_row(world: World, campaign: Digest) -> None:
    version = world.whole_round(campaign, "alder", "birch")
    other = aliased(VersionRow)
    for at, there in ((AT, True), (AT - timedelta(microseconds=1), False)):
        with world.registry.seeing() as session:
            as_known(session, at)
            found = [
                session.get(VersionRow, version) is not None,
                session.scalar(select(VersionRow.digest).where(VersionRow.digest == version)) is not None,
                session.scalar(select(other.digest).where(other.digest == version)) is not None,
                session.scalar(select(select(VersionRow).exists())),
                session.execute(
                    select(RoundRow.id, VersionRow.digest).join(VersionRow, VersionRow.campaign == RoundRow.campaign)
                ).first()
                is not None,
            ]
        assert found == [there] * len(found)


def test_the_future_is_not_known() -> None:
    assert as_of(None, AT) == AT
    assert as_of("2026-11-22T12:00:00Z", AT) < AT
    for text in ("2027-01-01T00:00:00Z", "yesterday", "2026-11-22T12:00:00"):
        with pytest.raises(BractError) as refusal:
            as_of(text, AT)
        assert refusal.value.code == MALFORMED
