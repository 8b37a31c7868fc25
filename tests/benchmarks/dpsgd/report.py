"""The figures for people: a table, what is alarming, and a plot."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.dpsgd.settings import ENGINES

_AIM_TIME, _AIM_MEMORY = 1.15, 1.10
_COLOURS = {"plain": "0.6", "bract": "#2a7f62", "opacus-hooks": "#c26a2d", "opacus-ghost": "#e0a458", "vmap": "#5b7db1"}

Row = dict[str, Any]


def show(rows: Sequence[Row], console: Console) -> None:
    """One line a workload and engine."""
    table = Table("workload", "engine", "time", "IQR", "wall", "memory", "step ms", "trained", "gradient off by")
    workload = None
    for row in rows:
        if workload is not None and row["workload"] != workload:
            table.add_section()
        name, workload = ("" if row["workload"] == workload else row["workload"]), row["workload"]
        if "error" in row:
            table.add_row(name, row["engine"], "–", f"[red]{_brief(row['error'])}[/]", *["–"] * 5)
            continue
        low, high = row["time_ratio"]["iqr"]
        table.add_row(
            name,
            f"[bold]{row['engine']}[/]" if row["engine"] == "bract" else row["engine"],
            f"{row['time_ratio']['median']:.2f}",
            f"{low:.2f} – {high:.2f}",
            f"{row['wall_ratio']['median']:.2f}",
            f"{row['memory_ratio']:.2f}" if row.get("memory_ratio") else "–",
            f"{row['step_ms']:.0f}",
            f"{row['tensors_trained']}/{row['tensors_total']}",
            f"{row['gradient_error']:.0e}",
        )
    console.print(table)
    for row in rows:
        for text in (*row.get("alarms", ()), *((row["note"],) if "note" in row else ())):
            console.print(f"{row['workload']}, {row['engine']}: {text}", soft_wrap=True)
    for engine, (time, memory) in means(rows).items():
        console.print(f"geometric mean of {engine}: time {time:.3f}, memory {memory:.3f}")


def means(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Geometric means of an engine's ratios of time and memory over the workloads it ran."""
    found = {}
    for engine in ENGINES[1:]:
        mine = [row for row in rows if row["engine"] == engine and "error" not in row]
        times = [row["time_ratio"]["median"] for row in mine]
        memories = [row["memory_ratio"] for row in mine if row.get("memory_ratio")]
        if times:
            found[engine] = (_geometric(times), _geometric(memories) if memories else math.nan)
    return found


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Bars of the ratios of time, with quartiles, and of memory."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row["workload"] for row in rows))
    figure, panels = pyplot.subplots(2, 1, figsize=(1.6 * len(names) + 3, 8), sharex=True, layout="constrained")
    for panel, aim, label in zip(panels, (_AIM_TIME, _AIM_MEMORY), ("step time", "peak memory"), strict=True):
        for place, engine in enumerate(ENGINES[1:]):
            _bars(panel, [row for row in rows if row["engine"] == engine], names, place, label)
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.axhline(aim, color="black", linewidth=0.8, linestyle=":", label=f"aim {aim}")
        panel.set_ylabel(f"{label}, × plain training")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(ncols=5, frameon=False, loc="upper left", bbox_to_anchor=(0, 1.12))
    panels[0].set_title(title, pad=28, loc="left", fontsize=10)
    panels[1].set_xticks(range(len(names)), names, rotation=15)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _bars(panel: Any, rows: Sequence[Row], names: Sequence[str], place: int, label: str) -> None:
    width = 0.8 / (len(ENGINES) - 1)
    by_name = {row["workload"]: row for row in rows}
    for at, name in enumerate(names):
        row = by_name.get(name)
        if row is None:
            continue
        x = at + (place - (len(ENGINES) - 2) / 2) * width
        ratio, spread = _bar(row, label)
        if ratio is None:
            panel.text(x, 0.05, "cannot run" if "error" in row else "", rotation=90, ha="center", fontsize=7)
            continue
        panel.bar(x, ratio, width, color=_COLOURS[row["engine"]], yerr=spread, error_kw={"linewidth": 0.8})
        panel.text(x, ratio + (spread[1][0] if spread else 0) + 0.03, f"{ratio:.2f}", ha="center", fontsize=7)
    engine = rows[0]["engine"] if rows else ENGINES[1 + place]
    panel.bar(0, 0, color=_COLOURS[engine], label=engine)


def _bar(row: Row, label: str) -> tuple[float | None, list[list[float]] | None]:
    if "error" in row:
        return None, None
    if label == "peak memory":
        return row.get("memory_ratio"), None
    ratio, (low, high) = row["time_ratio"]["median"], row["time_ratio"]["iqr"]
    return ratio, [[ratio - low], [high - ratio]]


def _geometric(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _brief(text: str) -> str:
    return text if len(text) < 60 else text[:57] + "…"
