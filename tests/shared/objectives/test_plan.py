"""A campaign's plan is checked for the fit of encoder, objective and sampling."""

from typing import Any

import pytest

from bract.consent import Purpose
from bract.errors import MALFORMED, BractError
from bract.objectives.spec import CATALOGUE, PrivacyStructure, SimSiamSpec, ViewsSpec
from bract.plan import CampaignPlan, SitePlan
from bract.privacy.spec import PrivacySpec
from bract.value import decode, encode, plain
from tests.shared.objectives.specimens import CASES, ENCODERS, SPECS


def plan(kind: str, encoder: str, **privacy: Any) -> CampaignPlan:
    return CampaignPlan(
        name="trial",
        purpose=Purpose.PRETRAINING,
        dataset="adult",
        encoder=ENCODERS[encoder],
        objective=SPECS[kind],
        privacy=PrivacySpec(clip=1.0, noise_multiplier=1.0, sampling_rate=0.1, steps=10, delta=1e-6, **privacy),
        sites=(SitePlan("a"), SitePlan("b")),
        rounds=5,
        quorum=2,
    )


@pytest.mark.parametrize(("kind", "encoder"), CASES)
def test_every_objective_with_its_encoder_is_a_plan_that_travels(kind: str, encoder: str) -> None:
    whole = plan(kind, encoder).check()
    assert decode(CampaignPlan, encode(whole)) == whole
    assert whole.structure is CATALOGUE[kind].structure


@pytest.mark.parametrize(
    ("kind", "encoder"), [(k, e) for k in CATALOGUE for e in ENCODERS if e not in CATALOGUE[k].encoders]
)
def test_an_objective_on_an_encoder_that_it_does_not_fit_is_refused(kind: str, encoder: str) -> None:
    with pytest.raises(BractError) as caught:
        plan(kind, encoder).check()
    assert (caught.value.code, caught.value.detail.split(":")[0]) == (MALFORMED, "objective")


@pytest.mark.parametrize("field", ["records_per_subject", "views_per_record"])
def test_a_group_s_member_is_one_record(field: str) -> None:
    many = {field: 2}
    with pytest.raises(BractError) as caught:
        plan("bucket-contrast", "table", **many).check()
    assert (caught.value.code, caught.value.detail.split(":")[0]) == (MALFORMED, f"privacy.{field}")
    for kind, encoder in CASES:
        if CATALOGUE[kind].structure is not PrivacyStructure.PER_GROUP:
            plan(kind, encoder, **many).check()


def test_a_typo_in_how_views_are_made_is_named() -> None:
    values = {"kind": "simsiam", "views": {"flipp": True}}
    whole = plan("simsiam", "vit")
    with pytest.raises(BractError) as caught:
        decode(CampaignPlan, {**plain(whole), "objective": values})
    assert "flipp" in str(caught.value.detail)
    flipped = decode(CampaignPlan, {**plain(whole), "objective": {"kind": "simsiam", "views": {"flip": True}}})
    assert flipped.objective == SimSiamSpec("simsiam", views=ViewsSpec(flip=True))
