"""What secure aggregation adds to a round: seconds and bytes, for sites and hub, beside the same round in the clear.

    python -m tests.benchmarks.secure [--json FILE] [--sites 3 5 8] [--numbers 100000 5000000]

Real stages on both sides, with real keys and files on disk, in one process; training, TLS and Flower's own polling are not in
it: each of the four further messages costs a round trip more (`deploy/decisions/0012-secure-aggregation.md`).
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bract.arrays import ArraysFile, write_arrays
from bract.plan import ServerOptimizer
from bract_server.aggregate.updates import SiteUpdate
from bract_server.checkpoint import write_version
from tests.secure_world import Member, Payload, World


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every combination, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 5, 8])
    parser.add_argument("--numbers", type=int, nargs="+", default=[100_000, 5_000_000])
    asked = parser.parse_args(argv)
    rows = [measured(sites, numbers, gone) for numbers in asked.numbers for sites in asked.sites for gone in (0, 1)]
    for row in rows:
        print("  ".join(f"{name}={value}" for name, value in row.items()))
    if asked.json:
        asked.json.write_text(json.dumps({"processors": os.cpu_count(), "rows": rows}, indent=1) + "\n")


def measured(sites: int, numbers: int, gone: int) -> dict[str, Any]:
    """One round with so many sites, of which `gone` leave after dealing shares."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), sites, numbers=numbers)
        meters = [Meter(member) for member in world.members.values()]
        for member in list(world.members.values())[sites - gone :]:
            member.leaves = "mask"
        began = time.perf_counter()
        opened = world.collect()
        whole = time.perf_counter() - began
        assert opened.mean is not None and len(opened.weights) == sites - gone
        opened.remove()
        at_sites = max(meter.seconds for meter in meters)
        return {
            "sites": sites,
            "gone": gone,
            "numbers": numbers,
            "site_s": round(at_sites, 3),
            "hub_s": round(whole - sum(meter.seconds for meter in meters), 3),
            "clear_hub_s": round(in_the_clear(world, sites - gone, numbers), 3),
            "message_bytes_a_site": max(meter.bytes for meter in meters),
            "update_bytes_a_site": 4 * numbers,
        }


class Meter:
    """Seconds that one site works, and bytes of its messages both ways. Writing the update itself is not counted."""

    def __init__(self, member: Member) -> None:
        self.seconds, self.bytes, self._work = 0.0, 0, member.work
        member.work = self.work  # type: ignore[method-assign]

    def work(self, payload: Payload) -> Payload:
        began = time.perf_counter()
        reply = self._work(payload)
        self.seconds += time.perf_counter() - began
        self.bytes += sum(len(one) for one in (payload["question"], *reply.values()))
        return reply


def in_the_clear(world: World, sites: int, numbers: int) -> float:
    """Seconds in which the hub averages as many plain updates and takes the server's step."""
    updates = []
    for number in range(sites):
        path = world.store.scratch / f"clear-{number}"
        values = np.random.default_rng(number).standard_normal(numbers, np.float32)
        named = write_arrays(path, {"w": values})
        updates.append(SiteUpdate(f"site-{number}", 1.0, named, ArraysFile(path, {"w": (numbers,)})))
    began = time.perf_counter()
    plan = world.campaign
    write_version(world.store, world.plan.arrays, None, ServerOptimizer("fedavg"), plan.aggregation, updates)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
