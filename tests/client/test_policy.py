"""A site runs what its policy permits; a tighter plan is never refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.consent import Purpose
from bract.encoders.spec import TableSpec
from bract.errors import NO_CERTIFICATE, POLICY, UNKNOWN_OBJECTIVE, BractError
from bract.objectives.spec import CATALOGUE, BarlowSpec, BucketContrastSpec, MaskedTableSpec, PrivacyStructure
from bract.plan import CampaignPlan, SitePlan
from bract.privacy.spec import PrivacySpec
from bract_client.policy import CERTIFIED, DatasetCap, SitePolicy, permit

POLICY_ = SitePolicy(min_noise_multiplier=1.0, max_clip=1.0, max_sampling_rate=0.1, max_delta=1e-5, min_cohort=2)
PLAN = CampaignPlan(
    name="adult",
    purpose=Purpose.PRETRAINING,
    dataset="adult",
    encoder=TableSpec(kind="table", schema="adult"),
    objective=MaskedTableSpec(kind="masked-table"),
    privacy=PrivacySpec(clip=1.0, noise_multiplier=1.0, sampling_rate=0.1, steps=10, delta=1e-5),
    sites=(SitePlan("a"), SitePlan("b"), SitePlan("c")),
    rounds=5,
    quorum=2,
)


def with_privacy(**change: Any) -> CampaignPlan:
    return replace(PLAN, privacy=replace(PLAN.privacy, **change))


def refusal(policy: SitePolicy, plan: CampaignPlan) -> BractError:
    with pytest.raises(BractError) as refused:
        permit(policy, plan)
    return refused.value


def test_a_plan_at_every_bound_is_permitted() -> None:
    permit(POLICY_, PLAN)


@pytest.mark.parametrize(
    ("policy", "plan", "rule"),
    [
        (POLICY_, with_privacy(noise_multiplier=0.99), "min_noise_multiplier"),
        (POLICY_, with_privacy(clip=1.01), "max_clip"),
        (POLICY_, with_privacy(sampling_rate=0.11), "max_sampling_rate"),
        (POLICY_, with_privacy(delta=1.1e-5), "max_delta"),
        (POLICY_, with_privacy(noise_multiplier=float("nan")), "min_noise_multiplier"),
        (POLICY_, with_privacy(clip=float("nan")), "max_clip"),
        (POLICY_, replace(PLAN, quorum=1), "min_cohort"),
        (POLICY_, replace(PLAN, purpose=Purpose.FINETUNING), "purposes"),
        (POLICY_, replace(PLAN, seeded_test=1), "test_datasets"),
        (replace(POLICY_, purposes=()), PLAN, "purposes"),
        (replace(POLICY_, objectives=("masked-image",)), PLAN, "objectives"),
    ],
)
def test_a_looser_plan_is_refused_and_the_rule_is_named(policy: SitePolicy, plan: CampaignPlan, rule: str) -> None:
    error = refusal(policy, plan)
    assert (error.code, error.detail.split(":")[0]) == (POLICY, rule)


def test_an_objective_that_this_version_does_not_have_is_refused() -> None:
    unknown = replace(PLAN, objective=MaskedTableSpec(kind="contrastive"))  # type: ignore[arg-type]  # that is the point
    assert refusal(POLICY_, unknown).code == UNKNOWN_OBJECTIVE


def test_a_site_may_permit_exactly_what_has_a_proved_bound() -> None:
    proved = {kind for kind, entry in CATALOGUE.items() if entry.structure is not PrivacyStructure.NONE}
    assert set(CERTIFIED) == proved


@pytest.mark.parametrize("objective", [BarlowSpec("barlow"), BucketContrastSpec("bucket-contrast")])
def test_every_proved_structure_is_permitted(objective: BarlowSpec | BucketContrastSpec) -> None:
    permit(POLICY_, replace(PLAN, objective=objective))


def test_an_objective_without_a_proved_bound_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "masked-table", replace(CATALOGUE["masked-table"], structure=PrivacyStructure.NONE))
    assert refusal(POLICY_, PLAN).code == NO_CERTIFICATE


FLOATS = st.floats(0.01, 100)
PRIVACY = st.builds(
    PrivacySpec,
    clip=FLOATS,
    noise_multiplier=FLOATS,
    sampling_rate=st.floats(0.001, 1),
    steps=st.just(10),
    delta=st.floats(1e-9, 0.09),
)


@st.composite
def permitted(draw: st.DrawFn) -> tuple[SitePolicy, CampaignPlan]:
    """A plan, and a policy that permits it."""
    privacy, quorum = draw(PRIVACY), draw(st.integers(1, 3))
    policy = SitePolicy(
        min_noise_multiplier=privacy.noise_multiplier * draw(st.floats(0.1, 1)),
        max_clip=privacy.clip / draw(st.floats(0.1, 1)),
        max_sampling_rate=privacy.sampling_rate / draw(st.floats(0.1, 1)),
        max_delta=privacy.delta / draw(st.floats(0.1, 1)),
        min_cohort=draw(st.integers(1, quorum)),
    )
    return policy, replace(PLAN, privacy=privacy, quorum=quorum)


@given(permitted(), st.tuples(*[st.floats(1, 10)] * 4), st.integers(0, 2))
def test_tightening_a_permitted_plan_is_always_permitted(
    case: tuple[SitePolicy, CampaignPlan], tighter: tuple[float, float, float, float], more: int
) -> None:
    policy, plan = case
    permit(policy, plan)
    tight = replace(
        plan.privacy,
        noise_multiplier=plan.privacy.noise_multiplier * tighter[0],
        clip=plan.privacy.clip / tighter[1],
        sampling_rate=plan.privacy.sampling_rate / tighter[2],
        delta=plan.privacy.delta / tighter[3],
    )
    permit(policy, replace(plan, privacy=tight, quorum=min(3, plan.quorum + more)))


@given(bound=FLOATS, asked=FLOATS)
def test_noise_is_permitted_exactly_from_the_bound_on(bound: float, asked: float) -> None:
    policy, plan = replace(POLICY_, min_noise_multiplier=bound), with_privacy(noise_multiplier=asked)
    if asked >= bound:
        permit(policy, plan)
    else:
        assert refusal(policy, plan).code == POLICY


def test_a_data_set_may_have_a_cap_of_its_own() -> None:
    policy = replace(POLICY_, epsilon_cap=8.0, datasets=(DatasetCap("icu", 1.5),))
    assert (policy.cap("icu"), policy.cap("adult")) == (1.5, 8.0)
