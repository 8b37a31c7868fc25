"""How much noise a structure needs, so that one step costs exactly the accounted Gaussian mechanism. Pure.

Let σ be the accounted noise multiplier, C the clip.

    per-record       A subject moves the clipped sum by at most C. Noise σ·C.
    per-group        Condition on everyone's coins: a subject's presence changes the members of one group only, and a
                     vector of norm ≤ C into another of norm ≤ C: at most 2C. Noise 2σ·C. The coins of the others do not
                     depend on whether the subject is there, so the bound holds for each of their values, and by joint
                     convexity of the hockey-stick divergence for their mixture.
    released-moment  A step answers two queries on the same Poisson sample: the moment (a subject moves it by at most 1,
                     noise σ_m) and, knowing the noised moment, the clipped sum (by at most C, noise σ_g·C). Whitened by
                     their noise they are one Gaussian query that a subject moves by √(1/σ_m² + 1/σ_g²) = 1/σ
                     [as Andrew et al. 2021, 1905.03871, thm. 1]. With σ_m = r·σ_g: σ_g = σ·√(1 + 1/r²). Two separately
                     amplified mechanisms would be wrong: both see the same sample.
"""

import math
from dataclasses import dataclass

from bract.errors import NO_CERTIFICATE, BractError
from bract.objectives.spec import PrivacyStructure


@dataclass(frozen=True)
class Scales:
    """Standard deviations of one step's noise.

    Attributes:
        gradient: on each coordinate of the clipped sum.
        moment: on each coordinate of the sum of moments; zero if none is released.
    """

    gradient: float
    moment: float = 0.0


def scales(structure: PrivacyStructure, noise_multiplier: float, clip: float, moment_noise: float = 0.0) -> Scales:
    """The noise of one step.

    Args:
        structure: what the objective declares.
        noise_multiplier: σ, as accounted.
        clip: what one unit adds at most to the sum.
        moment_noise: r, for a released moment.

    Raises:
        BractError: `no-certificate` where no bound is proved.
    """
    match structure:
        case PrivacyStructure.PER_RECORD:
            return Scales(noise_multiplier * clip)
        case PrivacyStructure.PER_GROUP:
            return Scales(2 * noise_multiplier * clip)
        case PrivacyStructure.RELEASED_MOMENT if moment_noise > 0:
            own = noise_multiplier * math.sqrt(1 + moment_noise**-2)
            return Scales(own * clip, own * moment_noise)
    raise BractError(NO_CERTIFICATE, f"{structure}: no noise makes this private")
