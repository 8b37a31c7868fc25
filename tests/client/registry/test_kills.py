"""SIGKILL between any two statements of a site's verbs: each happened wholly or not at all, and can be said again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client.registry.killed_verbs import STORY

ROOT = Path(__file__).parents[3]


def kills(database_url: str, folder: Path, how: str) -> dict[str, int]:
    """How often each verb was killed; the script fails when something stands that should not."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.client.registry.killed_verbs", f"sqlite:///{folder / 'c.db'}", database_url, how],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    assert set(found) == {step.name for step in STORY if step.killed}
    return found


def test_a_verb_that_is_killed_happened_wholly_or_not(tmp_path: Path) -> None:
    assert min(kills(f"sqlite:///{tmp_path / 'killed.db'}", tmp_path, "sample").values()) == 1


@pytest.mark.slow
def test_a_verb_that_is_killed_at_every_twelfth_statement_happened_wholly_or_not(
    database_url: str, tmp_path: Path
) -> None:
    assert min(kills(database_url, tmp_path, "12").values()) >= 1


@pytest.mark.nightly
def test_a_verb_that_is_killed_at_any_statement_happened_wholly_or_not(database_url: str, tmp_path: Path) -> None:
    assert min(kills(database_url, tmp_path, "1").values()) >= 8
