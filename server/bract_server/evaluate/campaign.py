"""A campaign's newest encoder, judged on labelled persons of the shipped sample who are at no site."""

from typing import Any

from rich.table import Table

from bract import console
from bract.arrays import read_arrays
from bract.encoders.weights import layout, put_arrays
from bract.errors import MALFORMED, BractError
from bract.objectives.build import build
from bract.samples import SAMPLE_SEED, SAMPLES
from bract_server.arrays import ArrayStore
from bract_server.evaluate.probe import ProbeReport, probe
from bract_server.registry.store import HubRegistry

_COUNTS = (100, 1000)
"""Labels to learn from, as far as the sample's pool has them."""

ARMS = ("random", "raw", "ssl", "supervised")


def judge(registry: HubRegistry, store: ArrayStore, name: str) -> ProbeReport:
    """Probe the campaign's newest encoder.

    Raises:
        BractError: `unknown-campaign`; `malformed` when no labelled sample of its data set ships with bract.
    """
    campaign = registry.campaign(name)
    plan = campaign.plan
    if plan.dataset not in SAMPLES:
        raise BractError(MALFORMED, f"no labelled sample of {plan.dataset} ships with bract")
    parts = SAMPLES[plan.dataset](len(plan.sites), SAMPLE_SEED)
    objective = build(plan.encoder, plan.objective, plan.seed)
    version = registry.latest_version(campaign.digest)
    put_arrays(objective, dict(read_arrays(store.read(version.value.arrays), layout(objective))))
    counts = [count for count in _COUNTS if count <= len(parts.pool.labels)]
    return probe(objective.encoder, plan.encoder, plan.seed, parts.pool, parts.test, counts=counts)


def plain(report: ProbeReport) -> dict[str, Any]:
    """For JSON: mean and sd of each arm, in the order of `labels`."""
    arms: dict[str, Any] = {"labels": [row.labels for row in report.rows], "test": report.test_size}
    for arm in ARMS:
        scores = [getattr(row, arm) for row in report.rows]
        arms[arm] = {"mean": [round(s.mean, 4) for s in scores], "sd": [round(s.sd, 4) for s in scores]}
    gains = [row.gain for row in report.rows]
    arms["gain"] = {"mean": [round(g.mean, 4) for g in gains], "sd": [round(g.sd, 4) for g in gains]}
    return arms


def show(report: ProbeReport) -> Table:
    """For people."""
    rows = [
        (row.labels, *(f"{getattr(row, arm).mean:.3f} ± {getattr(row, arm).sd:.3f}" for arm in ARMS))
        for row in report.rows
    ]
    return console.table(f"accuracy on {report.test_size} other persons", ("labels", *ARMS), rows)
