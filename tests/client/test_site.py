"""What a site answers when a round that it trained before is asked for again."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import Digest, digest
from bract.errors import STALE_CLEARANCE, BractError
from bract.plan import CampaignPlan, Place
from bract.signing import Envelope, sign
from bract.update import Contribution
from bract.value import digest_value
from bract_client.policy import SitePolicy
from bract_client.registry.store import SiteRegistry
from bract_client.site import Site
from tests.client.site_world import (
    HOUR,
    SIGNING,
    T0,
    add_table,
    campaign,
    open_registry,
    persons,
    round_of,
    write_table,
)

HUB = Ed25519PrivateKey.from_private_bytes(b"hub key of a site's own tests...")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine, registry = open_registry(f"sqlite:///{tmp_path / 'registry.db'}")
    add_table(registry, write_table(tmp_path / "t.parquet", persons(4)))
    registry.ingest("adult", T0)
    yield Site("ward", HUB.public_key(), SitePolicy(min_subjects=1, min_cohort=1), registry)
    engine.dispose()


def trained(registry: SiteRegistry, plan: CampaignPlan, at: datetime) -> Envelope:
    """A round that was cleared, reserved, begun and kept; its signed plan."""
    name = digest_value(plan)
    snapshot = registry.freeze(plan.dataset, plan.purpose, at)
    clearance = registry.clearance(plan, 1, snapshot, timedelta(days=1), 1, at).name
    reservation = registry.reserve(name, 1, plan.dataset, plan.privacy.mechanism, at, timedelta(days=1)).name
    asked = replace(round_of(plan, 1, clearance, at), cohort=(Place("ward", clearance, reservation),))
    opened = sign(replace(asked, deadline=at + 12 * HOUR), HUB)
    registry.begin_training(name, 1, at + HOUR)
    update = Contribution("ward", opened.name, clearance, reservation, plan.privacy.mechanism, digest(b"update"), 1)
    registry.keep_contribution(name, 1, sign(update, SIGNING), at + HOUR)
    return opened


def test_a_kept_contribution_is_not_sent_again_once_somebody_in_it_withdrew(site: Site) -> None:
    plan = replace(campaign(), deadline_s=12 * 3600.0)
    opened = trained(site.registry, plan, T0)
    payload: dict[str, bytes | str] = {"plan": opened.to_json(), "campaign": sign(plan, HUB).to_json()}
    assert site.task(payload, (), T0 + 2 * HOUR).sealed.name == opened.name
    site.registry.withdraw("P-1", T0 + 3 * HOUR)
    with pytest.raises(BractError) as refusal:
        site.task(payload, (), T0 + 4 * HOUR)
    assert refusal.value.code == STALE_CLEARANCE
    assert isinstance(site.registry.trained(Digest(digest_value(plan)), 1), Envelope), "the record of it stays"
