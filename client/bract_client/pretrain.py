"""One round's local training: from the hub's arrays and admitted records to the update's file."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bract.arrays import read_arrays, write_arrays
from bract.digest import Digest, digest_file
from bract.dpsgd.clipper import Engine
from bract.dpsgd.engine import private_steps
from bract.dpsgd.noise import NoiseSource, SecureNoise, SeededNoise
from bract.dpsgd.sampler import Sampler, SecureSampler, SeededSampler
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
    stop: Callable[[], bool] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trained:
    """Take the plan's private steps from the hub's arrays and write after − before, float32, all or nothing.

    Args:
        campaign: the plan, already permitted by the site's policy and reserved in its ledger.
        arrays: the encoder version that the round starts from.
        dataset: what `admit` let in; nothing else can be passed.
        update: where the update goes.
        site: this site's name; its declared floor N̄ is in the plan.
        sampler: by default the operating system's randomness, or the seed's in a seeded test; a seeded one marks the result
            as not private.
        noise: see `sampler`.
        clipper: the engine; book-keeping by default.
        stop: asked before each step.
        progress: told the number of steps done.

    Raises:
        BractError: `bad-arrays`, `not-finite` for what came from the hub or came out; `canary`; `disk`; `deadline` when `stop`
            said so.
    """
    if campaign.seeded_test is not None:
        seed = test_seed(campaign.seeded_test, digest_file(arrays), site)
        sampler, noise = sampler or SeededSampler(seed), noise or SeededNoise(seed)
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
        stop=stop,
        progress=progress,
    )
    write_arrays(update, {name: after - before[name] for name, after in arrays_of(objective).items()})
    return Trained(campaign.privacy.steps, sampler.private and noise.private, dropped)


def test_seed(seed: int, arrays: Digest, site: str) -> int:
    """The seed of one site's round in a seeded test: of the plan's, of what the round starts from, and of the site.

    Neither the campaign's name nor the round's number counts, so that a round that is done again is the same to the bit.
    """
    return int.from_bytes(sha256(f"{seed}/{arrays}/{site}".encode()).digest()[:8], "big")
