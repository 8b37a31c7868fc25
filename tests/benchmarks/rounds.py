"""Figures of rounds: faults survived, seconds to recover, what a dead site costs, bytes and overhead a round, hub memory.

    python -m tests.benchmarks.rounds [--faults ci|all|none] [--memory] [--secure] [--json FILE]

The faults are those of `tests.faults`, on the same federation of real processes, one after the other. Bytes are counted where
they pass: in the proxies between sites and hub, TLS and Flower's messages included. With `--memory`, the hub's peak memory
while it aggregates (`tests.benchmarks.aggregation`), and of a whole hub with so many sites in one process. With `--secure`,
what secure aggregation adds (`tests.benchmarks.secure`). Alone on the machine, or the seconds mean nothing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bract_server.hub import open_store
from tests.benchmarks.aggregation import reset_peak, resident
from tests.faults.processes import NAMES, federation
from tests.faults.scenario import SCENARIOS, VICTIM, Outcome, Process
from tests.faults.trial import Bench, plan
from tests.federation import Federation, small_plan
from tests.postgres import postgres

_SITES = (2, 8, 32, 64)
_MODELS = {"22M": 88, "86M": 344}


def faults(which: str, folder: Path) -> dict[str, Any]:
    """Every scenario, tried once: how many held, and what they cost."""
    wanted = [one for one in SCENARIOS if which == "all" or one.ci]
    rows: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for database in ("sqlite", "postgresql"):
        mine = [one for one in wanted if one.database == database]
        if database == "postgresql":
            with postgres() as server, federation(folder / database, server) as world:
                rows += _tried(Bench(world, folder / f"{database}-replay"), mine)
        else:
            with federation(folder / database) as world:
                bench = Bench(world, folder / f"{database}-replay")
                found |= costs(bench)
                rows += _tried(bench, mine)
    held = [row for row in rows if row["held"]]
    return found | {
        "tried": len(rows),
        "survived": len(held),
        "recovered_s_p50": statistics.median(row["recovered_s"] for row in held),
        "recovered_s_p95": _percentile([row["recovered_s"] for row in held], 0.95),
        "rounds_redone": sum(row["redone"] for row in held),
        "rows": rows,
    }


def _tried(bench: Bench, scenarios: Sequence[Any]) -> list[dict[str, Any]]:
    rows = []
    for scenario in scenarios:
        row: dict[str, Any] = {"scenario": str(scenario), "outcome": str(scenario.outcome), "held": True}
        try:
            row |= asdict(bench.attempt(scenario))
        except AssertionError as error:
            row |= {"held": False, "why": str(error).splitlines()[0]}
        rows.append(row)
        print(row, flush=True)
    return rows


def costs(bench: Bench) -> dict[str, Any]:
    """An ordinary round's seconds and bytes, and the seconds that a dead site costs the others."""
    world = bench.world
    before = _carried(bench)
    quick = replace(plan("overhead", Outcome.SAME), rounds=5)
    quick = replace(quick, privacy=replace(quick.privacy, steps=1))
    overhead = bench.run(quick)
    carried = _carried(bench) - before
    model = open_store(world.hub).path(
        world.registry.latest_version(world.registry.campaign("overhead").digest).value.arrays
    )
    least = 2 * model.stat().st_size * len(NAMES)
    secure = bench.run(replace(plan("secure-overhead", Outcome.SAME, secure=True), rounds=5, privacy=quick.privacy))
    alive = bench.run(replace(plan("alive", Outcome.QUORUM), rounds=3))
    world.kill(Process.SITE)
    dead = bench.run(replace(plan("one-dead", Outcome.QUORUM), rounds=3))
    world.start(VICTIM)
    world.settle()
    return {
        "overhead_s": statistics.median(overhead),
        "secure_overhead_s": statistics.median(secure),
        "round_bytes": carried / len(overhead),
        "least_bytes": least,
        "dead_site_s": statistics.median(dead) - statistics.median(alive),
        "grace_s": plan("any", Outcome.QUORUM).grace_s,
    }


def _carried(bench: Bench) -> int:
    return sum(line.carried for lines in bench.world.lines.values() for line in lines)


def memory() -> list[dict[str, Any]]:
    """Peak memory of aggregation by model and sites, and of a hub in one process by sites; each in a fresh process."""
    rows = []
    for name, megabytes in _MODELS.items():
        for sites in (2, 8):
            words = ["tests.benchmarks.aggregation", "--megabytes", str(megabytes), "--one", str(sites)]
            rows.append({"model": name, **_apart(words)})
    rows += [{"model": "tiny", **_apart(["tests.benchmarks.rounds", "--one", str(sites)])} for sites in _SITES]
    for row in rows:
        print(row, flush=True)
    return rows


def _apart(words: Sequence[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def secure(folder: Path) -> Any:
    """What secure aggregation adds to a round of three sites, in the words of its own benchmark."""
    told = folder / "secure.json"
    words = ["tests.benchmarks.secure", "--sites", "3", "--json", str(told)]
    subprocess.run([sys.executable, "-m", *words], check=True)
    return json.loads(told.read_text())


def one(sites: int) -> dict[str, float]:
    """A campaign of one round with so many sites in this process: peak memory of the hub's part above what was there."""
    names = tuple(f"s{number:02d}" for number in range(sites))
    with tempfile.TemporaryDirectory() as folder:
        world = Federation(Path(folder), names)
        wanted = small_plan(
            rounds=1, quorum=sites, sites=tuple(replace(small_plan().sites[0], name=name) for name in names)
        )
        world.run(wanted)  # what is loaded once is loaded
        reset_peak()
        before, started = resident("VmRSS"), time.perf_counter()
        world.run(replace(wanted, name="again"))
        return {"sites": sites, "seconds": time.perf_counter() - started, "peak_mb": (resident("VmHWM") - before) / 1e6}


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Try, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--faults", choices=["ci", "all", "none"], default="ci")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--secure", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one)))
        return 0
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.faults != "none":
            found |= faults(options.faults, Path(folder))
        if options.secure:
            found["secure"] = secure(Path(folder))
    if options.memory:
        found["memory"] = memory()
    told = {name: value for name, value in found.items() if name != "rows"}
    print(json.dumps(told, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
