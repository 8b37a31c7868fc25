"""From an engine's name to its column."""

from tests.benchmarks.dpsgd import columns, peers
from tests.benchmarks.dpsgd.columns import Column
from tests.benchmarks.dpsgd.settings import Settings
from tests.benchmarks.dpsgd.workloads import Workload


def prepare(engine: str, workload: Workload, settings: Settings) -> Column:
    """The engine as the settings say, nothing chosen by measuring but what is its own."""
    match engine:
        case "plain":
            return columns.plain(workload, settings)
        case "bract":
            return columns.bract(workload, settings)
        case "vmap":
            return columns.vmap(workload, settings)
        case "opacus-hooks" | "opacus-ghost":
            return peers.opacus(workload, settings, engine)
    raise ValueError(engine)


def fastest(engine: str, workload: Workload, settings: Settings) -> Column:
    """The engine's fastest variant."""
    match engine:
        case "plain":
            return columns.fastest_plain(workload, settings)
        case "bract":
            return columns.fastest_bract(workload, settings)
    return prepare(engine, workload, settings)
