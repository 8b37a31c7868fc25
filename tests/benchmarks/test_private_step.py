"""The benchmark of the private step runs, checks every engine's gradient first, and writes the rows it promises."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.nightly
def test_the_quick_benchmark_writes_its_rows_with_every_parameter_trained(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    wanted = ["--workload", "table", "--rounds", "1", "--no-memory", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.dpsgd", "--quick", *wanted], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = {row["engine"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {"plain", "bract", "opacus-hooks", "opacus-ghost", "vmap"}
    for engine in ("plain", "bract", "vmap"):
        assert set(rows[engine]["time_ratio"]) == {"median", "iqr"}
        assert rows[engine]["parameters_trained"] == rows[engine]["parameters_total"]
