"""Hub memory while aggregating, in the number of sites: it should not grow, and stay below three models.

    python -m tests.benchmarks.aggregation [--megabytes 88] [--sites 2 8 32] [--json FILE]

Each row is a process of its own: it writes one update a site, then averages them and takes the FedAdam step exactly as a round
does, and reports its peak resident memory above what it had before, in models.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bract.aggregation import DeclaredMean
from bract.arrays import ArraysFile, Layout, write_stream
from bract.digest import digest_file
from bract.plan import ServerOptimizer
from bract_server.aggregate.updates import SiteUpdate
from bract_server.arrays import ArrayStore
from bract_server.checkpoint import write_version

LAYERS = 24


def layout(megabytes: int) -> Layout:
    """Equal layers that make up a model of this size."""
    width = int((megabytes * 1e6 / 4 / LAYERS) ** 0.5)
    return {f"blocks.{i:02d}.weight": (width, width) for i in range(LAYERS)}


def resident(field: str) -> int:
    """Resident memory in bytes: `VmRSS` now, `VmHWM` at most since the last reset. Linux only."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """Let `VmHWM` begin anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")


def one(megabytes: int, sites: int) -> dict[str, float]:
    """Aggregate once; seconds, and peak memory above the baseline in models."""
    form, rng = layout(megabytes), np.random.default_rng(0)
    model = sum(4 * a * b for a, b in form.values())
    with tempfile.TemporaryDirectory() as folder:
        store = ArrayStore(Path(folder) / "store", max_bytes=1 << 34, quota_bytes=1 << 36)
        files = []
        for index in range(sites + 1):
            path = store.scratch / f"update-{index}"
            tensors = ((name, (rng.random(shape, np.float32) - 0.5) * 0.01) for name, shape in form.items())
            write_stream(path, form, tensors)
            files.append(store.path(store.adopt(path)))
        updates = [
            SiteUpdate(f"s{i:03d}", 1.0, digest_file(path), ArraysFile(path, form)) for i, path in enumerate(files[1:])
        ]
        shutil.copyfile(files[0], store.scratch / "parent")
        parent = store.adopt(store.scratch / "parent")
        reset_peak()
        before, started = resident("VmRSS"), time.perf_counter()
        write_version(store, parent, None, ServerOptimizer("fedadam"), DeclaredMean(), updates)
        return {
            "sites": sites,
            "seconds": time.perf_counter() - started,
            "models": (resident("VmHWM") - before) / model,
        }


def main() -> int:
    """Run every row in a fresh process and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=88)
    parser.add_argument("--sites", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.megabytes, options.one)))
        return 0
    rows = []
    for sites in options.sites:
        words = [
            sys.executable,
            "-m",
            "tests.benchmarks.aggregation",
            "--megabytes",
            str(options.megabytes),
            "--one",
            str(sites),
        ]
        rows.append(json.loads(subprocess.run(words, capture_output=True, check=True).stdout))
        print(f"{sites:4d} sites: peak {rows[-1]['models']:.2f} models above the baseline, {rows[-1]['seconds']:.1f} s")
    if options.json:
        options.json.write_text(json.dumps({"megabytes": options.megabytes, "rows": rows}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
