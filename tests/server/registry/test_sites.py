"""Who is enrolled, with which keys, and until when."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select

from bract.errors import ALREADY_EXISTS, MALFORMED, UNKNOWN_SITE, BractError
from bract.signing import key_text
from bract_server.registry.models import LOG
from tests.server.registry.world import AT, SITES, World, named

LATER = AT + timedelta(days=1)


def _kinds(world: World) -> list[str]:
    with world.engine.connect() as connection:
        return list(connection.scalars(select(LOG.entry.c.kind).order_by(LOG.entry.c.seq)))


def test_a_site_comes_back_as_it_was_enrolled(world: World) -> None:
    assert tuple(site.name for site in world.registry.sites()) == SITES
    site = world.registry.site("birch")
    assert site.verify_key == key_text(world.keys["birch"].public_key())
    assert (site.node_fingerprint, site.node_public_pem) == (named("node birch"), "PEM of birch")
    assert (site.registered_at, site.revoked_at, site.seen_at, site.subjects_floor) == (AT, None, None, 1000)
    assert world.registry.site_of_certificate(named("certificate birch")) == "birch"


def test_the_same_keys_again_renew_the_certificate(world: World) -> None:
    world.enrol("alder", certificate_fingerprint=named("second"), at=LATER)
    assert world.registry.site("alder").certificate_fingerprint == named("second")
    assert world.registry.site("alder").registered_at == AT
    assert world.registry.site_of_certificate(named("second")) == "alder"
    assert world.registry.site_of_certificate(named("certificate alder")) == "alder", "until it expires"
    assert _kinds(world) == ["site.add", "site.add", "site.add", "site.renew"]


def test_a_taken_name_is_refused(world: World) -> None:
    for changes in (
        {"verify_key": key_text(Ed25519PrivateKey.generate().public_key())},
        {"node_fingerprint": named("another node")},
        {"certificate_fingerprint": named("certificate birch")},
    ):
        with pytest.raises(BractError) as refusal:
            world.enrol("alder", **changes)
        assert refusal.value.code == ALREADY_EXISTS, changes
    assert world.registry.site("alder").certificate_fingerprint == named("certificate alder")


def test_taken_keys_are_refused(world: World) -> None:
    for taken in ("verify_key", "node_fingerprint", "certificate_fingerprint"):
        with pytest.raises(BractError) as refusal:
            world.enrol("dogwood", **{taken: getattr(world.registry.site("alder"), taken)})
        assert refusal.value.code == ALREADY_EXISTS, taken
    assert len(world.registry.sites()) == 3


def test_a_bad_key_is_refused(world: World) -> None:
    with pytest.raises(BractError) as refusal:
        world.enrol("dogwood", verify_key="AAAA")
    assert refusal.value.code == MALFORMED


def test_a_revoked_site_is_unknown_and_stays_so(world: World) -> None:
    world.registry.revoke_site("alder", LATER)
    world.registry.revoke_site("alder", LATER + timedelta(days=1))
    assert world.registry.site("alder").revoked_at == LATER
    for attempt in (
        lambda: world.registry.site_of_certificate(named("certificate alder")),
        lambda: world.enrol("alder", certificate_fingerprint=named("second")),
    ):
        with pytest.raises(BractError) as refusal:
            attempt()
        assert refusal.value.code == UNKNOWN_SITE
    assert _kinds(world).count("site.revoke") == 1


def test_an_unknown_site_is_told(world: World) -> None:
    for attempt in (
        lambda: world.registry.site("nobody"),
        lambda: world.registry.revoke_site("nobody", AT),
        lambda: world.registry.site_of_certificate(named("nothing")),
    ):
        with pytest.raises(BractError) as refusal:
            attempt()
        assert refusal.value.code == UNKNOWN_SITE


def test_a_call_is_remembered_without_a_log_entry(world: World) -> None:
    before = _kinds(world)
    world.registry.seen("alder", AT)
    world.registry.seen("alder", AT + timedelta(seconds=1))
    assert world.registry.site("alder").seen_at == AT
    world.registry.seen("alder", LATER)
    assert world.registry.site("alder").seen_at == LATER
    assert _kinds(world) == before
