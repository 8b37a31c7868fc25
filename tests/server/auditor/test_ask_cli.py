"""`bract audit ask` and `bract audit token` at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bract.errors import FORBIDDEN, BractError
from bract.export.manifest import verify
from bract_server.cli.main import app
from bract_server.cli.options import now
from bract_server.home import HubHome, create, open_home
from bract_server.hub import open_registry
from tests.server.registry.world import SITES, World, campaign_plan


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> HubHome:
    home = create(tmp_path_factory.mktemp("cli") / "hub", name="beacon", at=now())
    registry = open_registry(home)
    world = World(registry._engine, registry)
    for site in SITES:
        world.enrol(site)
    world.whole_round(world.start(campaign_plan()), "alder", "birch")
    return home


def told(hub: HubHome, *more: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("audit", "ask", *more, "--hub", str(hub.root), "--json"))
    return found


def test_each_of_the_fifteen_answers_for_scripts_and_for_people(hub: HubHome) -> None:
    assert len(json.loads(run("audit", "ask", "--json"))) == 15
    for number in range(1, 16):
        answer = told(hub, str(number))
        assert answer["number"] == number and answer["proof"]["origin"] == "beacon"
        assert answer["rows"] or answer["notes"]
        if number in (6, 8):  # as blocks, and as a table
            assert f"{number}. {answer['title']}" in run("audit", "ask", str(number), "--hub", str(hub.root))


def test_the_rows_go_to_files_with_a_signed_manifest(hub: HubHome, tmp_path: Path) -> None:
    table, parquet = tmp_path / "q11.csv", tmp_path / "q11.parquet"
    told(hub, "11", "--csv", str(table), "--parquet", str(parquet))
    manifest = verify(tmp_path / "q11.csv.manifest.json", open_home(hub.root).signing_key().public_key())
    assert {one.name for one in manifest.files} == {table.name, parquet.name}
    assert manifest.about.export == "question 11"


def test_a_token_asks_with_its_own_role(hub: HubHome, tmp_path: Path) -> None:
    secret = tmp_path / "olga.token"
    run("audit", "token", "issue", "olga", "--role", "operator", "--out", str(secret), "--hub", str(hub.root))
    assert secret.stat().st_mode & 0o777 == 0o600
    assert told(hub, "8", "--token-file", str(secret))["number"] == 8
    with pytest.raises(BractError) as refused:
        told(hub, "14", "--token-file", str(secret))
    assert refused.value.code == FORBIDDEN
    (listed,) = json.loads(run("audit", "token", "list", "--hub", str(hub.root), "--json"))
    assert listed["principal"] == "olga" and secret.read_text().strip() not in json.dumps(listed)
    run("audit", "token", "revoke", str(listed["number"]), "--hub", str(hub.root))
    with pytest.raises(BractError):
        told(hub, "8", "--token-file", str(secret))
    asked = [(row["principal"], row["asked"]) for row in told(hub, "14")["rows"]]
    assert ("olga", "question 8") in asked and ("olga", "question 14") not in asked
