"""`bract lineage`, `release`, `approval` and `withdrawal`, from a key to a published model and a decision about it."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bract.digest import Digest, digest
from bract.errors import KEY_PERMISSIONS, MALFORMED, OFF_PURPOSE, SAME_PERSON, BractError
from bract_server.cli.main import app
from bract_server.home import create, open_home
from bract_server.hub import open_registry
from tests.server.registry.world import AT, SITES, World, campaign_plan, named


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return create(tmp_path / "hub", name="hub", at=AT).root


@pytest.fixture
def world(hub: Path) -> World:
    registry = open_registry(open_home(hub))
    world = World(registry._engine, registry)
    for site in SITES:
        world.enrol(site)
    return world


@pytest.fixture
def version(world: World) -> Digest:
    return world.whole_round(world.start(campaign_plan()), "alder", "birch")


def run(hub: Path, *arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, [*arguments, "--hub", str(hub)])
    if isinstance(done.exception, BractError):
        raise done.exception
    assert done.exit_code == status, done.output
    return done.stdout


def told(hub: Path, *arguments: str, status: int = 0) -> Any:
    return json.loads(run(hub, *arguments, "--json", status=status))


def person(hub: Path, folder: Path, name: str, *roles: str) -> str:
    """Somebody makes a key and is registered; the path of the key."""
    key = folder / name
    done = CliRunner().invoke(app, ["approval", "keygen", str(key), "--json"])
    fingerprint = json.loads(done.stdout)["fingerprint"]
    offices = [word for role in roles for word in ("--role", role)]
    told(hub, "approval", "add", name, "--key", f"{key}.pub", "--fingerprint", fingerprint, *offices)
    return str(key)


def refused(hub: Path, *arguments: str) -> str:
    with pytest.raises(BractError) as refusal:
        run(hub, *arguments)
    return refusal.value.code


def test_from_a_fine_tune_to_a_published_release(hub: Path, version: Digest, tmp_path: Path) -> None:
    ada, dora = person(hub, tmp_path, "ada", "owner"), person(hub, tmp_path, "dora", "dpo", "auditor")
    for name in ("corpus", "weights", "report", "notice"):
        (tmp_path / name).write_text(name)
    (tmp_path / "card.md").write_text("# What it is for")
    file = {name: str(tmp_path / name) for name in ("corpus", "weights", "report", "notice", "card.md")}
    source = ("lineage", "add", "source", "corpus", "--url", "https://example.org", "--licence", "CC0-1.0")
    told(hub, *source, "--file", file["corpus"], "--permits", "supervised-finetuning", "--permits", "evaluation",
         "--permits", "release-internal")  # fmt: skip
    tune = (
        "lineage",
        "add",
        "fine-tune",
        "tuned",
        "--from",
        "heart/1",
        "--weights",
        file["weights"],
        "--data",
        "corpus",
    )
    assert refused(hub, *tune) == OFF_PURPOSE
    for site in ("alder", "birch"):
        terms = ("lineage", "terms", site, "adult", "--document", file["notice"], "--key", dora)
        told(hub, *terms, "--declare", "supervised-finetuning", "--modifier", "DUO:0000022=CH")
    told(hub, *tune)
    judged = ("lineage", "add", "evaluation", "judged", "--of", "tuned", "--on", "corpus", "--report", file["report"])
    told(hub, *judged, "--measure", "accuracy=0.83")
    told(hub, "lineage", "add", "card", "tuned", file["card.md"])
    propose = ("release", "propose", "spring", "tuned", "--key", ada, "--evaluation", "judged")
    release = told(hub, *propose, "--honour", "DUO:0000022=CH")["release"]
    shown = told(hub, "release", "gate", "spring", status=1)
    assert [c["criterion"] for c in shown["criteria"] if not c["ok"]] == ["approvals"]
    assert refused(hub, "release", "approve", "spring", "--key", ada, "--reason", "mine") == SAME_PERSON
    word = tmp_path / "word"
    sign = ["approval", "sign", release, "--key", dora, "--reason", "read it", "--out", str(word)]
    assert CliRunner().invoke(app, sign).exit_code == 0
    told(hub, "release", "approve", "spring", "--envelope", str(word))
    assert "approvals: 1 of 1 approve" in run(hub, "release", "gate", "spring")
    assert told(hub, "release", "publish", "spring")["report"]["ok"]
    (listed,) = told(hub, "release", "list")
    assert (listed["state"], listed["approvals"][0]["by"]) == ("published", "dora")
    assert "published" in run(hub, "release", "list")
    told(hub, "release", "withdraw", "spring", "--key", dora, "--reason", "a mistake")
    assert told(hub, "release", "list")[0]["withdrawn_reason"] == "a mistake"
    open_registry(open_home(hub)).verify_log()


def test_lineage_is_shown_up_and_down_with_depths(hub: Path, version: Digest) -> None:
    up = told(hub, "lineage", "show", "heart/1")
    depths = {node["name"]: node["depth"] for node in up["nodes"]}
    assert (depths["heart/1"], depths["heart/0"], depths["alder/adult"]) == (0, 1, 4)
    assert len(up["edges"]) == 9
    snapshot = f"alder/{named('snapshot alder')}"
    down = told(hub, "lineage", "show", snapshot, "--down")
    assert [node["kind"] for node in down["nodes"]] == ["snapshot", "contribution", "round", "version"]
    text = run(hub, "lineage", "show", version[:19])
    assert "wasGeneratedBy: round round 1 of heart" in text and "alder/adult" in text
    assert refused(hub, "lineage", "show", "nothing") == MALFORMED


def test_an_override_at_registration_and_a_late_edge(hub: Path, version: Digest, tmp_path: Path) -> None:
    dora = person(hub, tmp_path, "dora", "dpo")
    (tmp_path / "w").write_text("w")
    source = ("lineage", "add", "source", "corpus", "--url", "u", "--licence", "MIT", "--file", str(tmp_path / "w"))
    told(hub, *source, *(word for use in ("supervised-finetuning", "distillation") for word in ("--permits", use)))
    student = ("lineage", "add", "student", "pupil", "--teacher", "heart/1", "--weights", str(tmp_path / "w"))
    made = told(hub, *student, "--data", "corpus", "--override-key", dora, "--override-reason", "board, 3 May")["ref"]
    assert "override of purpose by dora: board, 3 May" in run(hub, "lineage", "show", "pupil")
    told(hub, "lineage", "link", "pupil", f"birch/{named('snapshot birch')}", "--role", "trainedOn")
    assert f"birch/{named('snapshot birch')}" in {e["dst"] for e in told(hub, "lineage", "show", made)["edges"]}


def test_withdrawals_are_shown_and_decided(hub: Path, world: World, version: Digest, tmp_path: Path) -> None:
    dora = person(hub, tmp_path, "dora", "dpo")
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    touched = told(hub, "withdrawal", "show", "n-1")
    assert [one["kind"] for one in touched] == ["contribution", "round", "version"]
    assert touched[-1]["epsilon"] > 0 and touched[-1]["decisions"] == []
    assert "2026-12-22" in run(hub, "withdrawal", "show", "n-1")
    decide = (
        "withdrawal",
        "decide",
        "n-1",
        "heart/1",
        "--remedy",
        "retrain",
        "--rationale",
        "next week",
        "--key",
        dora,
    )
    told(hub, *decide)
    assert told(hub, "withdrawal", "show", "n-1")[-1]["decisions"][0]["remedy"] == "retrain"
    assert told(hub, "withdrawal", "show", "n-1", "--on", "heart/0")["effect"] == "not-affected"
    assert [one["affected"][0]["number"] for one in told(hub, "withdrawal", "list")] == [1]
    assert refused(hub, "withdrawal", "decide", "n-9", *decide[3:]) == MALFORMED


def test_keys_are_private_and_fingerprints_are_compared(hub: Path, tmp_path: Path) -> None:
    key = person(hub, tmp_path, "dora", "dpo")
    wrong = ("approval", "add", "eve", "--key", f"{key}.pub", "--role", "owner", "--fingerprint", digest(b"x"))
    assert refused(hub, *wrong) == MALFORMED
    Path(key).chmod(0o644)
    override = ["approval", "override", digest(b"x"), "--criterion", "card", "--key", key, "--reason", "r"]
    done = CliRunner().invoke(app, override)
    assert isinstance(done.exception, BractError) and done.exception.code == KEY_PERMISSIONS
    told(hub, "approval", "end", "dora")
    assert told(hub, "approval", "list")[0]["ended_at"] is not None
    assert told(hub, "release", "policy", "--channel", "public")["required"] == 2
    changed = told(
        hub, "release", "policy", "--channel", "public", "--required", "3", "--role", "owner", "--witnesses", "1"
    )
    assert (changed["required"], changed["roles"], changed["witnesses"]) == (3, ["owner"], 1)
