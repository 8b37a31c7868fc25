"""What one person's rounds cost: those that held the person, of every data set, as reserved, and no others."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from bract.plan import CampaignPlan
from bract.privacy.accounting import epsilon
from bract.privacy.spec import Mechanism, PrivacySpec
from bract.retention import RetentionRule
from bract.value import digest_value
from bract_client.registry.questions import Spend, spend
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import TableLocation
from tests.client.site_world import HOUR, PRETRAINING, T0, add_table, campaign, open_registry, persons, write_table

ADULT = campaign()
CENSUS = campaign(name="other", dataset="census", privacy=PrivacySpec(1.0, 2.0, 0.2, 5, 1e-7))
A, B = ADULT.privacy.mechanism, CENSUS.privacy.mechanism
DAY = timedelta(days=1)


@pytest.fixture
def registry(database_url: str, tmp_path: Path) -> Iterator[SiteRegistry]:
    """P-0 to P-9 are in `adult`; of them P-0 to P-4 are in `census` too, which has a smaller δ and cap."""
    engine: Engine
    engine, made = open_registry(database_url)
    add_table(made, write_table(tmp_path / "a.parquet", persons(10)), "adult", cap=8.0)
    location = TableLocation("table", str(write_table(tmp_path / "b.parquet", persons(5))), "adult")
    made.add_dataset(
        "census", location, retention=RetentionRule(), subjects_floor=1000, epsilon_cap=3.0, delta=1e-7, at=T0
    )
    for name in ("adult", "census"):
        made.ingest(name, T0)
    yield made
    engine.dispose()


def clear(registry: SiteRegistry, plan: CampaignPlan, number: int, hours: int) -> None:
    at = T0 + hours * HOUR
    snapshot = registry.freeze(plan.dataset, PRETRAINING, at)
    registry.clearance(plan, number, snapshot, DAY, 1, at)


def hold(registry: SiteRegistry, plan: CampaignPlan, number: int, hours: int) -> None:
    """A round as far as the site's books go: cleared and reserved."""
    clear(registry, plan, number, hours)
    at = T0 + hours * HOUR
    registry.reserve(digest_value(plan), number, plan.dataset, plan.privacy.mechanism, at, HOUR)


def spent(registry: SiteRegistry, person: str) -> Spend:
    return spend(registry.parts(person), registry.accounts())


def test_who_is_in_two_data_sets_has_spent_both(registry: SiteRegistry) -> None:
    hold(registry, ADULT, 1, 1)
    hold(registry, CENSUS, 1, 2)
    hold(registry, ADULT, 2, 3)
    both, one = spent(registry, "P-0"), spent(registry, "P-7")
    assert both == Spend((A, B, A), 1e-7, 3.0), "at the least δ, under the least cap"
    assert one == Spend((A, A), 1e-6, 8.0)
    assert epsilon(both.mechanisms, 1e-6) > epsilon(one.mechanisms, 1e-6)


def test_who_withdrew_before_a_round_has_not_that_round(registry: SiteRegistry) -> None:
    hold(registry, ADULT, 1, 1)
    registry.withdraw("P-3", T0 + 2 * HOUR)
    hold(registry, ADULT, 2, 3)
    hold(registry, CENSUS, 1, 4)
    assert spent(registry, "P-3") == Spend((A,), 1e-6, 8.0), "what is spent stays spent"
    assert spent(registry, "P-4").mechanisms == (A, A, B)


def test_a_round_that_failed_or_expired_is_spent(registry: SiteRegistry) -> None:
    hold(registry, ADULT, 1, 1)
    registry.expire_reservations(T0 + DAY)
    assert spent(registry, "P-0").mechanisms == (A,)


def test_fewer_steps_than_reserved_do_not_make_it_cheaper(registry: SiteRegistry) -> None:
    hold(registry, ADULT, 1, 1)
    registry.settle(digest_value(ADULT), 1, Mechanism(A.noise_multiplier, A.sampling_rate, 1), T0 + HOUR)
    assert spent(registry, "P-0").mechanisms == (A,)


def test_a_round_that_was_cleared_twice_counts_once(registry: SiteRegistry) -> None:
    hold(registry, ADULT, 1, 1)
    hold(registry, ADULT, 1, 2)
    assert len(registry.parts("P-0")) == 2
    assert spent(registry, "P-0").mechanisms == (A,)


def test_a_round_that_reserved_nothing_cost_nothing(registry: SiteRegistry) -> None:
    clear(registry, ADULT, 1, 1)
    assert [(part.held, part.reserved) for part in registry.parts("P-0")] == [(True, None)]
    assert spent(registry, "P-0") == Spend((), None, None)


def test_a_person_s_spend_is_that_of_the_data_set_for_who_was_in_all_its_rounds(registry: SiteRegistry) -> None:
    for number in range(1, 4):
        hold(registry, ADULT, number, number)
    assert spent(registry, "P-9").mechanisms == registry.spent("adult")
