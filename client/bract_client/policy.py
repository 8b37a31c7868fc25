"""What this site agrees to run. The steward writes it; a hub's plan can only be tighter.

Rules, one function each; the first that a plan breaks is named in the refusal:
    1. The objective is one that this version has, with a proved privacy bound, and on the site's list.
    2. The purpose is on the site's list.
    3. The noise multiplier is no smaller than the site's.
    4. The clipping bound is no larger.
    5. The sampling rate is no larger.
    6. δ is no larger.
    7. No round counts with fewer sites than the site's least cohort.
    8. Sampling and noise are unforeseeable, unless the data set is one that the site keeps for seeded tests.
How much privacy may be spent (`cap`) is the ledger's to keep, and the least number of subjects is admission's.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

from pydantic import Field

from bract.consent import Purpose
from bract.errors import NO_CERTIFICATE, POLICY, UNKNOWN_OBJECTIVE, BractError
from bract.objectives.certificate import certificate
from bract.objectives.spec import CATALOGUE, PrivacyStructure
from bract.plan import CampaignPlan, Name, SiteKey
from bract.value import strict
from bract.vocabulary.modifiers import UseContext

Objective = Literal[
    "masked-image",
    "masked-table",
    "latent-image",
    "simsiam",
    "byol",
    "public-contrast",
    "bucket-contrast",
    "barlow",
    "vicreg",
    "spectral-contrast",
]
"""Objectives of which it is proved how far one subject moves what a step releases."""

CERTIFIED: tuple[Objective, ...] = get_args(Objective)


@strict
@dataclass(frozen=True)
class DatasetCap:
    """The most ε that one data set may ever spend."""

    name: Name
    epsilon_cap: Annotated[float, Field(gt=0, le=1000)]


@strict
@dataclass(frozen=True)
class SitePolicy:
    """The site's bounds.

    Attributes:
        purposes: what its data may be used for, as far as the site is concerned; consent decides for each record.
        objectives: what may be trained.
        min_noise_multiplier: least σ.
        max_clip: largest L2 bound C of one subject's gradient.
        max_sampling_rate: largest q.
        max_delta: largest δ; it should be well below one over the number of subjects.
        epsilon_cap: the most ε that a data set may ever spend, unless `datasets` says otherwise.
        datasets: caps of single data sets.
        min_subjects: fewer admitted subjects than this do not take part.
        min_cohort: fewer sites than this do not make a round.
        clearance_ttl_s: seconds for which a clearance holds.
        notice_interval_s: seconds for which withdrawal notices are collected, so that their time tells little.
        test_datasets: data sets of made-up people on which seeded tests may run, whose updates anybody can take the noise off
            again; none by default. There is no DP guarantee for them.
        peers: the sites, by their keys, with which this one takes part in secure aggregation; with none listed, any that the
            hub names, and a key that changes is refused.
        use: what the site knows of the use that its data are put to, and answers for; consent under a condition counts only
            if what is known here satisfies it.
    """

    purposes: tuple[Purpose, ...] = (Purpose.PRETRAINING,)
    objectives: tuple[Objective, ...] = CERTIFIED
    min_noise_multiplier: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    max_clip: Annotated[float, Field(gt=0, le=1e6)] = 10.0
    max_sampling_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_delta: Annotated[float, Field(gt=0, lt=0.1)] = 1e-6
    epsilon_cap: Annotated[float, Field(gt=0, le=1000)] = 10.0
    datasets: tuple[DatasetCap, ...] = ()
    min_subjects: Annotated[int, Field(ge=1)] = 100
    min_cohort: Annotated[int, Field(ge=1)] = 2
    clearance_ttl_s: Annotated[float, Field(ge=60, le=86_400)] = 3600.0
    notice_interval_s: Annotated[float, Field(ge=0, le=30 * 86_400)] = 60.0
    test_datasets: tuple[Name, ...] = ()
    peers: tuple[SiteKey, ...] = ()
    use: UseContext = field(default_factory=UseContext)

    def cap(self, dataset: str) -> float:
        """The most ε that this data set may ever spend."""
        return next((d.epsilon_cap for d in self.datasets if d.name == dataset), self.epsilon_cap)


def permit(policy: SitePolicy, plan: CampaignPlan) -> None:
    """Returns if the site would run this plan.

    Raises:
        BractError: `unknown-objective`; `no-certificate`; `policy`, naming the rule, the plan's value and the bound.
    """
    for rule in RULES:
        rule(policy, plan)


def known_objective(_: SitePolicy, plan: CampaignPlan) -> None:
    """The objective is one that this version has."""
    if plan.objective.kind not in CATALOGUE:
        raise BractError(UNKNOWN_OBJECTIVE, "the plan's objective")


def certified_objective(_: SitePolicy, plan: CampaignPlan) -> None:
    """The objective's privacy bound is proved, and the falsifier could not break it in the code that is installed."""
    if plan.structure is PrivacyStructure.NONE:
        raise BractError(NO_CERTIFICATE, plan.objective.kind)
    certificate(plan.objective.kind)


def allowed_objective(policy: SitePolicy, plan: CampaignPlan) -> None:
    """The objective is on the site's list."""
    if plan.objective.kind not in policy.objectives:
        raise BractError(POLICY, f"objectives: {plan.objective.kind} is not on the site's list")


def allowed_purpose(policy: SitePolicy, plan: CampaignPlan) -> None:
    """The purpose is on the site's list."""
    if plan.purpose not in policy.purposes:
        raise BractError(POLICY, f"purposes: {plan.purpose} is not on the site's list")


def enough_noise(policy: SitePolicy, plan: CampaignPlan) -> None:
    """σ is no smaller than the site's."""
    _at_least("min_noise_multiplier", plan.privacy.noise_multiplier, policy.min_noise_multiplier)


def bounded_clip(policy: SitePolicy, plan: CampaignPlan) -> None:
    """C is no larger than the site's."""
    _at_most("max_clip", plan.privacy.clip, policy.max_clip)


def bounded_sampling(policy: SitePolicy, plan: CampaignPlan) -> None:
    """Q is no larger than the site's."""
    _at_most("max_sampling_rate", plan.privacy.sampling_rate, policy.max_sampling_rate)


def bounded_delta(policy: SitePolicy, plan: CampaignPlan) -> None:
    """δ is no larger than the site's."""
    _at_most("max_delta", plan.privacy.delta, policy.max_delta)


def enough_sites(policy: SitePolicy, plan: CampaignPlan) -> None:
    """No round counts with fewer sites than the least cohort."""
    _at_least("min_cohort", plan.quorum, policy.min_cohort)


def unforeseeable(policy: SitePolicy, plan: CampaignPlan) -> None:
    """Nobody can foresee the draws, unless the data set is kept for seeded tests."""
    if plan.seeded_test is not None and plan.dataset not in policy.test_datasets:
        raise BractError(
            POLICY, f"test_datasets: a seeded test has no DP guarantee, and {plan.dataset} is not on the list"
        )


RULES = (
    known_objective,
    certified_objective,
    allowed_objective,
    allowed_purpose,
    enough_noise,
    bounded_clip,
    bounded_sampling,
    bounded_delta,
    enough_sites,
    unforeseeable,
)


def _at_least(rule: str, asked: float, bound: float) -> None:
    if not asked >= bound:
        raise BractError(POLICY, f"{rule}: the plan has {asked:g}, the site asks for at least {bound:g}")


def _at_most(rule: str, asked: float, bound: float) -> None:
    if not asked <= bound:
        raise BractError(POLICY, f"{rule}: the plan has {asked:g}, the site allows at most {bound:g}")
