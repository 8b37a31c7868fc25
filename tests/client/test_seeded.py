"""A seeded test repeats itself to the bit, runs only where a site keeps data for it, and passes for nothing better."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from bract.digest import digest
from bract.errors import POLICY, QUORUM, BractError
from bract.signing import parse_envelope, sign
from bract.update import Contribution
from bract.value import decode
from bract_client import pretrain
from bract_client.policy import SitePolicy, permit
from bract_server.progress import progress, render
from tests.federation import Federation, Place, small_plan

Payload = dict[str, bytes | str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return Federation(tmp_path_factory.mktemp("seeded"), epsilon_cap=900.0)


@contextmanager
def set_aside(world: Federation) -> Iterator[None]:
    """While this holds, the sites keep their data set for seeded tests."""
    before = {name: place.site for name, place in world.places.items()}
    for place in world.places.values():
        place.site = dataclasses.replace(
            place.site, policy=dataclasses.replace(place.site.policy, test_datasets=("adult",))
        )
    try:
        yield
    finally:
        for name, place in world.places.items():
            place.site = before[name]


def newest(world: Federation, name: str) -> str:
    return str(world.registry.latest_version(world.registry.campaign(name).digest).value.arrays)


def test_what_is_not_seeded_is_never_repeated(world: Federation) -> None:
    for name in ("fresh", "fresh-again"):
        world.run(small_plan(name=name, grace_s=5.0, rounds=1))
    assert newest(world, "fresh") != newest(world, "fresh-again")
    assert {place.site.registry.foreseeable() for place in world.places.values()} == {frozenset()}


def test_a_site_runs_no_seeded_test_on_data_that_it_did_not_set_aside_for_them(world: Federation) -> None:
    before = world.places["north"].site.registry.spent("adult")
    with pytest.raises(BractError) as refused:
        world.run(small_plan(name="uninvited", seeded_test=7))
    assert refused.value.code == QUORUM
    assert {code for report in world.reports("uninvited") for code in report.missing.values()} == {POLICY}
    assert world.places["north"].site.registry.spent("adult") == before, "nothing was reserved"
    with pytest.raises(BractError, match="test_datasets"):
        permit(SitePolicy(test_datasets=("digits",)), small_plan(seeded_test=7))


def test_two_campaigns_of_one_seed_end_in_the_same_bits_and_say_that_they_guarantee_nothing(world: Federation) -> None:
    with set_aside(world):
        for name, seed in (("one", 7), ("again", 7), ("other", 8)):
            world.run(small_plan(name=name, seeded_test=seed, grace_s=5.0))
    assert newest(world, "one") == newest(world, "again") != newest(world, "other")
    assert "SEEDED TEST: No DP guarantee" in str(render(progress(world.registry, "one")).renderables[0])
    assert "No DP guarantee" not in str(render(progress(world.registry, "fresh")).renderables[0])
    assert {place.site.registry.foreseeable() for place in world.places.values()} == {frozenset({"adult"})}


@pytest.mark.parametrize("seed", [None, 7])
def test_an_update_says_truly_what_its_randomness_was_or_is_refused(world: Federation, seed: int | None) -> None:
    coast, name = world.places["coast"], f"turned-{seed is None}".lower()
    coast.tamper = turned(coast)
    with set_aside(world):
        world.run(small_plan(name=name, seeded_test=seed, rounds=1, grace_s=5.0))
    coast.tamper = None
    (report,) = world.reports(name)
    assert report.participants == ("north", "south") and report.missing == {"coast": POLICY}


def turned(place: Place) -> Callable[[Payload], Payload]:
    """A site that says the opposite of what is true of its randomness."""

    def tamper(reply: Payload) -> Payload:
        sealed = reply["contribution"]
        assert isinstance(sealed, bytes)
        value = decode(Contribution, parse_envelope(sealed).payload)
        forged = dataclasses.replace(value, private=not value.private)
        return {"contribution": sign(forged, place.home.signing_key()).to_json()}

    return tamper


def test_the_seed_of_a_round_depends_on_the_plans_seed_the_start_and_the_site() -> None:
    seeds = {
        pretrain.test_seed(seed, digest(start), site)
        for seed in (1, 2)
        for start in (b"a", b"b")
        for site in ("north", "south")
    }
    assert len(seeds) == 8
