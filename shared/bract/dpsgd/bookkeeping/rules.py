"""The rules: what happens where a trained parameter is used, and refusals for every other use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bract.dpsgd.bookkeeping.broadcast import ScaleStep, ShiftStep, broadcasts
from bract.dpsgd.bookkeeping.convolution import Convolution, Geometry
from bract.dpsgd.bookkeeping.embedding import MOST_TOKENS, Embedding, EmbeddingStep
from bract.dpsgd.bookkeeping.layer import Form, Layer, RowsLayer, StoredLayer
from bract.dpsgd.bookkeeping.linear import Linear
from bract.dpsgd.bookkeeping.normalisation import GroupNormStep, LayerNormStep
from bract.dpsgd.bookkeeping.parameter import Operation, PrivateParameter, first_private, plain
from bract.dpsgd.bookkeeping.tape import Key, Tape
from bract.errors import NO_CERTIFICATE, BractError


@dataclass(frozen=True)
class RuleBook:
    """The rules, writing on a tape."""

    tape: Tape

    def use(self, operation: Operation, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """The result of an operation that a parameter takes part in.

        Raises:
            BractError: `no-certificate`, naming the parameter and the operation, where there is no rule.
        """
        rule = RULES.get(operation)
        if rule is not None:
            return rule(self.tape, *args, **kwargs)
        return _stand_in(self.tape, operation, args, dict(kwargs))


def _refuse(parameter: PrivateParameter, operation: Operation) -> BractError:
    name = getattr(operation, "__name__", str(operation))
    return BractError(NO_CERTIFICATE, f"{parameter.path}: no rule for its use in {name}")


def _private(value: Any) -> bool:
    return isinstance(value, PrivateParameter)


def _name(value: Any) -> str | None:
    return value.path if isinstance(value, PrivateParameter) else None


def _cast(x: Tensor) -> Tensor:
    """As autocast would for matrix products; cast once, so that the low-precision copy is the one that is kept."""
    device = x.device.type
    return (
        x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) and x.dtype != torch.float64 else x
    )


def _full(x: Tensor) -> Tensor:
    """As autocast would for normalisations."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _linear(tape: Tape, input: Tensor, weight: Any, bias: Any = None) -> Tensor:
    if not _private(weight):
        return _shift(tape, functional.linear(input, weight), bias)
    if _private(input):
        raise _refuse(weight, functional.linear)
    if bias is not None and not _private(bias):
        return torch.add(_linear(tape, input, weight), bias)
    x = _cast(input)
    key = tape.enter("linear", weight, lambda: Linear(weight.path, _name(bias), tape.form(weight, x), weight.shape[0]))
    kernel, shift = plain(weight).to(x.dtype), None if bias is None else plain(bias).to(x.dtype)
    if tape.recording:
        return functional.linear(x, kernel, shift)
    return _applied(tape, key, x, kernel, shift)


def _applied(tape: Tape, key: Key, x: Tensor, kernel: Tensor, shift: Tensor | None) -> Tensor:
    layer: Any = tape.layers[key]
    y: Tensor = layer.apply(x, kernel, shift, tape.taps[key], tape.units)
    return y


