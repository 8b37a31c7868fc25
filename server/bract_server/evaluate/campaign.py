"""A campaign's newest encoder, judged on labelled persons of the shipped sample who are at no site."""

import hashlib
from datetime import datetime
from typing import Any

from rich.table import Table

from bract import console
from bract.arrays import read_arrays
from bract.digest import Digest, canonical, digest
from bract.encoders.weights import layout, put_arrays
from bract.errors import ALREADY_EXISTS, MALFORMED, BractError
from bract.model import Derived, ExternalSource, Input, NodeKind, Role
from bract.objectives.build import build
from bract.samples import SAMPLE_SEED, SAMPLES, Parts
from bract.value import digest_value
from bract.vocabulary.purposes import Purpose
from bract_server.arrays import ArrayStore
from bract_server.evaluate.probe import ProbeReport, probe
from bract_server.registry.store import HubRegistry

_COUNTS = (100, 1000)
"""Labels to learn from, as far as the sample's pool has them."""

_PUBLISHED = {
    "adult": ("https://doi.org/10.24432/C5XW20", "CC-BY-4.0"),
    "digits": ("https://doi.org/10.24432/C50P49", "CC-BY-4.0"),
    "mnist": ("http://yann.lecun.com/exdb/mnist/", "CC-BY-SA-3.0"),
}
"""Where each sample comes from, and under what licence."""

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


def record(registry: HubRegistry, name: str, report: ProbeReport, at: datetime) -> Digest:
    """Register a probe of the campaign's newest encoder as an evaluation in lineage; returns its reference.

    The sample that it was judged on becomes an external source, under the licence that it is published with.

    Raises:
        BractError: `off-purpose` when the encoder may not be judged; `already-exists` for the same figures again.
    """
    plan = registry.campaign(name).plan
    version = registry.latest_version(registry.campaign(name).digest)
    source = _source(plan.dataset, SAMPLES[plan.dataset](len(plan.sites), SAMPLE_SEED))
    try:
        judged_on = registry.add_source(source, at)
    except BractError as error:
        if error.code != ALREADY_EXISTS:
            raise
        judged_on = digest_value(source)
    told = canonical(plain(report))
    inputs = (
        Input(NodeKind.VERSION, version.digest, Role.EVALUATED),
        Input(NodeKind.EXTERNAL, judged_on, Role.EVALUATED_ON),
    )
    measures = {f"{arm}-{row.labels}": getattr(row, arm).mean for row in report.rows for arm in ARMS}
    named = f"probe-{digest(told)[7:19]}-of-{version.digest[7:19]}"
    value = Derived(NodeKind.EVALUATION, named, Purpose.EVALUATION, inputs, digest(told), len(told), measures, "probe")
    return registry.derive(value, at)


def _source(name: str, parts: Parts) -> ExternalSource:
    """The labelled persons of a sample, by the digest of their records and labels."""
    hasher = hashlib.sha256()
    for part in (parts.pool, parts.test):
        hasher.update(part.inputs.tobytes())
        hasher.update(part.labels.tobytes())
    url, licence = _PUBLISHED[name]
    content = Digest(f"sha256:{hasher.hexdigest()}")
    return ExternalSource(f"sample-{name}-{content[7:19]}", url, licence, content, (Purpose.EVALUATION,))


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
