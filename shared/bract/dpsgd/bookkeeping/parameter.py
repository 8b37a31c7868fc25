"""A stand-in for a trained parameter, in whose place every use is seen: by a rule, or refused with its name."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

Operation = Callable[..., Any]


class Rules(Protocol):
    """What to do where a parameter is used."""

    def use(self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of an operation that a parameter takes part in."""


class PrivateParameter(Tensor):
    """Shares its numbers with the parameter, asks for no gradient, and passes every operation to the rules."""

    path: str
    rules: Rules

    @staticmethod
    def of(parameter: Tensor, path: str, rules: Rules) -> "PrivateParameter":
        """The stand-in of a parameter."""
        made: PrivateParameter = Tensor._make_subclass(PrivateParameter, parameter.detach())
        made.path, made.rules = path, rules
        return made

    @classmethod
    def __torch_function__(cls, func: Operation, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See `Rules`; looking at shape, type or device, and detaching, are no uses."""
        with torch._C.DisableTorchFunctionSubclass():
            if func in HARMLESS:
                return func(*args, **(kwargs or {}))
            parameter = first_private(args, kwargs or {})
            if func in VIEWS and parameter is args[0]:
                view = func(plain(parameter), *args[1:], **(kwargs or {}))
                return PrivateParameter.of(view, parameter.path, parameter.rules)
            return parameter.rules.use(func, args, kwargs or {})


def first_private(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> PrivateParameter:
    """The first stand-in among an operation's arguments, lists of tensors included."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, PrivateParameter):
            return value
        if isinstance(value, list | tuple):
            for each in value:
                if isinstance(each, PrivateParameter):
                    return each
    raise TypeError("no private parameter among the arguments")


def plain(value: Any) -> Any:
    """A stand-in as an ordinary tensor without gradient; anything else as it is."""
    return value.as_subclass(Tensor) if isinstance(value, PrivateParameter) else value


def _attributes() -> frozenset[Operation]:
    """Reading any attribute but those that are the parameter in another form."""
    transposed = ("T", "H", "mT", "mH", "real", "imag")
    found: list[Any] = [getattr(Tensor, name, None) for name in dir(Tensor) if name not in transposed]
    return frozenset(each.__get__ for each in found if type(each).__name__ in ("getset_descriptor", "property"))


def _inspections() -> frozenset[Operation]:
    """Asking what a tensor is: also what the compiler asks."""
    named = {"size", "dim", "numel", "nelement", "stride", "element_size", "get_device", "__len__", "detach", "data_ptr",
             "__repr__", "ndimension", "storage_offset", "as_subclass", "untyped_storage"}  # fmt: skip
    asked = {name for name in dir(Tensor) if name.startswith(("is_", "_is_", "__is"))} - {"is_set_to"}
    return frozenset(getattr(Tensor, name) for name in named | asked if callable(getattr(Tensor, name, None)))


HARMLESS: frozenset[Operation] = (
    _attributes() | _inspections() | frozenset([torch.is_floating_point, torch.is_complex, torch.numel])
)
"""Operations that pass no gradient to a parameter, so that they are no uses."""

VIEWS: frozenset[Operation] = frozenset(
    [
        torch.reshape,
        Tensor.reshape,
        Tensor.view,
        torch.unsqueeze,
        Tensor.unsqueeze,
        torch.squeeze,
        Tensor.squeeze,
        Tensor.contiguous,
    ]
)
"""Operations after which the same numbers stand in the same order."""