def _layer_norm(
    tape: Tape,
    input: Tensor,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    shape = tuple(normalized_shape)
    if not _private(weight) or (bias is not None and not _private(bias)):
        normal = functional.layer_norm(input, shape, None, None, eps)
        scaled = normal if weight is None else _scale(tape, normal, weight)
        return scaled if bias is None else _shift(tape, scaled, bias)
    x = _full(input)
    names = [weight.path] if bias is None else [weight.path, bias.path]

    def make() -> Layer:
        form = tape.form(weight, x)
        one = Form(1, shape, form.dtype, form.device)
        return StoredLayer(names, [one] * len(names))

    key = tape.enter("norm", weight, make)
    if tape.recording:
        return functional.layer_norm(x, shape, plain(weight), plain(bias), eps)
    first, second = (*tape.taps[key], None)[:2]
    y: Tensor = LayerNormStep.apply(x, shape, plain(weight), plain(bias), eps, tape.units, first, second)
    return y


def _group_norm(
    tape: Tape,
    input: Tensor,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    if not (_private(weight) and _private(bias)):
        raise _refuse(weight if _private(weight) else bias, functional.group_norm)
    x = _full(input)

    def make() -> Layer:
        form = tape.form(weight, x)
        one = Form(1, tuple(weight.shape), form.dtype, form.device)
        return StoredLayer([weight.path, bias.path], [one, one])

    key = tape.enter("norm", weight, make)
    if tape.recording:
        return functional.group_norm(x, num_groups, plain(weight), plain(bias), eps)
    y: Tensor = GroupNormStep.apply(x, num_groups, plain(weight), plain(bias), eps, tape.units, *tape.taps[key])
    return y


def _rms_norm(tape: Tape, input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    return _scale(tape, functional.rms_norm(_full(input), tuple(normalized_shape), None, eps), weight)


def _embedding(
    tape: Tape,
    input: Tensor,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    if max_norm is not None or scale_grad_by_freq or len(weight) > MOST_TOKENS:
        raise _refuse(weight, functional.embedding)
    padding = None if padding_idx is None else padding_idx % len(weight)
    key = tape.enter(
        "embedding", weight, lambda: Embedding(weight.path, tape.form(weight, input), weight.shape[1], weight.dtype)
    )
    if tape.recording:
        return functional.embedding(input, plain(weight))
    y: Tensor = EmbeddingStep.apply(input, plain(weight), padding, tape.units, *tape.taps[key])
    return y


def _conv(axes: int) -> Callable[..., Tensor]:
    def rule(
        tape: Tape,
        input: Tensor,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Tensor:
        zeros = _padding(padding, weight, dilation)
        if axes == 2:
            return _conv2d(tape, input, weight, bias, Geometry(_pair(stride), zeros, _pair(dilation), groups), 2)
        flat = Geometry((1, _pair(stride)[1]), (0, zeros[1]), (1, _pair(dilation)[1]), groups)
        return _conv2d(tape, input.unsqueeze(2), weight, bias, flat, 1).squeeze(2)

    return rule


def _conv2d(tape: Tape, input: Tensor, weight: Any, bias: Any, geometry: Geometry, axes: int) -> Tensor:
    shape = tuple(weight.shape) if axes == 2 else (*weight.shape[:2], 1, weight.shape[2])
    if not _private(weight) or (bias is not None and not _private(bias)):
        raise _refuse(weight if _private(weight) else bias, functional.conv2d)
    x = _cast(input)
    kernel, shift = plain(weight).to(x.dtype).reshape(shape), None if bias is None else plain(bias).to(x.dtype)
    if _patchwise(shape, geometry) and x.shape[2] % shape[2] == 0 and x.shape[3] % shape[3] == 0:
        return _patches(tape, x, weight, bias, kernel, shift)
    key = tape.enter(
        "convolution", weight, lambda: Convolution(weight.path, _name(bias), tape.form(weight, x), shape, geometry)
    )
    if tape.recording:
        return functional.conv2d(x, kernel, shift, *geometry)
    return _applied(tape, key, x, kernel, shift)


def _patches(tape: Tape, x: Tensor, weight: Any, bias: Any, kernel: Tensor, shift: Tensor | None) -> Tensor:
    """A convolution over patches that do not overlap, as the linear layer that it is."""
    outputs, channels, high, wide = kernel.shape
    rows, _, height, width = x.shape
    cut = x.reshape(rows, channels, height // high, high, width // wide, wide).permute(0, 2, 4, 1, 3, 5)
    flat = cut.reshape(rows, (height // high) * (width // wide), channels * high * wide)
    key = tape.enter("linear", weight, lambda: Linear(weight.path, _name(bias), tape.form(weight, flat), outputs))
    matrix = kernel.reshape(outputs, -1)
    y = functional.linear(flat, matrix, shift) if tape.recording else _applied(tape, key, flat, matrix, shift)
    return y.transpose(1, 2).reshape(rows, outputs, height // high, width // wide)


def _patchwise(kernel: tuple[int, ...], geometry: Geometry) -> bool:
    return kernel[2:] == geometry.stride and geometry[1:] == ((0, 0), (1, 1), 1)


def _scale(tape: Tape, input: Any, other: Any) -> Tensor:
    return _broadcast(tape, input, other, Tensor.mul)


def _shift(tape: Tape, input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    if alpha != 1:
        raise _refuse(other if _private(other) else input, Tensor.add)
    return _broadcast(tape, input, other, Tensor.add)


def _broadcast(tape: Tape, one: Any, other: Any, operation: Operation) -> Tensor:
    """X ∘ p, whichever side the parameter is on."""
    parameter, x = (other, one) if _private(other) else (one, other)
    if not _private(parameter):
        result: Tensor = operation(x, parameter)
        return result
    if _private(x) or not isinstance(x, Tensor) or not broadcasts(parameter.shape, x.shape):
        if parameter.ndim > 1 and parameter.shape[0] == 1:
            return _stand_in(tape, operation, (one, other), {})  # type: ignore[no-any-return]
        raise _refuse(parameter, operation)

    def make() -> Layer:
        form = tape.form(parameter, x)
        return StoredLayer([parameter.path], [Form(1, tuple(parameter.shape), parameter.dtype, form.device)])

    key = tape.enter("broadcast", parameter, make)
    if tape.recording:
        plainly: Tensor = operation(x, plain(parameter))
        return plainly
    step: Any = ScaleStep if operation is Tensor.mul else ShiftStep
    y: Tensor = step.apply(x, plain(parameter), tape.units, *tape.taps[key])
    return y


def _stand_in(tape: Tape, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Any operation on a parameter with leading axis 1: a copy of it for each row takes its place.

    The gradient of a copy is that row's gradient of the parameter.
    """
    parameter = first_private(args, kwargs)
    if parameter.ndim < 2 or parameter.shape[0] != 1 or operation in INDIRECT:
        raise _refuse(parameter, operation)
    key = tape.enter("rows", parameter, lambda: RowsLayer(parameter.path, plain(parameter), tape.rows), again=True)
    spread = tape.rows * tape.units, *parameter.shape[1:]
    copies = plain(parameter).expand(spread) if tape.recording else tape.taps[key][0]
    swapped = [_swapped(value, parameter, copies) for value in args]
    if operation is Tensor.repeat:  # the rows are there already
        sizes = swapped[1] if isinstance(swapped[1], list | tuple) else swapped[1:]
        return copies.repeat(1, *tuple(sizes)[1:])
    if any(_private(value) for value in _flat(swapped, kwargs)):
        raise _refuse(parameter, operation)
    return operation(*swapped, **kwargs)


def _swapped(value: Any, parameter: PrivateParameter, copies: Tensor) -> Any:
    """The copies in the place of the parameter, also within lists and tuples, which stay what they are."""
    if isinstance(value, list | tuple):
        return type(value)(_swapped(each, parameter, copies) for each in value)
    return copies if value is parameter else value


def _flat(args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
    found: list[Any] = list(kwargs.values())
    for value in args:
        found += list(value) if isinstance(value, list | tuple) else [value]
    return found


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1])) if isinstance(value, list | tuple) else (int(value), int(value))


def _padding(value: Any, weight: PrivateParameter, dilation: Any) -> tuple[int, int]:
    if value == "valid":
        return 0, 0
    if isinstance(value, str):
        kernel = _pair(tuple(weight.shape[2:]))
        spread = [d * (k - 1) for d, k in zip(_pair(dilation), kernel, strict=True)]
        if any(one % 2 for one in spread):
            raise _refuse(weight, functional.conv2d)
        return spread[0] // 2, spread[1] // 2
    return _pair(value)


RULES: dict[Operation, Callable[..., Any]] = {
    functional.linear: _linear,
    functional.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    functional.group_norm: _group_norm,
    functional.rms_norm: _rms_norm,
    functional.embedding: _embedding,
    functional.conv1d: _conv(1),
    functional.conv2d: _conv(2),
    **dict.fromkeys((torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, Tensor.mul_, Tensor.__imul__), _scale),
    **dict.fromkeys((torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__), _shift),
}
"""Operations that a parameter may take part in."""

INDIRECT: frozenset[Operation] = frozenset(
    [functional.multi_head_attention_forward, torch.matmul, Tensor.matmul, Tensor.__matmul__]
)
"""Operations in which a row's copy would not stand for the parameter."""
