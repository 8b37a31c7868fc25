"""One pass over a batch: which layers use which parameters, and the taps of what they keep."""

from collections.abc import Callable

import torch
from torch import Tensor

from bract.dpsgd.bookkeeping.layer import Form, Layer
from bract.dpsgd.bookkeeping.parameter import PrivateParameter
from bract.errors import NO_CERTIFICATE, BractError

Key = tuple[str, str]
"""The first parameter of a use, and the kind of use: a tied matrix is used as an embedding and as a linear layer."""


class Tape:
    """The uses of one pass.

    While `recording`, layers are made from what passes by, without gradients. Afterwards each use finds its layer, and
    the taps of the pass.
    """

    def __init__(self, units: int, rows: int) -> None:
        self.units, self.rows = units, rows
        self.recording = True
        self.counting = True
        self.layers: dict[Key, Layer] = {}
        self.uses: dict[Key, int] = {}
        self.taps: dict[Key, tuple[Tensor, ...]] = {}

    def enter(self, kind: str, parameter: PrivateParameter, make: Callable[[], Layer], *, again: bool = False) -> Key:
        """Count a use, and when recording make its layer.

        Raises:
            BractError: `no-certificate`, when the parameter was used before in the pass.
        """
        key = (parameter.path, kind)
        if torch.compiler.is_compiling():
            return key
        if self.counting:
            self.uses[key] = self.uses.get(key, 0) + 1
            if self.uses[key] > 1 and not again:
                raise BractError(NO_CERTIFICATE, f"{parameter.path}: its layer is used twice in one step")
        if self.recording and key not in self.layers:
            self.layers[key] = make()
        return key

    def form(self, parameter: PrivateParameter, tensor: Tensor) -> Form:
        """The form of what a parameter meets.

        Raises:
            BractError: `no-certificate`, when its leading axis is not rows of units.
        """
        found = Form.of(tensor, self.units)
        if found is None:
            raise BractError(NO_CERTIFICATE, f"{parameter.path}: it meets a tensor whose leading axis is not the batch")
        return found
