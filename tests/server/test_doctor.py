"""Both doctors find what is wrong, say how to mend it, and never die of it."""

import shutil
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from bract.checks import Check
from bract_client import doctor as site_doctor
from bract_client import home as site_home
from bract_server import doctor as hub_doctor
from bract_server.home import HubHome, create
from tests.loopback import loopback, now


def head() -> tuple[str | None, str | None]:
    return "1", "1"


def behind() -> tuple[str | None, str | None]:
    return None, "1"


def broken() -> tuple[str | None, str | None]:
    raise ConnectionError


def wrong(checks: tuple[Check, ...]) -> set[str]:
    assert all(check.remedy for check in checks if not check.ok)
    return {check.name for check in checks if not check.ok}


def free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        return one.getsockname()[1], two.getsockname()[1]


@pytest.fixture
def hub(tmp_path: Path) -> HubHome:
    fleet, wire = free_ports()
    return create(tmp_path / "hub", name="hub", fleet_port=fleet, wire_port=wire, at=now())


def test_a_healthy_hub_that_does_not_run(hub: HubHome) -> None:
    assert wrong(hub_doctor.examine(hub, head, now())) == set()
    assert wrong(hub_doctor.examine(hub, head, now(), running=True)) == {"fleet port", "wire port"}


def test_every_illness_of_a_hub_is_found(hub: HubHome) -> None:
    assert wrong(hub_doctor.examine(hub, behind, now())) == {"database"}
    assert wrong(hub_doctor.examine(hub, broken, now())) == {"database"}
    assert wrong(hub_doctor.examine(hub, head, now() + timedelta(days=340))) == {"certificate"}
    assert wrong(hub_doctor.examine(hub, head, now() + timedelta(days=4000))) == {"certificate", "authority"}
    hub.server_key.chmod(0o640)
    assert wrong(hub_doctor.examine(hub, head, now())) == {"keys"}
    hub.server_file.write_text("junk")
    hub.settings_file.write_text("junk")
    seen = wrong(hub_doctor.examine(hub, head, now()))
    assert seen == {"keys", "settings", "certificate", "fleet port", "wire port"}
    shutil.rmtree(hub.root)
    assert {"keys", "settings", "certificate", "disk"} <= wrong(hub_doctor.examine(hub, head, now()))


def test_a_port_that_another_program_holds_is_told_from_the_hubs_own(tmp_path: Path) -> None:
    with loopback(tmp_path) as running, socket.create_server(("127.0.0.1", 0)) as other:
        text = running.hub.settings_file.read_text()
        port = other.getsockname()[1]
        running.hub.settings_file.write_text(text.replace("fleet_port = 8000", f"fleet_port = {port}"))
        assert wrong(hub_doctor.examine(running.hub, head, now(), running=True)) == {"fleet port"}


def test_a_site_sees_its_hub_and_the_clock(tmp_path: Path) -> None:
    with loopback(tmp_path, "clinic") as running:
        home = running.sites["clinic"]
        assert wrong(site_doctor.examine(home, head, now)) == {"fleet port"}
        ahead = wrong(site_doctor.examine(home, head, lambda: now() + timedelta(minutes=3)))
        assert ahead == {"fleet port", "clock"}
        later = wrong(site_doctor.examine(home, head, lambda: now() + timedelta(days=366)))
        assert later == {"fleet port", "clock", "certificate"}


def test_a_site_that_is_not_enrolled_is_told_how(tmp_path: Path) -> None:
    home = site_home.create(tmp_path / "clinic", name="clinic")
    seen = site_doctor.examine(home, head, now)
    assert wrong(seen) == {"enrolment", "certificate", "authority", "fleet port", "wire port", "clock"}
    assert "enrol" in next(check.remedy for check in seen if check.name == "enrolment")
