"""One round's local training: from the hub's arrays and admitted records to the update's file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bract.arrays import read_arrays, write_arrays
from bract.dpsgd.clipper import Engine
from bract.dpsgd.engine import private_steps
from bract.dpsgd.noise import NoiseSource, SecureNoise
from bract.dpsgd.sampler import Sampler, SecureSampler
from bract.encoders.weights import arrays_of, layout, put_arrays
from bract.objectives.build import build
from bract.plan import CampaignPlan
from bract_client.admission import AdmittedDataset


@dataclass(frozen=True)
class Trained:
    """What a round of training was.

    Attributes:
        steps: private steps taken.
        private: whether its randomness was unforeseeable.
        dropped: gradients that were not finite and counted as zero; for the site's own log only.
    """

    steps: int
    private: bool
    dropped: int = 0


def pretrain(
    campaign: CampaignPlan,
    arrays: Path,
    dataset: AdmittedDataset,
    update: Path,
    *,
    site: str,
    sampler: Sampler | None = None,
    noise: NoiseSource | None = None,
    clipper: Engine | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Take the plan's private steps from the hub's arrays and write after − before, float32, all or nothing.

    Args:
        campaign: the plan, already permitted by the site's policy and reserved in its ledger.
        arrays: the encoder version that the round starts from.
        dataset: what `admit` let in; nothing else can be passed.
        update: where the update goes.
        site: this site's name; its declared floor N̄ is in the plan.
        sampler: by default the operating system's randomness; a seeded one marks the result as not private.
        noise: see `sampler`.
        clipper: the engine; book-keeping by default.
        progress: told the number of steps done.

    Raises:
        BractError: `bad-arrays`, `not-finite` for what came from the hub or came out; `canary`; `disk`.
    """
    sampler, noise = sampler or SecureSampler(), noise or SecureNoise()
    objective = build(campaign.encoder, campaign.objective, campaign.seed)
    before = dict(read_arrays(arrays, layout(objective)))
    put_arrays(objective, before)
    dropped = private_steps(
        objective,
        dataset,
        campaign.privacy,
        campaign.local,
        campaign.site(site).subjects_floor,
        sampler=sampler,
        noise=noise,
        clipper=clipper,
        progress=progress,
    )
    write_arrays(update, {name: after - before[name] for name, after in arrays_of(objective).items()})
    return Trained(campaign.privacy.steps, sampler.private and noise.private, dropped)
