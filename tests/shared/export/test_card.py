"""A card claims a guarantee only where every part of one is recorded; what is missing is said to be missing."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bract.export.aiact import annex_iv, training_content
from bract.export.card import NO_GUARANTEE, card
from bract.export.facts import Facts, Part, Published, Touch
from bract.export.privacy import privacy_of
from bract.model import Edge, Lineage, Node, NodeKind, Overriding, Relation, Role
from bract.objectives.certificate import certificate
from bract.objectives.spec import MaskedTableSpec
from bract.plan import CampaignPlan
from bract.privacy.accounting import epsilon, rounded_up
from bract.privacy.spec import Mechanism
from bract.value import digest_value
from tests.shared.export.graphs import AT, part, plan

PLAN = plan()
CAMPAIGN = digest_value(PLAN)
SITES = ("alder", "birch")


def node(kind: NodeKind, ref: str, **body: Any) -> Node:
    return Node(kind, ref, ref, AT, body, ("ssl-pretraining", "evaluation"), ())


def world(
    rounds: int = 2, parts: tuple[Part, ...] | None = None, *more: tuple[Node, Relation, Role | None, str]
) -> Facts:
    """Rounds of two sites, each with its snapshot and contribution; the newest version is asked for."""
    nodes = [node(NodeKind.VERSION, "v0", number=0)]
    links: list[tuple[str, Relation, Role | None, str]] = []
    found: list[Part] = []
    for number in range(1, rounds + 1):
        nodes += [node(NodeKind.ROUND, f"r{number}", campaign=CAMPAIGN), node(NodeKind.VERSION, f"v{number}")]
        for site in SITES:
            one = part(f"r{number}", site, version=f"v{number}")
            nodes += [node(NodeKind.CONTRIBUTION, one.digest, site=site)]
            if number == 1:
                nodes += [node(NodeKind.SNAPSHOT, one.snapshot, site=site)]
            links += [
                (one.digest, Relation.DERIVED, Role.TRAINED, one.snapshot),
                (f"r{number}", Relation.USED, None, one.digest),
            ]
            found.append(one)
        links += [
            (f"v{number}", Relation.GENERATED, None, f"r{number}"),
            (f"v{number}", Relation.DERIVED, None, f"v{number - 1}"),
        ]
    for new, relation, role, old in more:
        nodes.append(new)
        links.append(
            (new.ref, relation, role, old)
            if new.kind in (NodeKind.FINETUNE,)
            else (f"v{rounds}", relation, role, new.ref)
        )
    kinds = {one.ref: one.kind for one in nodes}
    edges = tuple(Edge(kinds[src], src, relation, role, kinds[dst], dst) for src, relation, role, dst in links)
    return Facts(
        origin="hub",
        known_at=AT,
        lineage=Lineage(tuple(nodes), edges),
        about=(NodeKind.VERSION, f"v{rounds}"),
        plans={CAMPAIGN: PLAN},
        parts=tuple(found) if parts is None else parts,
        certificates={"masked-table": certificate("masked-table")},
    )


FIELDS = (
    *("consent subject", "add or remove one", "dp-accounting", "Poisson", "| σ | 1.2 |", "| q | 0.05 |", "| C | 1 |"),
    *("| T of one round | 20 |", "Δ = C", "tuning runs | not recorded", "trust model", "falsifier (version", "N̄"),
    *("k: records of a subject in a step, at most | 1", "initialisation"),
)


def test_what_is_whole_has_a_guarantee_with_every_figure_that_it_depends_on() -> None:
    facts = world()
    privacy = privacy_of(facts)
    expected = rounded_up(epsilon([Mechanism(1.2, 0.05, 20)] * 2, 1e-5))
    assert privacy.guaranteed
    assert [(one.site, one.epsilon) for one in privacy.spends] == [("alder", expected), ("birch", expected)]
    page = card(facts).decode()
    assert f"**(ε, δ) = ({expected:g}, 1e-05)**" in page
    assert NO_GUARANTEE not in page
    for field in FIELDS:
        assert field in page, field
    assert f"epsilon: {expected}" in page


def without(facts: Facts, number: int) -> Facts:
    return replace(facts, parts=facts.parts[:number] + facts.parts[number + 1 :])


def other_plan(facts: Facts, changed: CampaignPlan) -> Facts:
    return replace(facts, plans={CAMPAIGN: changed})


def unproved(kind: str) -> CampaignPlan:
    changed = plan()
    object.__setattr__(changed, "objective", replace(MaskedTableSpec("masked-table"), kind=kind))  # type: ignore[arg-type]
    return changed


SNAPSHOT = node(NodeKind.SNAPSHOT, "cedar/sha256:2", site="cedar")
BROKEN = {
    "a contribution that is not recorded": lambda: without(world(), 0),
    "no contribution at all": lambda: world(parts=()),
    "a test sampler": lambda: replace(world(), parts=(replace(world().parts[0], private=False), *world().parts[1:])),
    "a snapshot that came in otherwise": lambda: world(2, None, (SNAPSHOT, Relation.DERIVED, Role.TRAINED, "")),
    "an unknown plan": lambda: replace(world(), plans={}),
    "no certificate": lambda: replace(world(), certificates={"masked-table": "its certificate is of falsifier 0"}),
    "a certificate that nobody looked for": lambda: replace(world(), certificates={}),
    "an objective without a bound": lambda: other_plan(world(), unproved("simclr")),
}


@pytest.mark.parametrize("why", BROKEN)
def test_without_a_part_of_it_there_is_no_guarantee_and_the_reason_is_told(why: str) -> None:
    facts = BROKEN[why]()
    privacy = privacy_of(facts)
    assert not privacy.guaranteed
    assert privacy.broken
    assert (privacy.epsilon, privacy.delta) == (None, None)
    for make in (card, annex_iv):
        page = make(facts).decode()
        assert f"**{NO_GUARANTEE}**, because" in page
        assert "(ε, δ) =" not in page
    assert "epsilon" not in card(facts).decode().split("\n---\n")[0]
    assert "differential_privacy: false" in card(facts).decode()


def test_a_round_straight_from_its_snapshot_counts_as_one_from_a_contribution() -> None:
    """Rounds before contributions had nodes of their own."""
    facts = world(1)
    kept = tuple(one for one in facts.lineage.nodes if one.kind is not NodeKind.CONTRIBUTION)
    edges = tuple(edge for edge in facts.lineage.edges if NodeKind.CONTRIBUTION not in (edge.src_kind, edge.dst_kind))
    straight = tuple(
        Edge(NodeKind.ROUND, "r1", Relation.USED, None, NodeKind.SNAPSHOT, one.snapshot) for one in facts.parts
    )
    assert privacy_of(replace(facts, lineage=Lineage(kept, edges + straight))).guaranteed
    assert not privacy_of(replace(facts, lineage=Lineage(kept, edges + straight), parts=facts.parts[1:])).guaranteed


def test_what_nobody_s_records_went_into_promises_nothing_and_needs_no_more() -> None:
    facts = world(0)
    page = card(facts).decode()
    assert not privacy_of(facts).guaranteed
    assert f"**{NO_GUARANTEE}**, and none is needed of this federation" in page


def test_weights_from_elsewhere_are_named_beside_any_guarantee() -> None:
    base = node(NodeKind.BASE, "sha256:b", url="https://example.org", licence="CC-BY-4.0", name="somebody-s-weights")
    facts = world(1, None, (base, Relation.DERIVED, Role.INITIALISED, ""))
    assert privacy_of(facts).foreign == ("sha256:b",)
    assert "with nothing recorded of whose data or privacy" in card(facts).decode()
    seeded = node(NodeKind.BASE, "sha256:b", origin="public-seed")
    assert privacy_of(world(1, None, (seeded, Relation.DERIVED, Role.INITIALISED, ""))).foreign == ()


def test_withdrawals_overrides_and_releases_are_always_shown() -> None:
    facts = world()
    override = Overriding(CAMPAIGN, CAMPAIGN, "card", "because", "dora", ("owner",), AT, b"")
    told = replace(
        facts,
        touches=(Touch("alder", "v2", "bounded-by-dp", None, AT + timedelta(days=1)),),
        releases=(Published("d", "first-release", "v2", "release-public", "published", AT, AT),),
        lineage=replace(facts.lineage, overrides=(override,)),
    )
    page = card(told).decode()
    assert "| 2026-11-23 | alder | `v2` | bounded-by-dp | undecided |" in page
    assert "Nothing was erased from this model" in page
    assert "| card | because | dora |" in page
    assert "first-release" in page
    quiet = card(facts).decode()
    assert "No withdrawal that touches this model was known." in quiet
    assert "Overrides: none." in quiet


def test_drafts_say_who_completes_what_the_registry_does_not_have() -> None:
    facts = world()
    for make, least in ((annex_iv, 15), (training_content, 8)):
        page = make(facts).decode()
        assert page.count("▢") > least
        assert page.count("to be completed by provider") > least - 5
    external = node(
        NodeKind.EXTERNAL,
        "sha256:e",
        url="https://example.org/data",
        licence="CC0",
        signal={"source": "tdmrep", "raw": "tdm-reservation: 1", "fetched_at": "2026-01-01T00:00:00Z"},
    )
    page = training_content(world(1, None, (external, Relation.DERIVED, Role.TRAINED, ""))).decode()
    assert "tdm-reservation: 1" in page
    assert "CC0" in page
    assert "beyond 2.1" not in page
