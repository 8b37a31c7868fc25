"""The demo's campaign and what its sites agree to."""

from pathlib import Path

from bract.consent import Purpose
from bract.encoders.spec import TableSpec
from bract.files import write_private
from bract.objectives.spec import MaskedTableSpec
from bract.plan import CampaignPlan, LocalOptimizer, ServerOptimizer, SitePlan
from bract.privacy.spec import PrivacySpec

NAMES = ("north", "south", "coast", "hills", "lakes", "plain", "woods", "fjord", "isles", "delta", "moors", "dunes")
FLOOR = 10_000


def demo_plan(name: str, sites: tuple[str, ...], rounds: int) -> CampaignPlan:
    """The campaign, at the default three sites and six rounds as it was tuned on a simulation of the same split."""
    return CampaignPlan(
        name=name,
        purpose=Purpose.PRETRAINING,
        dataset="adult",
        encoder=TableSpec("table", "adult", dim=64),
        objective=MaskedTableSpec("masked-table"),
        privacy=PrivacySpec(clip=1.0, noise_multiplier=0.92, sampling_rate=0.045, steps=40, delta=1e-6),
        sites=tuple(SitePlan(site, weight=1.0, subjects_floor=FLOOR) for site in sites),
        rounds=rounds,
        quorum=max(2, len(sites) - 1),
        deadline_s=90.0,
        grace_s=25.0,
        local=LocalOptimizer("adam", 4e-3),
        server=ServerOptimizer("fedavg", 1.5),
    ).check()


def site_settings(path: Path) -> None:
    """Let withdrawal notices leave at once: a real site collects them, so that their time points at nobody."""
    chosen = {"notice_interval_s": "0.0"}
    lines = path.read_text(encoding="utf-8").splitlines()
    changed = [f"{key} = {chosen[key]}" if (key := line.split(" = ")[0]) in chosen else line for line in lines]
    write_private(path, ("\n".join(changed) + "\n").encode())
