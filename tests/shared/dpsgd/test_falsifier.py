"""The falsifier as a command: anybody's objective, a verdict, and a status that a script can use."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bract.dpsgd.falsify import main
from bract.dpsgd.leaks import held
from bract.dpsgd.specimen import specimen
from bract.errors import MALFORMED, BractError
from bract.objectives.batch import Batch
from tests.privacy.controls import Honest

ROOT = Path(__file__).parents[3]
CONTROLS = "tests.privacy.controls"


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    status = main([*words, "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    return status, report


def test_a_users_objective_that_breaks_its_declaration_ends_the_command_with_one() -> None:
    command = [sys.executable, "-m", "bract.dpsgd.falsify", f"{CONTROLS}:InBatchInfoNCE"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True)
    assert done.returncode == 1, done.stderr
    assert "BROKEN" in done.stdout
    assert "worst case" in done.stdout


def test_one_that_keeps_it_ends_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    status, report = told(capsys, f"{CONTROLS}:Honest")
    assert (status, report["verdict"]) == (0, "holds")
    assert report["declared"] == 1
    assert report["measured"] == pytest.approx(1)


def test_a_factory_may_bring_examples_of_its_own() -> None:
    found = specimen(f"{CONTROLS}:honest")
    assert found.records.shape[0] == 8
    assert isinstance(found.objective, Honest)


def test_one_that_declares_nothing_gets_no_guarantee(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{CONTROLS}:Undeclared"]) == 0
    assert "No DP guarantee: it declares no bound" in capsys.readouterr().out


def test_a_class_of_ours_is_made_from_the_specs_it_asks_for() -> None:
    assert specimen("bract.objectives.masked_table:MaskedTable").records.shape[1] == 103


@pytest.mark.parametrize(
    "name", ["no-such-kind", "no.such.module:X", f"{CONTROLS}:Nobody", f"{CONTROLS}:COUPLED", "bract.value:decode"]
)
def test_what_is_no_objective_is_refused(name: str) -> None:
    with pytest.raises(BractError) as refused:
        specimen(name)
    assert refused.value.code == MALFORMED


@pytest.mark.parametrize("words", [[], ["masked-table", "--all"], ["masked-table", "--write"]])
def test_options_that_do_not_go_together_are_refused(words: list[str]) -> None:
    with pytest.raises(BractError) as refused:
        main(words)
    assert refused.value.code == MALFORMED


class BadShape(Honest):
    """One loss for all."""

    def unit_loss(self, batch: Batch) -> Tensor:
        return super().unit_loss(batch).sum()[None]


def test_a_loss_that_is_not_one_a_unit_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    status, report = told(capsys, f"{__name__}:BadShape")
    assert (status, report["verdict"], report["measured"]) == (1, "broken", None)
    assert "one value a unit" in report["faults"][0]


class SinglePrecision(Honest):
    """Insists on float32."""

    def views(self, batch: Batch) -> Tensor:
        return super().views(Batch(batch.records.float(), batch.present, batch.draws))


def test_one_that_cannot_do_double_precision_is_tested_in_single(capsys: pytest.CaptureFixture[str]) -> None:
    status, report = told(capsys, f"{__name__}:SinglePrecision")
    assert (status, report["verdict"], report["precision"]) == (0, "holds", "float32")


def test_whatever_a_module_holds_is_looked_at() -> None:
    made: Any = Honest()
    made.plain, made.kept = 3, {"deep": [torch.ones(2)]}
    made.head.note = torch.zeros(1)
    made.source = torch.Generator()
    names = dict(held(made))
    assert {"plain", "kept.deep.0", "kept.deep.length", "head.note", "source"} <= set(names)
    assert "head.parameters.weight" in names
