"""A person learns in which rounds they were, and what that cost them over all data sets of the site."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bract.errors import FORBIDDEN, BractError
from bract.privacy.accounting import rounded_up, shown
from bract.privacy.events import epsilon_of_events, mechanism_of
from bract.signing import parse_envelope
from bract.value import digest_value
from bract_client.audits import AuditRecord, keep
from bract_client.cli.main import app
from bract_client.home import create, open_home
from bract_client.site import open_registry
from tests.client.site_world import HOUR, PRETRAINING, T0, add_table, campaign, persons, write_table

DAY = timedelta(days=1)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Of P-0 to P-3, the first two are in both data sets; each had one round."""
    folder = tmp_path / "clinic"
    create(folder, name="clinic")
    registry = open_registry(open_home(folder))
    for name, count in (("adult", 4), ("census", 2)):
        add_table(registry, write_table(tmp_path / f"{name}.parquet", persons(count)), name)
        registry.ingest(name, T0)
        plan = campaign(dataset=name)
        registry.clearance(plan, 1, registry.freeze(name, PRETRAINING, T0), DAY, 1, T0)
        registry.reserve(digest_value(plan), 1, name, plan.privacy.mechanism, T0, HOUR)
    return folder


def told(site: Path, person: str, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("subject", "rounds", person, "--site", str(site), "--json", *more))
    return found


def test_the_spend_of_all_rounds_stands_beside_them_with_its_events(site: Path) -> None:
    found = told(site, "P-0")
    spent = found["spent"]
    assert [(part["dataset"], part["held"]) for part in found["rounds"]] == [("adult", True), ("census", True)]
    assert (spent["unit"], spent["adjacency"], spent["delta"]) == ("subject", "add-or-remove-one", 1e-6)
    assert spent["rounds"] == len(spent["events"]) == 2
    assert spent["epsilon"] == rounded_up(epsilon_of_events(spent["events"], 1e-6))
    assert spent["epsilon_left"] == 8.0 - spent["epsilon"]
    assert {mechanism_of(part["event"]) for part in found["rounds"]} == {campaign().privacy.mechanism}
    assert spent["epsilon"] > told(site, "P-3")["spent"]["epsilon"] > 0


def test_the_other_accountants_agree_when_asked(site: Path) -> None:
    spent = told(site, "P-0", "--cross-check")["spent"]
    assert abs(spent["epsilon"] - spent["epsilon_prv"]) < 0.05
    assert spent["epsilon"] <= spent["epsilon_rdp"]


def test_people_read_it_as_tables(site: Path) -> None:
    table = run("subject", "rounds", "P-0", "--site", str(site))
    assert "census" in table
    assert shown(told(site, "P-0")["spent"]["epsilon"]) in table


def test_who_was_in_no_round_has_spent_nothing(site: Path) -> None:
    registry = open_registry(open_home(site))
    path = write_table(site / "late.parquet", persons(9))
    add_table(registry, path, "late")
    registry.ingest("late", T0 + DAY)
    spent = told(site, "P-8")["spent"]
    assert (spent["epsilon"], spent["delta"], spent["epsilon_left"], spent["events"]) == (0.0, None, None, [])
    assert "nothing is spent" in run("subject", "rounds", "P-8", "--site", str(site))


def test_the_ledger_tells_the_events_of_its_epsilon(site: Path) -> None:
    rows = json.loads(run("ledger", "--site", str(site), "--json"))
    assert [row["dataset"] for row in rows] == ["adult", "census"]
    for row in rows:
        assert row["epsilon"] == rounded_up(epsilon_of_events(row["events"], row["delta"]))


def test_an_audit_of_the_same_mechanism_stands_beside_every_epsilon(site: Path) -> None:
    assert "no audit" in run("ledger", "--site", str(site))
    assert told(site, "P-0")["spent"]["audit_lower_bound"] is None
    mechanism = campaign().privacy.mechanism
    found = AuditRecord(mechanism, 1.0, 1e-5, "masked-table", "bract", 3.0, 0.71, 0.95, 100, 50, 40, 2.0, True, T0)
    keep(open_home(site), found)
    assert {row["audit_lower_bound"] for row in json.loads(run("ledger", "--site", str(site), "--json"))} == {0.71}
    assert told(site, "P-0")["spent"]["audit_lower_bound"] == 0.71
    assert "0.710 (95%)" in run("ledger", "--site", str(site))
    assert "0.710 (95%)" in run("subject", "rounds", "P-0", "--site", str(site))


def test_a_report_tells_everything_of_one_person_and_is_itself_recorded(site: Path) -> None:
    found: dict[str, Any] = json.loads(
        run("subject", "report", "P-0", "--site", str(site), "--json", "--why", "asked by letter")
    )
    assert {"consents", "rounds", "models", "privacy", "data", "deleted", "remains", "proof"} <= set(found)
    assert found["privacy"]["epsilon"] == told(site, "P-0")["spent"]["epsilon"]
    assert {one["dataset"] for one in found["data"]} == {"adult", "census"}
    assert "P-0" not in json.dumps(found)
    shown = run("subject", "report", "P-0", "--site", str(site))
    assert f"ε = {found['privacy']['epsilon']}" in shown and "remains:" in shown
    run("subject", "history", "P-0", "--site", str(site), "--as", "dpo")
    rows = json.loads(run("audit", "ask", "14", "--site", str(site), "--json"))["rows"]
    assert [(row["asked"], row["role"], row["purpose"]) for row in rows] == [
        ("subject report", "site", "asked by letter"),
        ("subject rounds", "site", "not stated"),
        ("subject report", "site", "not stated"),
        ("subject history", "dpo", "not stated"),
    ]


def test_only_steward_and_dpo_read_about_a_person(site: Path) -> None:
    for verb in ("report", "history", "rounds"):
        with pytest.raises(BractError) as refused:
            run("subject", verb, "P-0", "--site", str(site), "--as", "auditor")
        assert refused.value.code == FORBIDDEN


def test_a_site_answers_what_it_can_at_the_command_line(site: Path, tmp_path: Path) -> None:
    listed = json.loads(run("audit", "ask", "--json"))
    assert [one["number"] for one in listed] == [1, 2, 3, 4, 5, 7, 9, 11, 14]
    for one in listed:
        more = ["P-0"] if one["number"] == 1 else []
        number = str(one["number"])
        answer = json.loads(run("audit", "ask", number, *more, "--site", str(site), "--json"))
        assert answer["number"] == one["number"] and (answer["rows"] or answer["notes"])
    assert "The log was not rewritten" in run("audit", "ask", "3", "--site", str(site))
    out = tmp_path / "answer.json"
    run("audit", "ask", "1", "P-0", "--site", str(site), "--out", str(out))
    assert b"P-0" not in out.read_bytes() and parse_envelope(out.read_bytes()).payload_type.endswith(
        "snapshotanswer+json; v=1"
    )
