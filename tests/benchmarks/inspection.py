"""How often the backdoor check flags an honest site, and how often it finds a backdoor, on small encoders.

    python -m tests.benchmarks.inspection [--seeds 24] [--sites 5 8 12] [--json FILE]

Every round is made afresh: each site takes real private steps (σ = 1) on its own part of a shipped data set, from a new
initialisation; a villain adds a real backdoor (`tests.backdoor`) to its private update, as it is or boosted, or two send the
bare backdoor, without private steps. A site's part is drawn by Dirichlet tastes of the given concentration; .2 is very uneven.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.arrays import ArraysFile, layout_of, to_bytes
from bract.dpsgd.engine import private_steps
from bract.dpsgd.noise import SecureNoise
from bract.dpsgd.sampler import SecureSampler
from bract.encoders.spec import TableSpec, ViTSpec
from bract.encoders.weights import arrays_of, put_arrays
from bract.objectives.build import build
from bract.objectives.spec import MaskedImageSpec
from bract.plan import CampaignPlan, LocalOptimizer
from bract.privacy.spec import PrivacySpec
from bract.samples import SAMPLES, adult_parts, digits_parts
from bract.tables import encode_rows, schema
from bract_server.embedding import embed
from bract_server.inspection import findings
from tests.backdoor import Arrays, planted
from tests.federation import small_plan

_MOST = 1000
_PRIVACY = PrivacySpec(clip=1.0, noise_multiplier=1.0, sampling_rate=0.1, steps=6, delta=1e-6)
PLANS = {
    "adult": small_plan(
        encoder=TableSpec("table", "adult", dim=32), privacy=_PRIVACY, local=LocalOptimizer("adam", 2e-3)
    ),
    "digits": small_plan(
        encoder=ViTSpec("vit", 8, 2, dim=48, depth=2, heads=3, mean=0.3, std=0.38),
        objective=MaskedImageSpec("masked-image"),
        privacy=replace(_PRIVACY, sampling_rate=0.25),
        local=LocalOptimizer("adam", 2e-3),
    ),
}


class Subjects:
    """Records of one each."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def records(self, indices: NDArray[np.int64], _generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = self.values[torch.as_tensor(indices)][:, None]
        return chosen, torch.ones(len(chosen), 1, dtype=torch.bool)


def parts(data: str, sites: int, concentration: float) -> list[Tensor]:
    """What each site trains on."""
    if data == "digits":
        images = [part.values["pixels"][:, None] for part in digits_parts(sites, 0, concentration).sites]
        return [torch.from_numpy((pixels / 255).astype(np.float32)) for pixels in images]
    public = schema("adult")
    split = adult_parts(sites, 0, concentration).sites
    return [torch.from_numpy(encode_rows(public, part.values)[:_MOST]) for part in split]


def private_update(plan: CampaignPlan, start: Arrays, records: Tensor) -> Arrays:
    """What an honest site sends."""
    objective = build(plan.encoder, plan.objective, plan.seed)
    put_arrays(objective, start)
    objective.begin()
    floor, noise = int(0.9 * len(records)), SecureNoise()
    private_steps(objective, Subjects(records), plan.privacy, plan.local, floor, sampler=SecureSampler(), noise=noise)
    return {name: after - start[name] for name, after in arrays_of(objective).items()}


def rounds_of(plan: CampaignPlan, start: Arrays, held: list[Tensor]) -> Iterator[tuple[str, int, list[Arrays]]]:
    """Rounds: what happens in it, how many sites are villains (the first ones), and what each site sends."""
    honest = [private_update(plan, start, records) for records in held]
    yield "honest", 0, honest
    extra, _ = planted(plan, start, held[0], steps=60)
    for name, boost in (("backdoor", 1.0), ("backdoor x 3", 3.0), ("backdoor x n", float(len(held)))):
        yield name, 1, [{key: honest[0][key] + np.float32(boost) * extra[key] for key in extra}, *honest[1:]]
    yield "two bare", 2, [extra, extra, *honest[2:]]


def judged(plan: CampaignPlan, start: Arrays, updates: list[Arrays]) -> list[bool]:
    """Who is flagged, by the files and the rule that a round uses."""
    form = layout_of(start)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for place, arrays in enumerate([start, *updates]):
            path = Path(folder) / str(place)
            path.write_bytes(to_bytes(arrays))
            files.append(ArraysFile(path, form))
        found = findings([str(place) for place in range(len(updates))], embed(plan, files[0], files[1:]))
    return [one.flagged for one in found]


def main() -> int:
    """Make the rounds, print a line a kind of round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--sites", type=int, nargs="+", default=[5, 8, 12])
    parser.add_argument("--data", nargs="+", choices=sorted(PLANS.keys() & SAMPLES.keys()), default=sorted(PLANS))
    parser.add_argument("--concentration", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for data in options.data:
        for sites in options.sites:
            held, tally = parts(data, sites, options.concentration), defaultdict[str, list[int]](lambda: [0, 0, 0, 0])
            for seed in range(options.seeds):
                plan = replace(PLANS[data], seed=seed)
                start = arrays_of(build(plan.encoder, plan.objective, seed))
                for name, villains, updates in rounds_of(plan, start, held):
                    flags, counts = judged(plan, start, updates), tally[name]
                    counts[0] += 1
                    counts[1] += villains
                    counts[2] += sum(flags[:villains])
                    counts[3] += any(flags[villains:])
            for name, (made, villains, caught, wrong) in tally.items():
                rows.append({"data": data, "sites": sites, "round": name, "rounds": made, "villains": villains}
                            | {"caught": caught, "rounds_with_an_honest_site_flagged": wrong})  # fmt: skip
                print(
                    f"{data:7s} {sites:3d} sites  {name:13s} caught {caught}/{villains}; honest flagged in {wrong}/{made}"
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
