"""Randomness of masks, crops and the choice of records: torch's generator, keyed anew in each step.

A seed of torch's Mersenne twister has 32 bits. Here its whole state, 19,937 bits, comes from the sampler's stream, so that
draws are as good as independent coins. The proofs take them for that: who is drawn with whom decides which coins a subject
gets, but not how they are distributed. The twister itself is no cipher; its outputs are never seen outside the site.
"""

import numpy as np
import torch

from bract.dpsgd.sampler import Sampler

_WORDS, _START = 624, 24  # of the state that `Generator.get_state` shows, behind seed, left, seeded and next


def rekey(generator: torch.Generator, sampler: Sampler) -> None:
    """Fill the state of a CPU generator, in place."""
    generator.manual_seed(0)
    state = generator.get_state().numpy().copy()
    words = np.minimum(sampler.uniforms(_WORDS) * 2.0**32, 2.0**32 - 1).astype(np.uint64)
    state[_START : _START + 8 * _WORDS] = words.view(np.uint8)
    generator.set_state(torch.from_numpy(state))
