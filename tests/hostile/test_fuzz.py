"""Each parser under a coverage-guided fuzzer, for seconds; longer by hand, with `python -m tests.hostile.fuzz`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bract.arrays import to_bytes
from tests.hostile import test_papers as papers
from tests.hostile import test_records as records
from tests.hostile import test_updates as updates
from tests.hostile import test_words as words
from tests.hostile.attacks import RESULTS, Tally

pytest.importorskip("atheris", reason="pip install atheris")
pytestmark = pytest.mark.slow

SECONDS = 2
SEEDS: dict[str, list[bytes]] = {
    "envelope": [one.to_json() for one in words.SIGNED],
    "values": [one.payload for one in words.SIGNED],
    "frames": [b"\x0a\x03abc", b"\x12\x04\x0a\x02ab"],
    "note": papers.NOTES,
    "arrays": [to_bytes({"a": updates.ARRAYS["norm"].repeat(6).reshape(2, 3), "b": updates.ARRAYS["norm"]})],
    "plan": [path.read_bytes() for path in (papers.ROOT / "deploy" / "plans").glob("*.toml")],
    "lines": [b'{"record_id": "r1", "n": [1, 2.5e3, null]}\n'],
    "image": [records.png(1)],
    "request": [words.SIGNED[0].to_json()],
}


def fuzz(target: str, seeds: list[bytes], folder: Path) -> subprocess.CompletedProcess[str]:
    for number, seed in enumerate(seeds):
        (folder / f"{number}").write_bytes(seed)
    flags = [f"-max_total_time={SECONDS}", "-max_len=8192", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/found-"]
    words = [sys.executable, "-m", "tests.hostile.fuzz", target, *flags, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("target", SEEDS)
def test_a_parser_falls_over_nothing_that_a_fuzzer_finds(target: str, tmp_path: Path) -> None:
    done = fuzz(target, SEEDS[target], tmp_path)
    tried = re.search(r"Done (\d+) runs", done.stderr)
    assert done.returncode == 0 and tried, done.stderr[-3000:]
    RESULTS[f"fuzzed: {target}"] = Tally(f"fuzzed: {target}", tried=int(tried[1]))


def test_a_parser_that_falls_is_found(tmp_path: Path) -> None:
    done = fuzz("control", [b"abc"], tmp_path)
    assert done.returncode != 0 and "ZeroDivisionError" in done.stdout + done.stderr
