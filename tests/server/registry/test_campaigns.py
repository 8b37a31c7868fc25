"""A campaign is what was signed, and moves only along its states."""

from itertools import product

import pytest

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, STATE, UNKNOWN_CAMPAIGN, UNKNOWN_SITE, BractError
from bract.plan import CampaignPlan, SitePlan
from bract.receipt import EncoderVersion
from bract.signing import parse_envelope, unseal
from bract.value import digest_value
from bract_server.lifecycle import CAMPAIGN
from tests.server.registry.world import ARRAYS_BYTES, AT, World, campaign_plan, named


def _first(plan: CampaignPlan) -> EncoderVersion:
    return EncoderVersion(digest_value(plan), 0, named("arrays"), ARRAYS_BYTES, None, ())


def test_a_campaign_is_the_plan_that_the_hub_signed(world: World) -> None:
    plan = campaign_plan()
    digest = world.registry.create_campaign(plan, _first(plan), AT)
    campaign = world.registry.campaign("heart")
    assert digest == campaign.digest == digest_value(plan)
    assert unseal(CampaignPlan, parse_envelope(campaign.envelope), world.registry.verify_key) == campaign.plan == plan
    assert (campaign.state, campaign.reason, campaign.created_at) == ("created", "", AT)
    assert world.registry.campaign_by_digest(digest) == campaign
    assert world.registry.campaigns() == (campaign,)
    newest = world.registry.latest_version(digest)
    assert (newest.value, newest.server_state) == (_first(plan), None)
    assert world.registry.version(newest.digest) == newest
    assert world.registry.versions() == (newest,)
    assert world.registry.keeps(named("arrays"))


def test_a_name_is_taken_once(world: World, campaign: Digest) -> None:
    plan = campaign_plan(seed=7)
    with pytest.raises(BractError) as refusal:
        world.registry.create_campaign(plan, _first(plan), AT)
    assert refusal.value.code == ALREADY_EXISTS
    assert [c.digest for c in world.registry.campaigns()] == [campaign]


def test_an_unknown_or_revoked_site_cannot_be_named(world: World) -> None:
    world.registry.revoke_site("cedar", AT)
    for plan in (campaign_plan(), campaign_plan(sites=(SitePlan("alder"), SitePlan("elsewhere")))):
        with pytest.raises(BractError) as refusal:
            world.registry.create_campaign(plan, _first(plan), AT)
        assert refusal.value.code == UNKNOWN_SITE
    assert world.registry.campaigns() == ()
    assert world.registry.versions() == ()


def test_only_a_first_version_starts_a_campaign(world: World) -> None:
    plan = digest_value(campaign_plan())
    for first in (
        EncoderVersion(named("another plan"), 0, named("a"), 1, None, ()),
        EncoderVersion(plan, 1, named("a"), 1, None, ()),
        EncoderVersion(plan, 0, named("a"), 1, None, (named("c"),)),
    ):
        with pytest.raises(BractError) as refusal:
            world.registry.create_campaign(campaign_plan(), first, AT)
        assert refusal.value.code == MALFORMED


def test_states_follow_the_table(world: World) -> None:
    ways: dict[str, list[str]] = {"created": [], "running": ["running"]}
    for before, after in product(CAMPAIGN.table, CAMPAIGN.table):
        name = f"{before}-{after}"
        plan = campaign_plan(name)
        world.registry.create_campaign(plan, _first(plan), AT)
        for state in ways.get(before, ["running", before]):
            world.registry.set_state(name, state, "", AT)
        if after in CAMPAIGN.table[before].values():
            world.registry.set_state(name, after, "why", AT)
            assert (world.registry.campaign(name).state, world.registry.campaign(name).reason) == (after, "why")
        else:
            with pytest.raises(BractError) as refusal:
                world.registry.set_state(name, after, "why", AT)
            assert refusal.value.code == STATE
            assert world.registry.campaign(name).state == before


def test_an_unknown_campaign_is_told(world: World) -> None:
    nothing = named("nothing")
    for attempt in (
        lambda: world.registry.campaign("none"),
        lambda: world.registry.campaign_by_digest(nothing),
        lambda: world.registry.set_state("none", "running", "", AT),
        lambda: world.registry.propose(nothing, AT),
        lambda: world.registry.latest_version(nothing),
        lambda: world.registry.rounds(nothing),
        lambda: world.registry.answers(nothing, 1, AT),
        lambda: world.registry.contributions(nothing, 1),
    ):
        with pytest.raises(BractError) as refusal:
            attempt()
        assert refusal.value.code == UNKNOWN_CAMPAIGN
