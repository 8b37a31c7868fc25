"""`bract objectives` tells what there is and how far one subject moves it."""

import json

from typer.testing import CliRunner

from bract.objectives.spec import CATALOGUE, PrivacyStructure
from bract_server.cli.main import app


def test_every_objective_is_listed_with_its_encoders_sensitivity_and_paper() -> None:
    done = CliRunner().invoke(app, ["objectives", "--json"])
    assert done.exit_code == 0
    rows = {row["objective"]: row for row in json.loads(done.stdout)}
    assert rows.keys() == CATALOGUE.keys()
    for kind, entry in CATALOGUE.items():
        assert rows[kind]["encoders"] == list(entry.encoders)
        assert rows[kind]["paper"] == entry.paper
        doubled = entry.structure is PrivacyStructure.PER_GROUP
        assert ("2C" in rows[kind]["sensitivity"]) == doubled
        joint = entry.structure is PrivacyStructure.RELEASED_MOMENT
        assert ("joint" in rows[kind]["sensitivity"]) == joint


def test_the_table_for_people_has_a_line_an_objective() -> None:
    done = CliRunner().invoke(app, ["objectives"], env={"COLUMNS": "160"})
    assert done.exit_code == 0
    assert all(kind in done.stdout for kind in CATALOGUE)
