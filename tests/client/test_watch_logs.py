"""The executor's part in witnessing, over a real line to a real hub: it never keeps a site from a round, a fork does."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from bract.consent import Purpose
from bract.digest import digest
from bract.errors import LOG_FORKED, BractError
from bract.log import exchange
from bract.signing import sign
from bract.update import Clearance
from bract_client import enrol as site_enrol
from bract_client.doctor import examine
from bract_client.executor import watch_logs
from bract_client.home import SiteHome, create
from bract_client.hub import HubClient, connect
from bract_client.registry.models import LOG
from bract_client.site import Site, open_site, schema_revisions
from bract_server import enrol as hub_enrol
from bract_server import home as hub_home
from bract_server.arrays import ArrayStore
from bract_server.hub import open_registry
from bract_server.registry.store import HubRegistry
from bract_server.service import HubServer
from tests.loopback import now

HOUR = timedelta(hours=1)


@dataclass
class Line:
    """A hub that listens, its registry, and an enrolled site with its line to it."""

    registry: HubRegistry
    server: HubServer
    home: SiteHome
    site: Site
    client: HubClient


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    hub = hub_home.create(tmp_path / "hub", name="hub", at=now())
    registry = open_registry(hub)
    store = ArrayStore(hub.arrays, max_bytes=1 << 20, quota_bytes=1 << 20)
    server = HubServer(
        registry,
        store,
        hub="hub",
        listen="127.0.0.1:0",
        key=hub.server_key.read_bytes(),
        certificate=hub.server_file.read_bytes(),
        authority=hub.authority(),
        clock=now,
    )
    server.start()
    settings = hub.settings_file.read_text().replace("wire_port = 8001", f"wire_port = {server.port}")
    hub.settings_file.write_text(settings)
    home = create(tmp_path / "clinic", name="clinic")
    bundle = hub_enrol.approve(hub, registry, site_enrol.request(home, now()), now())
    site_enrol.install(home, bundle, hub.fingerprint(), now())
    site = open_site(home)
    site.registry.rebuild(now())
    with connect(home, now(), patience_s=2.0) as client:
        yield Line(registry, server, home, site, client)
    server.stop(0)


def cosigned(line: Line) -> int:
    with line.site.registry._read() as session:
        return exchange.cosigned(session, LOG, line.site.hub_key)


def test_a_poll_cosigns_and_the_next_one_follows(line: Line) -> None:
    for _ in range(2):
        line.site.registry.rebuild(now())
        watch_logs(line.site, line.client)
        head = line.site.registry.head()
        assert head is not None and cosigned(line) == head.size
    (check,) = [one for one in examine(line.home, lambda: schema_revisions(line.home), now) if one.name == "log"]
    assert check.ok, check


def test_a_hub_that_is_away_keeps_nobody_from_anything(line: Line) -> None:
    line.server.stop(0)
    watch_logs(line.site, line.client)
    line.site.registry.check_forks()
    assert cosigned(line) == 0


def test_a_fork_that_the_hub_sees_ends_rounds_at_both_and_the_doctor_says_so(line: Line) -> None:
    old = line.home.registry_db.with_name("old.db")
    with line.site.registry._engine.connect() as connection:
        connection.connection.driver_connection.execute(f"VACUUM INTO '{old}'")  # type: ignore[union-attr]
    line.site.registry.rebuild(now())
    watch_logs(line.site, line.client)
    line.site.registry._engine.dispose()
    for tail in ("-wal", "-shm"):
        line.home.registry_db.with_name(f"{line.home.registry_db.name}{tail}").unlink(missing_ok=True)
    old.replace(line.home.registry_db)
    line.site = open_site(line.home)
    watch_logs(line.site, line.client)
    with pytest.raises(BractError) as refusal:
        line.site.registry.check_forks()
    assert refusal.value.code == LOG_FORKED
    with pytest.raises(BractError) as refusal:
        line.registry.check_fork("clinic")
    assert refusal.value.code == LOG_FORKED
    place = digest(b"round")
    word = Clearance("clinic", place, 1, "adult", Purpose.PRETRAINING, place, place, 1, now(), now() + HOUR)
    with pytest.raises(BractError) as refusal:
        line.client.clear(sign(word, line.home.signing_key()))
    assert refusal.value.code == LOG_FORKED
    (check,) = [one for one in examine(line.home, lambda: schema_revisions(line.home), now) if one.name == "log"]
    assert not check.ok and LOG_FORKED in check.detail
