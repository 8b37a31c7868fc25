"""A disposal that is killed anywhere is found again and finished: nothing is left, nothing is signed for twice."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bract_client.home import SiteHome
from tests.client.killed_disposal import CANARY, prepare

ROOT = Path(__file__).parent.parent.parent


def killed(url: str, folder: Path, every: int) -> list[dict[str, object]]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.client.killed_disposal", url, folder, str(every)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def check(runs: list[dict[str, object]]) -> None:
    assert runs[-1]["killed"] is False
    for run in runs:
        assert run["receipts"] == ["log", "record", "scratch"]
        assert (run["failed"], run["unfinished"], run["due"], run["records"], run["canary"]) == (0, 0, 0, 1, [])
        assert not [name for name in run["files"] if "disposal-" in name or "outbox" in name]  # type: ignore[attr-defined]


def test_a_kill_here_and_there_leaves_nothing(tmp_path: Path) -> None:
    runs = killed("sqlite://", tmp_path, 60)
    assert len(runs) > 2
    check(runs)


@pytest.mark.nightly
def test_a_kill_at_every_fifth_step_leaves_nothing(tmp_path: Path) -> None:
    runs = killed("sqlite://", tmp_path, 5)
    assert len(runs) > 30
    check(runs)


@pytest.mark.slow
def test_one_kill_after_another_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    """Each run takes up what the killed one before it left."""
    check(killed(database_url, tmp_path, 17)[-1:])


def test_the_scan_finds_what_is_there(tmp_path: Path) -> None:
    """The positive control of the runs above: before the disposal the word is in the registry, the source and two files."""
    home = SiteHome(tmp_path / "work")
    prepare(f"sqlite:///{home.root}/registry.db", home)
    found = {path.name for path in home.root.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()}
    assert found >= {"t.parquet", "one.part", "executor.log"}
    assert found & {"registry.db", "registry.db-wal"}
