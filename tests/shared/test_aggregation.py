"""A plan may claim to withstand only what its quorum bears out."""

import dataclasses
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.aggregation import LEAST_SITES, CentredClipping, DeclaredMean, Median, MultiKrum, TrimmedMean
from bract.errors import MALFORMED, BractError
from bract.plan import CampaignPlan, SitePlan
from bract.secure.spec import SecureSpec
from bract.value import decode, encode, plain
from tests.federation import small_plan

FEW = tuple(SitePlan(f"s{n}", subjects_floor=100) for n in range(30))


@given(st.integers(1, 200), st.integers(1, 20), st.integers(1, 50))
def test_each_claim_has_the_sites_that_its_theorem_asks_for(f: int, bucket: int, selected: int) -> None:
    for rule in (Median(f), TrimmedMean(f)):
        assert rule.least_sites > 2 * f and rule.least_sites in (LEAST_SITES, 2 * f + 1)
    krum = MultiKrum(f, selected=selected)
    assert krum.least_sites >= 2 * f + 3 and krum.least_sites - f - 2 >= selected
    assert 0.1 * CentredClipping(1.0, f, bucket=bucket).least_sites >= bucket * f * (1 - 1e-9)
    for claiming in (Median(f), TrimmedMean(f), krum, CentredClipping(1.0, f, bucket=bucket)):
        assert claiming.least_sites >= LEAST_SITES


@pytest.mark.parametrize(
    ("rule", "least"), [(Median(1), 5), (TrimmedMean(3), 7), (CentredClipping(1.0, 1, bucket=2), 20), (MultiKrum(2), 7)]
)
def test_a_quorum_below_a_claims_sites_is_refused(rule: Median, least: int) -> None:
    plan = small_plan(sites=FEW, quorum=least, aggregation=rule)
    assert plan.aggregation.least_sites == least
    with pytest.raises(BractError, match=f"needs {least} sites") as caught:
        dataclasses.replace(plan, quorum=least - 1).check()
    assert caught.value.code == MALFORMED


def test_nothing_claimed_needs_no_more_than_a_site() -> None:
    for rule in (DeclaredMean(), Median(0), CentredClipping(1.0, 0, bucket=3)):
        assert rule.least_sites == 1


def test_no_declared_weight_is_passed_over_in_silence() -> None:
    sites = (*FEW[:6], SitePlan("heavy", weight=2.0, subjects_floor=100))
    small_plan(sites=sites, quorum=6)
    with pytest.raises(BractError, match="one voice"):
        small_plan(sites=sites, quorum=6, aggregation=Median(1))


def test_a_plan_without_a_rule_means_the_declared_mean_and_a_rule_comes_back_as_it_was() -> None:
    assert decode(CampaignPlan, plain_plan()).aggregation == DeclaredMean()
    rules = tomllib.loads('[aggregation]\nkind = "centred-clipping"\nradius = 2.0\nbyzantine = 1\n')
    plan = decode(CampaignPlan, plain_plan() | rules)
    assert plan.aggregation == CentredClipping(2.0, 1)
    assert decode(CampaignPlan, encode(plan)) == plan


def plain_plan() -> dict[str, object]:
    """A plan as it was written before there were rules to choose from."""
    return {name: value for name, value in plain(small_plan()).items() if name != "aggregation"}


@pytest.mark.parametrize(
    "wrong", [{"kind": "best"}, {"kind": "median"}, {"kind": "multi-krum", "byzantine": 0}, {"kind": "mean", "f": 1}]
)
def test_a_rule_that_is_none_or_is_not_whole_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BractError) as caught:
        decode(CampaignPlan, plain_plan() | {"aggregation": wrong})
    assert caught.value.code == MALFORMED


def test_an_inspection_needs_sites_enough_and_updates_that_can_be_seen() -> None:
    plan = small_plan(sites=FEW[:6], quorum=LEAST_SITES, inspection="exclude")
    assert decode(CampaignPlan, encode(plan)).inspection == "exclude"
    fewer, hidden = {"quorum": LEAST_SITES - 1}, {"secure": SecureSpec(threshold=4, clip=1.0)}
    for change in (fewer, hidden):
        with pytest.raises(BractError, match="inspection") as caught:
            dataclasses.replace(plan, **change).check()
        assert caught.value.code == MALFORMED
