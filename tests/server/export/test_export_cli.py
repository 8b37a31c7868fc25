"""`bract export` writes what others can read, signed, and the same again for the same time."""

import json
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bract.digest import digest
from bract.errors import ALREADY_EXISTS, DIGEST_MISMATCH, MALFORMED, BractError
from bract.export.manifest import manifest_path, verify
from bract_server.cli.main import app
from bract_server.export.make import FORMATS, Asked, Maker
from bract_server.home import create, open_home
from bract_server.hub import open_registry
from tests.server.registry.world import AT, SITES, World, campaign_plan

THEN = (AT + timedelta(seconds=1)).isoformat()


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with one round of two sites."""
    folder = tmp_path_factory.mktemp("hubs") / "hub"
    create(folder, name="demo-hub", at=AT)
    registry = open_registry(open_home(folder))
    world = World(registry._engine, registry)
    for site in SITES:
        world.enrol(site)
    world.whole_round(world.start(campaign_plan()), "alder", "birch")
    return folder


def made_by(hub: Path) -> Maker:
    home = open_home(hub)
    return Maker(open_registry(home), "demo-hub", home.signing_key())


def test_every_format_is_written_signed_and_the_same_again(hub: Path, tmp_path: Path) -> None:
    maker = made_by(hub)
    asked = Asked("heart/1", AT + timedelta(seconds=1))
    for name in FORMATS:
        first, second = tmp_path / f"{name}.1", tmp_path / f"{name}.2"
        made = maker.single(name, first, asked, AT)
        assert made.about == maker.single(name, second, asked, AT + timedelta(days=1)).about
        assert first.read_bytes() == second.read_bytes()
        assert verify(manifest_path(first), maker.key.public_key()) == made
        assert (made.about.export, made.files[0].sha256) == (name, digest(first.read_bytes()))
        assert made.about.checkpoint_size > 0


def test_the_command_line_tells_what_it_wrote_and_checks_it(hub: Path, tmp_path: Path) -> None:
    told = json.loads(
        run("export", "mlbom", tmp_path / "a", "--version", "heart/1", "--as-of", THEN, "--hub", hub, "--json")
    )
    checked = json.loads(run("export", "verify", told["manifest"], "--hub", hub, "--json"))
    assert checked["verified"]
    assert checked["about"] == told["about"]
    assert told["about"]["known_at"] == THEN.replace("+00:00", "Z")


def test_a_changed_file_does_not_verify(hub: Path, tmp_path: Path) -> None:
    out = tmp_path / "lineage.json"
    run("export", "prov", out, "--hub", hub)
    out.write_bytes(out.read_bytes() + b" ")
    with pytest.raises(BractError) as refusal:
        run("export", "verify", f"{out}.manifest.json", "--key", hub / "certs" / "signing.pub", "--hub", tmp_path)
    assert refusal.value.code == DIGEST_MISMATCH


def test_edges_come_in_every_form_at_once(hub: Path, tmp_path: Path) -> None:
    names = [tmp_path / f"edges{ending}" for ending in (".csv", ".ndjson", ".parquet")]
    told = json.loads(run("export", "edges", *names, "--hub", hub, "--json"))
    lines = [json.loads(line) for line in names[1].read_text().splitlines()]
    assert len(lines) == told["files"][0]["rows"] == pq.read_table(names[2]).num_rows == 9
    assert pq.read_table(names[2])["relation"].to_pylist() == [line["relation"] for line in lines]


def test_croissant_makes_a_file_a_snapshot_and_tells_no_count(hub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    told = json.loads(run("export", "croissant", folder, "--hub", hub, "--json"))
    assert len(told["files"]) == 2
    for one in told["files"]:
        text = (folder / one["name"]).read_text()
        assert "1000" not in text  # the floor that the sites declared
        assert json.loads(text)["creator"]["name"] in ("alder", "birch")
    maker, known = made_by(hub), AT + timedelta(days=1)
    for target, ref, code in ((folder, None, ALREADY_EXISTS), (tmp_path / "none", "heart/0", MALFORMED)):
        with pytest.raises(BractError) as refusal:
            maker.croissant(target, Asked(ref, known), known)
        assert refusal.value.code == code
    assert not (tmp_path / "none").exists()


def test_what_is_asked_wrongly_is_refused_and_leaves_nothing(hub: Path, tmp_path: Path) -> None:
    maker = made_by(hub)
    for asked in (Asked(None, AT), Asked("heart/9", AT), Asked("heart/1", AT - timedelta(days=1))):
        with pytest.raises(BractError) as refusal:
            maker.single("card", tmp_path / "card.md", asked, AT)
        assert refusal.value.code == MALFORMED, asked
    for more in (("--version", "heart/1", "--release", "spring"), ("--as-of", "2100-01-01T00:00:00Z")):
        with pytest.raises(BractError) as refusal:
            run("export", "prov", tmp_path / "lineage.json", *more, "--hub", hub)
        assert refusal.value.code == MALFORMED, more
    assert list(tmp_path.iterdir()) == []


def test_a_person_is_told_where_the_files_are(hub: Path, tmp_path: Path) -> None:
    shown = run("export", "card", tmp_path / "card.md", "--version", "heart/1", "--hub", hub)
    assert str(tmp_path / "card.md.manifest.json") in shown
    assert "**(ε, δ) = (" in (tmp_path / "card.md").read_text()
