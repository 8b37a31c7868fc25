"""A hub's folder, and a site's way into it with the real registry."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bract.digest import Digest
from bract.enrolment import EnrolRequest, open_request
from bract.errors import (
    ALREADY_EXISTS,
    CERTIFICATE,
    FINGERPRINT,
    KEY_PERMISSIONS,
    MALFORMED,
    NOT_ENROLLED,
    NOT_INITIALISED,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.identity import certificate_fingerprint, check_issued, load_certificate
from bract.signing import sign
from bract_client import enrol as site_enrol
from bract_client import home as site_home
from bract_server import enrol as hub_enrol
from bract_server.home import HubHome, create, open_home
from bract_server.hub import open_registry
from bract_server.settings import HubSettings, read_settings, settings_toml

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> HubHome:
    return create(tmp_path_factory.mktemp("hubs") / "hub", name="hub", host="hub.example", at=AT)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(BractError) as refused:
        call()
    return refused.value.code


def test_a_new_hub_has_private_keys_and_a_certificate_of_its_own_authority(hub: HubHome) -> None:
    assert {path.stat().st_mode & 0o777 for path in (*hub.private_files, hub.operator_token)} == {0o600}
    check_issued(load_certificate(hub.server_file.read_bytes()), hub.authority(), AT)
    assert open_home(hub.root) == hub
    assert hub.settings() == HubSettings("hub", host="hub.example", bind="0.0.0.0")  # noqa: S104 - asked of, not bound


def test_the_hub_keeps_only_the_digest_of_the_operators_token(hub: HubHome) -> None:
    token = hub.operator_token.read_text().strip()
    assert json.loads(hub.operators.read_bytes()) == {"operator": hashlib.sha256(token.encode()).hexdigest()}
    assert len(token) >= 43
    for path in hub.root.rglob("*"):
        if path.is_file() and path != hub.operator_token:
            assert token.encode() not in path.read_bytes()


def test_a_hub_is_never_made_over_something(hub: HubHome, tmp_path: Path) -> None:
    before = hub.fingerprint()
    assert code(lambda: create(hub.root, name="hub", at=AT)) == ALREADY_EXISTS
    assert hub.fingerprint() == before
    assert code(lambda: create(tmp_path / "x", name="hub", host="no host", at=AT)) == MALFORMED
    assert code(lambda: create(tmp_path / "x", name="hub", wire_port=0, at=AT)) == MALFORMED
    assert code(lambda: open_home(tmp_path / "x")) == NOT_INITIALISED
    assert list(tmp_path.iterdir()) == []


def test_settings_come_back_as_they_were_written(tmp_path: Path) -> None:
    for settings in (HubSettings("hub"), HubSettings("hub", "::1", "::1", 1, 2, database="postgresql://h/d")):
        (tmp_path / "s").write_bytes(settings_toml(settings))
        assert read_settings(tmp_path / "s") == settings
    assert HubSettings("hub", host="::1").wire == "[::1]:8001"
    (tmp_path / "s").write_text('name = "hub"\nwireport = 3')
    assert code(lambda: read_settings(tmp_path / "s")) == MALFORMED


def test_a_site_enrols_and_its_certificate_is_known(hub: HubHome, tmp_path: Path) -> None:
    registry, home = open_registry(hub), site_home.create(tmp_path / "clinic", name="clinic")
    bundle = hub_enrol.approve(hub, registry, site_enrol.request(home, AT), AT)
    opened = site_enrol.install(home, bundle, hub.fingerprint(), AT)
    assert opened == home.bundle()
    assert (opened.fleet, opened.wire) == ("hub.example:8000", "hub.example:8001")
    certificate = load_certificate(home.certificate_file.read_bytes())
    assert registry.site_of_certificate(certificate_fingerprint(certificate)) == "clinic"


def test_the_same_keys_again_renew_and_a_lost_bundle_shuts_nobody_out(hub: HubHome, tmp_path: Path) -> None:
    registry, home = open_registry(hub), site_home.create(tmp_path / "bank", name="bank")
    later = AT + timedelta(days=300)
    for at in (AT, later):
        bundle = hub_enrol.approve(hub, registry, site_enrol.request(home, at), at)
        first = home.certificate_file.read_bytes() if home.certificate_file.exists() else b""
        site_enrol.install(home, bundle, hub.fingerprint(), at)
    new = load_certificate(home.certificate_file.read_bytes())
    assert new.not_valid_after_utc == later + timedelta(days=365)
    assert registry.site_of_certificate(certificate_fingerprint(new)) == "bank"
    old = certificate_fingerprint(load_certificate(first))
    assert registry.site_of_certificate(old) == "bank", "the old certificate is of the same keys, until it expires"


def test_nobody_takes_a_sites_name_and_a_revoked_site_stays_out(hub: HubHome, tmp_path: Path) -> None:
    registry, home = open_registry(hub), site_home.create(tmp_path / "plant", name="plant")
    hub_enrol.approve(hub, registry, site_enrol.request(home, AT), AT)
    thief = site_home.create(tmp_path / "thief", name="plant")
    assert code(lambda: hub_enrol.approve(hub, registry, site_enrol.request(thief, AT), AT)) == ALREADY_EXISTS
    registry.revoke_site("plant", AT)
    assert code(lambda: hub_enrol.approve(hub, registry, site_enrol.request(home, AT), AT)) == UNKNOWN_SITE


def test_a_request_with_another_sites_name_written_in_is_refused(hub: HubHome, tmp_path: Path) -> None:
    home = site_home.create(tmp_path / "mill", name="mill")
    honest = open_request(site_enrol.request(home, AT))
    lying: EnrolRequest = replace(honest, site="clinic")
    forged = sign(lying, home.signing_key()).to_json()
    assert code(lambda: hub_enrol.approve(hub, open_registry(hub), forged, AT)) == UNTRUSTED


def test_a_bundle_that_is_refused_installs_nothing(hub: HubHome, tmp_path: Path) -> None:
    registry = open_registry(hub)
    home, other = (site_home.create(tmp_path / name, name=name) for name in ("farm", "port"))
    bundle = hub_enrol.approve(hub, registry, site_enrol.request(home, AT), AT)
    wrong = Digest("sha256:" + "0" * 64)
    assert code(lambda: site_enrol.install(home, bundle, wrong, AT)) == FINGERPRINT
    assert code(lambda: site_enrol.install(other, bundle, hub.fingerprint(), AT)) == CERTIFICATE
    assert code(lambda: site_enrol.install(home, bundle[:-9], hub.fingerprint(), AT)) == MALFORMED
    assert code(home.bundle) == code(other.bundle) == NOT_ENROLLED
    assert not home.certificate_file.exists()


def test_an_authority_key_that_others_can_read_signs_nothing(tmp_path: Path) -> None:
    mine = create(tmp_path / "hub", name="hub", at=AT)
    home = site_home.create(tmp_path / "dock", name="dock")
    registry, asked = open_registry(mine), site_enrol.request(home, AT)
    mine.authority_key.chmod(0o644)
    assert code(lambda: hub_enrol.approve(mine, registry, asked, AT)) == KEY_PERMISSIONS
    assert registry.sites() == ()
