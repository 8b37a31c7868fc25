"""Watches the layers that Opacus hooks: what its rules would get wrong in silence is refused by name."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bract.errors import NO_CERTIFICATE, BractError

_FAILURES = (ArithmeticError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


class Watch:
    """The layers of one pass.

    Opacus looks at a layer's first positional tensor alone: another input, or one by keyword, would be left out of the
    gradient that it recomputes. Rows of different numbers for one weight would be added to each other's places.

    Attributes:
        most_rows: rows of the layer that had most.
    """

    def __init__(self, objective: nn.Module, layers: list[nn.Module]) -> None:
        names = {module: name for name, module in objective.named_modules()}
        self._layers = {layer: names[layer] or type(layer).__name__ for layer in layers}
        self._rows: dict[Tensor, int] = {}
        self._current = ""
        self.most_rows = 0

    def attach(self) -> list[RemovableHandle]:
        """Start to watch; removing the handles ends it."""
        handles = []
        for layer in self._layers:
            handles.append(layer.register_forward_pre_hook(self._forward, with_kwargs=True))
            handles.append(layer.register_full_backward_pre_hook(self._backward))
        return handles

    def owner(self, parameter: Tensor) -> str:
        """The name of the layer that has this parameter."""
        return next(name for layer, name in self._layers.items() if any(parameter is p for p in layer.parameters()))

    def forward(self, losses: Callable[[], Tensor]) -> Tensor:
        """The forward pass.

        Raises:
            BractError: `no-certificate`, naming the layer whose output is overwritten, which hooks do not survive.
        """
        try:
            return losses()
        except RuntimeError as error:
            if "BackwardHookFunction" not in str(error):
                raise
            raise BractError(
                NO_CERTIFICATE, f"{self._current}: its output is changed in place; Opacus cannot"
            ) from error

    def backward(self, loss: Tensor) -> None:
        """The backward pass, in which Opacus' rules run.

        Raises:
            BractError: `no-certificate`, naming the layer at which a rule failed.
        """
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Full backward hook is firing")  # of layers that see data itself
                loss.backward()  # type: ignore[no-untyped-call]
        except _FAILURES as error:
            cause = f"Opacus has no gradient of it ({type(error).__name__}: {error})"
            raise BractError(NO_CERTIFICATE, f"{self._current}: {cause}") from error

    def _forward(self, layer: nn.Module, inputs: tuple[Any, ...], by_name: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            return
        name = self._current = self._layers[layer]
        if by_name or len(inputs) != 1 or not isinstance(inputs[0], Tensor):
            raise BractError(NO_CERTIFICATE, f"{name}: Opacus needs one positional tensor as a layer's input")
        if not layer.training:
            raise BractError(NO_CERTIFICATE, f"{name}: Opacus keeps nothing of a layer that is not in training mode")
        rows = len(inputs[0])
        self.most_rows = max(self.most_rows, rows)
        for parameter in layer.parameters():
            if self._rows.setdefault(parameter, rows) != rows:
                raise BractError(NO_CERTIFICATE, f"{name}: a weight is used twice, on different numbers of rows")

    def _backward(self, layer: nn.Module, gradients: Any) -> None:
        self._current = self._layers[layer]
