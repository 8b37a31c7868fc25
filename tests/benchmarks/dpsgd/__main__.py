"""The private step against plain training, and against Opacus and `torch.func`, on real models.

    python -m tests.benchmarks.dpsgd [--quick] [--json FILE] [--plot FILE.png] [--workload NAME …] [--engine NAME …]
                                     [--rounds N] [--batch N] [--physical N] [--compile] [--device cuda] [--resume]

Ratios are to a plain step (forward, mean loss, backward, AdamW) of the same round; `machine.METHOD` says how, and is
written beside the figures. An engine that fails is a row with an `error`, and the others go on. `--resume` keeps the
workloads that FILE has from a run with the same settings. Exits with 1 if bract failed, or did not train everything.
"""

import argparse
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from tests.benchmarks.dpsgd.machine import METHOD, machine
from tests.benchmarks.dpsgd.orchestra import Orchestra
from tests.benchmarks.dpsgd.report import means, plot, show
from tests.benchmarks.dpsgd.settings import ENGINES, Settings
from tests.benchmarks.dpsgd.workloads import FULL, workloads

Row = dict[str, Any]


def main() -> int:
    """Run the workloads one after the other; what is known so far is in the file after each."""
    asked = _asked()
    settings = _settings(asked)
    names = asked.workload or list(workloads(small=settings.small))
    engines = [name for name in ENGINES if name == "plain" or name in (asked.engine or ENGINES)]
    report: dict[str, Any] = {"machine": machine(settings), "method": METHOD, "settings": asdict(settings), "rows": []}
    if asked.resume and asked.json and asked.json.exists():
        before = json.loads(asked.json.read_text())
        report["rows"] = before["rows"] if before["settings"] == asdict(settings) else []
    console = Console() if sys.stdout.isatty() else Console(width=132)
    with Orchestra(settings, engines, len(names)) as orchestra:
        for name in names:
            if name in {row["workload"] for row in report["rows"]}:
                orchestra.skip(name)
                continue
            report["rows"] += orchestra.play(name)
            _write(report, asked.json)
    show(report["rows"], console)
    if asked.plot:
        plot(report["rows"], asked.plot, _title(report["machine"], settings))
    return 1 if any(_faulty(row) for row in report["rows"]) else 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.dpsgd", description="What a private step costs.")
    parser.add_argument("--quick", action="store_true", help="small models, three rounds: that it runs, not how fast")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--workload", nargs="+", choices=list(FULL), metavar="NAME", help=", ".join(FULL))
    parser.add_argument("--engine", nargs="+", choices=ENGINES, metavar="NAME", help=", ".join(ENGINES))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--physical", type=int, default=Settings.physical)
    parser.add_argument(
        "--peers-every", type=int, default=1, metavar="N", help="engines besides plain and bract join each Nth round"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def _settings(asked: argparse.Namespace) -> Settings:
    if asked.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    return Settings(
        batch=asked.batch or (32 if asked.quick else Settings.batch),
        physical=asked.physical,
        rounds=asked.rounds or (3 if asked.quick else Settings.rounds),
        peers_every=asked.peers_every,
        threads=asked.threads,
        device=asked.device,
        compile=asked.compile,
        memory=not asked.no_memory,
        small=asked.quick,
    )


def _write(report: dict[str, Any], path: Path | None) -> None:
    report["geometric_means"] = {
        engine: {"time": round(time, 4), "memory": None if math.isnan(memory) else round(memory, 4)}
        for engine, (time, memory) in means(report["rows"]).items()
    }
    if path:
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _faulty(row: Row) -> bool:
    """Whether bract failed or left a parameter out; speed alone never makes a run red."""
    if row["engine"] != "bract":
        return False
    return "error" in row or any("below" not in alarm for alarm in row["alarms"])


def _title(found: dict[str, Any], settings: Settings) -> str:
    where = found["device"] if settings.device == "cuda" else f"{found['cpu']}, {settings.threads} thread"
    how = f"batch {settings.batch}, {settings.rounds} rounds, {where}, torch {found['torch']}"
    return f"A private step against plain training: {how}"


if __name__ == "__main__":
    sys.exit(main())
