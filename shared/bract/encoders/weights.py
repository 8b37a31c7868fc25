"""A module's trained arrays: made from a seed, taken out by name, put back by name.

Trained is what requires a gradient. Slow copies of weights do not: they are derived from what travels.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bract.arrays import Array
from bract.errors import BAD_ARRAYS, BractError


def fill(module: nn.Module, seed: int) -> None:
    """Initialise every trained parameter in place, the same on any machine; no global random state is read or moved.

    Matrices are uniform in ±sqrt(6 / (fan in + fan out)) [Glorot and Bengio 2010], from a stream keyed by the seed
    and the parameter's name; LayerNorm scales are one; other vectors zero. Uniform numbers are exact in floating
    point, where the usual normal ones differ by processor.
    """
    norms = {f"{name}.weight" for name, part in module.named_modules() if isinstance(part, nn.LayerNorm)}
    with torch.no_grad():
        for name, parameter in _trained(module):
            if parameter.ndim < 2:
                parameter.fill_(1.0 if name in norms else 0.0)
                continue
            key = hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16]
            stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
            fan_out, fan_in = parameter.shape[0], math.prod(parameter.shape[1:])
            values = (2 * stream.random(tuple(parameter.shape)) - 1) * math.sqrt(6 / (fan_in + fan_out))
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))


def layout(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of the trained arrays, sorted by name."""
    return {name: tuple(parameter.shape) for name, parameter in sorted(_trained(module))}


def arrays_of(module: nn.Module) -> dict[str, Array]:
    """Copies of the trained arrays, sorted by name."""
    return {name: parameter.detach().cpu().numpy().copy() for name, parameter in sorted(_trained(module))}


def put_arrays(module: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Overwrite the trained arrays in place.

    Raises:
        BractError: `bad-arrays` when names or shapes are not the module's; nothing is changed then.
    """
    if {name: tuple(array.shape) for name, array in arrays.items()} != layout(module):
        raise BractError(BAD_ARRAYS, "names or shapes are not the encoder's")
    with torch.no_grad():
        for name, parameter in _trained(module):
            parameter.copy_(torch.from_numpy(np.array(arrays[name], np.float32)))


def _trained(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad)
