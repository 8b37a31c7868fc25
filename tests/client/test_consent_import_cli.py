"""`bract-site data add --files` and `bract-site consent import`: what people and scripts are told."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bract.errors import MALFORMED, NO_ENCODER, BractError
from bract_client.admission import admit
from bract_client.cli.main import app
from bract_client.home import open_home
from bract_client.site import open_registry
from bract_client.sources.location import FilesLocation
from tests.client.site_world import T0, campaign, round_of

EXAMPLE = Path(__file__).parents[2] / "deploy" / "mappings" / "consent.toml"
SAMPLES = Path(__file__).parent / "sources" / "samples"
CLINIC = "PatNr;Zweck;Entscheidung;Ab;Bis;Auflagen;LfdNr\n4711;Forschung;ja;01.07.2026;;;1\n=1+1;Forschung;?;01.07.2026;;;2\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "north"
    assert run("init", str(folder), "--name", "north").exit_code == 0
    return folder


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def imported(site: Path, *arguments: str) -> Result:
    return run("consent", "import", *arguments, "--site", str(site))


def test_a_script_hears_what_was_taken_and_why_a_line_was_not(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(CLINIC, encoding="windows-1252")
    told = json.loads(imported(site, str(path), "--mapping", str(EXAMPLE), "--json").stdout)
    assert told == {
        "taken": 1,
        "known": 0,
        "set_aside": [{"line": 3, "reason": "unknown-decision"}],
        "doubtful": [],
        "set_aside_by_reason": {"unknown-decision": 1},
    }
    again = imported(site, str(path), "--mapping", str(EXAMPLE)).stdout
    assert "0 decisions taken, 1 known already, 1 set aside" in again
    assert "line 3 set aside: unknown-decision" in again and "=1+1" not in again


def test_people_see_the_first_lines_and_the_sums(site: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("subject_id,purpose,decision,valid_from,valid_to\n" + "x\n" * 50)
    told = imported(site, str(path)).stdout
    assert told.count("set aside: bad-line") == 20
    assert "50 lines in all: bad-line" in told and "--json" in told


@pytest.mark.parametrize("name", ["r4b.ndjson", "r5.json"])
def test_fhir_is_told_by_its_suffix(site: Path, name: str) -> None:
    told = json.loads(imported(site, str(SAMPLES / name), "--mapping", str(EXAMPLE), "--json").stdout)
    assert told["taken"] >= 2


def refused(result: Result) -> str:
    assert isinstance(result.exception, BractError)
    return result.exception.code


@pytest.mark.parametrize("options", [[], ["--csv", "--mapping", "{fhir}"], ["--fhir"]])
def test_a_file_that_does_not_fit_its_mapping_is_refused(site: Path, tmp_path: Path, options: Sequence[str]) -> None:
    (tmp_path / "m.toml").write_text('source = "x"\n[fhir]\nsubject = "reference"\n')
    given = [one.replace("{fhir}", str(tmp_path / "m.toml")) for one in options]
    assert refused(imported(site, str(SAMPLES / "r5.json"), *given)) == MALFORMED


def test_files_of_any_kind_are_registered_and_training_on_them_is_refused(site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "a.dcm").write_bytes(b"DICM")
    rows = ["a.dcm,r1,P-1,2026-01-01T00:00:00Z,ssl-pretraining", "../b,r2,P-2,2026-01-01T00:00:00Z,"]
    (folder / "manifest.csv").write_text("file,record_id,subject_id,collected_at,purposes\n" + "\n".join(rows) + "\n")
    told = json.loads(run("data", "add", "scans", "--files", str(folder), "--site", str(site), "--json").stdout)
    assert (told["taken"], told["quarantined"]) == (1, {"bad-path": 1})
    again = json.loads(run("data", "ingest", "scans", "--site", str(site), "--json").stdout)
    assert (again["taken"], again["unchanged"]) == (0, 1)
    registry = open_registry(open_home(site))
    assert registry.dataset("scans").location == FilesLocation("files", str(folder))
    plan = campaign(dataset="scans")
    snapshot = registry.freeze("scans", plan.purpose, T0)
    clearance = registry.clearance(plan, 1, snapshot, T0.resolution * 10**9, 1, T0)
    with pytest.raises(BractError) as no:
        admit(registry, plan, round_of(plan, 1, clearance.name, T0, registry.site), T0)
    assert no.value.code == NO_ENCODER


def test_a_data_set_has_one_form(site: Path, tmp_path: Path) -> None:
    assert refused(run("data", "add", "x", "--site", str(site))) == MALFORMED
    both = ["--files", str(tmp_path), "--images", str(tmp_path)]
    assert refused(run("data", "add", "x", *both, "--site", str(site))) == MALFORMED
