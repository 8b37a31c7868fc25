"""`bract-site export receipt` gives one person their own record, leaves no name elsewhere, and is itself recorded."""

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from bract.consent import Decision, Purpose
from bract.errors import ALREADY_EXISTS, FORBIDDEN, MALFORMED, UNKNOWN_SUBJECT, BractError
from bract.export.manifest import manifest_path
from bract_client.auditor.sight import open_sight
from bract_client.cli.main import app
from bract_client.export.receipt import write_receipt
from bract_client.home import create, open_home
from bract_client.registry.access import Reader
from bract_client.site import open_registry
from tests.client.site_world import T0, Person, add_table, persons, write_table

DAY = timedelta(days=1)
PERSON = "Erika-Mustermann-1970"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A person permitted with the data, and withdrew a day later."""
    folder = tmp_path / "clinic"
    create(folder, name="clinic")
    registry = open_registry(open_home(folder))
    add_table(registry, write_table(tmp_path / "adult.parquet", [*persons(2), Person("r9", PERSON)]), "adult")
    registry.ingest("adult", T0)
    registry.decide(PERSON, Purpose.PRETRAINING, Decision.WITHDRAW, T0 + DAY)
    return folder


def statuses(path: Path) -> list[str]:
    record = json.loads(path.read_bytes())["dpv:hasRecordOfActivity"]
    return sorted(one["@type"][0] for process in record["dpv:hasProcess"] for one in process["dpv:hasConsentStatus"])


def test_a_person_gets_their_own_decisions_in_a_file_that_only_the_steward_reads(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "receipt.json"
    told = json.loads(run("export", "receipt", PERSON, out, "--why", "asked at the desk", "--site", site, "--json"))
    assert statuses(out) == ["dpv:ConsentGiven", "dpv:ConsentWithdrawn"]
    assert PERSON in out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert "P-1" not in out.read_text()
    manifest = Path(told["manifest"])
    assert PERSON not in manifest.read_text()
    assert json.loads(run("export", "verify", manifest, "--site", site, "--json"))["verified"]
    assert told["about"]["checkpoint_size"] > 0


def test_the_reading_is_recorded_and_the_identifier_is_not(site: Path, tmp_path: Path) -> None:
    run("export", "receipt", PERSON, tmp_path / "receipt.json", "--why", "asked at the desk", "--site", site)
    registry = open_registry(open_home(site))
    with registry._engine.connect() as connection:
        (row,) = connection.execute(text("SELECT asked, purpose, subject_no FROM access_log")).all()
        about = connection.execute(text("SELECT about FROM log_entry WHERE kind = 'access.read'")).scalars().all()
    assert (row.asked, row.purpose) == ("export receipt", "asked at the desk")
    assert row.subject_no is not None
    assert about == ["export receipt"]
    assert PERSON.encode() in (tmp_path / "adult.parquet").read_bytes()  # so it would be found
    for path in site.rglob("*"):
        assert not path.is_file() or PERSON.encode() not in path.read_bytes(), path
    registry.verify_log()


def test_a_reading_that_is_refused_or_finds_nobody_writes_no_receipt(site: Path, tmp_path: Path) -> None:
    out = tmp_path / "receipt.json"
    for person, more, code in (
        ("nobody", (), UNKNOWN_SUBJECT),
        (PERSON, ("--as", "auditor"), FORBIDDEN),
        (PERSON, ("--as-of", "2100-01-01T00:00:00Z"), MALFORMED),
    ):
        with pytest.raises(BractError) as refusal:
            run("export", "receipt", person, out, *more, "--site", site)
        assert refusal.value.code == code
        assert not out.exists()
        assert not manifest_path(out).exists()


def test_as_of_a_time_it_tells_what_was_known_then(site: Path, tmp_path: Path) -> None:
    home, who = open_home(site), Reader("steward")
    registry, sight = open_registry(home), open_sight(home)
    out = tmp_path / "then.json"
    write_receipt(registry, sight, home.signing_key(), PERSON, out, who, T0 + 2 * DAY, T0)
    assert statuses(out) == ["dpv:ConsentGiven"]
    with pytest.raises(BractError) as refusal:
        write_receipt(registry, sight, home.signing_key(), PERSON, out, who, T0 + 3 * DAY)
    assert refusal.value.code == ALREADY_EXISTS


def test_two_receipts_of_one_person_cannot_be_told_by_their_digests(site: Path, tmp_path: Path) -> None:
    home, who = open_home(site), Reader("steward")
    registry, sight = open_registry(home), open_sight(home)
    made = [
        write_receipt(registry, sight, home.signing_key(), PERSON, tmp_path / f"{n}.json", who, T0 + 2 * DAY)
        for n in range(2)
    ]
    assert made[0].files[0].sha256 != made[1].files[0].sha256
