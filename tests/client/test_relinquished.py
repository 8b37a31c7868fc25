"""What a site gave back reaches its hub over the wire, once; the next round's proposal is what gives it back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.errors import NO_RESERVATION, STATE, UNREACHABLE, BractError
from bract.plan import Proposal
from bract.signing import Envelope, sign
from bract.value import digest_value
from bract_client.executor import send_relinquished
from bract_client.hub import HubClient, connect
from bract_client.policy import SitePolicy
from bract_client.site import Site
from tests.client.site_world import HOUR, T0, add_table, campaign, open_registry, persons, write_table
from tests.loopback import Loopback, loopback, now

HUB = Ed25519PrivateKey.generate()
PLAN = campaign(rounds=9)
C = digest_value(PLAN)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine, registry = open_registry(f"sqlite:///{tmp_path / 'r.db'}")
    add_table(registry, write_table(tmp_path / "t.parquet", persons(30)))
    registry.ingest("adult", T0)
    policy = SitePolicy(min_subjects=1, min_cohort=1)
    yield Site("ward", HUB.public_key(), policy, registry)
    registry.check()
    engine.dispose()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[Loopback, HubClient]]:
    with loopback(tmp_path / "hub", "ward") as running, connect(running.sites["ward"], now(), patience_s=1.0) as client:
        yield running, client


def propose(site: Site, number: int) -> None:
    asked = sign(Proposal(C, number, T0), HUB)
    site.answer(asked, sign(PLAN, HUB), T0 + number * HOUR / 60)


def test_a_round_that_was_not_opened_for_the_site_is_given_back_at_the_next_proposal(site: Site) -> None:
    propose(site, 1)
    propose(site, 1)
    assert (len(site.registry.spent("adult")), site.registry.relinquished()) == (1, ())
    propose(site, 2)
    assert len(site.registry.spent("adult")) == len(site.registry.relinquished()) == 1
    site.registry.begin_training(C, 2, T0 + HOUR / 10)
    propose(site, 3)
    assert len(site.registry.spent("adult")) == 2, "what was begun stays spent"
    with pytest.raises(BractError) as refused:
        site.registry.begin_training(C, 1, T0 + HOUR / 10)
    assert refused.value.code == NO_RESERVATION


def test_the_hub_hears_of_it_once(site: Site, hub: tuple[Loopback, HubClient]) -> None:
    running, client = hub
    propose(site, 1)
    said = site.registry.relinquish(C, 1, T0 + HOUR / 10)
    send_relinquished(site, client)
    send_relinquished(site, client)
    assert running.book.taken == [("relinquish", "ward", said)]


class Line:
    """A line to a hub that answers with a code."""

    def __init__(self, code: str) -> None:
        self.code, self.heard = code, list[Envelope]()

    def relinquish(self, statement: Envelope) -> None:
        self.heard.append(statement)
        raise BractError(self.code)


@pytest.mark.parametrize(("code", "times"), [(STATE, 1), (NO_RESERVATION, 1), (UNREACHABLE, 2)])
def test_a_hub_that_knows_better_has_answered_and_one_that_is_away_has_not(site: Site, code: str, times: int) -> None:
    propose(site, 1)
    site.registry.relinquish(C, 1, T0 + HOUR / 10)
    line = Line(code)
    for _ in range(2):
        try:
            send_relinquished(site, line)  # type: ignore[arg-type]  # all that is asked of the line
        except BractError as error:
            assert error.code == UNREACHABLE
    assert len(line.heard) == times
