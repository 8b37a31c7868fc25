"""`bract privacy` says what mechanisms cost and what an ε asks for, with the events that both follow from."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import epsilon
from bract.privacy.events import epsilon_of_events, mechanism_of
from bract.privacy.spec import Mechanism
from bract_server.cli.main import app

ONE = ("--sigma", "1.2", "--rate", "0.05", "--steps", "100")
TWO = ("--sigma", "2", "--rate", "0.1", "--steps", "50")
DELTA = ("--delta", "1e-6")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["privacy", *arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def told(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json"))
    return found


def test_epsilon_is_told_by_three_accountants_with_the_events_behind_it() -> None:
    found = told("epsilon", *ONE, *DELTA)
    assert set(found) == {"pld", "prv", "rdp", "delta", "unit", "relation", "events"}
    assert (found["unit"], found["relation"], found["delta"]) == ("subject", "add-or-remove-one", 1e-6)
    assert abs(found["pld"] - found["prv"]) < 0.05
    assert found["pld"] <= found["rdp"]
    exact = epsilon_of_events(found["events"], found["delta"])
    assert exact <= found["pld"] < exact + 1e-4


def test_several_mechanisms_compose_from_options_and_from_a_file(tmp_path: Path) -> None:
    both = told("epsilon", *ONE, *TWO, *DELTA)
    assert [mechanism_of(event) for event in both["events"]] == [Mechanism(1.2, 0.05, 100), Mechanism(2.0, 0.1, 50)]
    (tmp_path / "whole.json").write_text(json.dumps(both))
    (tmp_path / "list.json").write_text(json.dumps(both["events"][1:]))
    assert told("epsilon", "--events", str(tmp_path / "whole.json"), *DELTA) == both
    assert told("epsilon", "--events", str(tmp_path / "list.json"), *ONE, *DELTA) == both


def test_calibrate_finds_noise_that_keeps_to_the_target() -> None:
    found = told("calibrate", "--epsilon", "3", "--rate", "0.05", "--steps", "100", *DELTA)
    assert set(found) == {"sigma", "target", "pld", "prv", "rdp", "delta", "unit", "relation", "events"}
    assert found["pld"] <= 3 < epsilon([Mechanism(found["sigma"] - 0.001, 0.05, 100)], 1e-6)
    assert mechanism_of(found["events"][0]) == Mechanism(found["sigma"], 0.05, 100)


@pytest.mark.parametrize("law", [("--law", "geometric"), ("--law", "logarithmic"), ("--eta", "2")])
def test_tuning_costs_more_than_one_run(law: tuple[str, ...]) -> None:
    found = told("tuning", *ONE, *DELTA, "--mean", "10", *law)
    assert found["tuned"] > found["one_run"] > 0
    assert found["events"] and found["law"]["mean"] == 10


def test_people_get_tables_with_the_same_numbers() -> None:
    shown = run("epsilon", *ONE, *DELTA)
    assert f"{told('epsilon', *ONE, *DELTA)['pld']:g}" in shown
    assert "subject" in shown


def test_an_epsilon_that_helps_nobody_is_still_told() -> None:
    found = told("epsilon", "--sigma", "0.05", "--rate", "0.5", "--steps", "10", *DELTA)
    assert found["pld"] > 60
    assert found["prv"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("epsilon", *DELTA), "no mechanism"),
        (("epsilon", "--sigma", "1", *DELTA), "go together"),
        (("epsilon", "--sigma", "0", "--rate", "0.1", "--steps", "1", *DELTA), "noise_multiplier"),
        (("epsilon", "--sigma", "1", "--rate", "1.5", "--steps", "1", *DELTA), "sampling_rate"),
        (("epsilon", *ONE, "--delta", "1e-3", "--subjects-floor", "1000"), "delta"),
        (("epsilon", *ONE, "--delta", "0"), "delta"),
        (("epsilon", "--events", "/nowhere/at-all.json", *DELTA), "events"),
        (("calibrate", "--epsilon", "0", "--rate", "0.1", "--steps", "1", *DELTA), "epsilon"),
        (("calibrate", "--epsilon", "1", "--rate", "0.1", "--steps", "0", *DELTA), "steps"),
        (("tuning", *ONE, *DELTA, "--mean", "10", "--law", "fixed"), "law"),
        (("tuning", *ONE, *DELTA, "--mean", "0.2"), "mean"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_its_name(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(BractError) as caught:
        run(*arguments)
    assert caught.value.code == MALFORMED
    assert says in caught.value.detail


@pytest.mark.parametrize("text", ["{", "3", '{"events": 3}', "[3]", '[{"class_name": "LaplaceDpEvent"}]'])
def test_a_file_without_events_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(BractError) as caught:
        run("epsilon", "--events", str(tmp_path / "bad.json"), *DELTA)
    assert caught.value.code == MALFORMED
