"""Which route each layer takes, measured once and then kept.

Both routes give the same numbers; which is quicker depends on sizes and on the machine. The direct route of a linear layer
keeps more, so it is taken only where it saves time, best first, as long as the memory lasts.
"""

import logging
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bract.dpsgd.bookkeeping.convolution import ROUTES, Convolution, row_gradients
from bract.dpsgd.bookkeeping.layer import Layer, square_norms
from bract.dpsgd.bookkeeping.linear import Linear, gram_norms, unit_gradients, widened

log = logging.getLogger("bract.dpsgd")

_REPEATS = 3


def autotune(layers: Mapping[str, Layer], units: int, memory: int, tied: frozenset[str]) -> dict[str, str]:
    """Pick and set the route of each layer; what was picked, by name.

    Args:
        layers: by the name of their first parameter; routes are set in place.
        units: of one physical batch.
        memory: bytes that direct routes may keep beyond what ghost routes would.
        tied: layers that must stay on the ghost route.
    """
    savings: list[tuple[float, str, Linear]] = []
    measured: dict[object, float] = {}
    routes: dict[object, str] = {}
    for name, layer in layers.items():
        if isinstance(layer, Linear) and layer.positions > 1:
            layer.route = "ghost"
            if name not in tied:
                kind = (layer.positions, layer.width, layer.outputs, layer.inputs.dtype)
                if kind not in measured:
                    measured[kind] = _linear_saving(layer, units)
                savings.append((measured[kind], name, layer))
        elif isinstance(layer, Convolution):
            form = (layer.inputs, layer.kernel, layer.geometry)
            if form not in routes:
                routes[form] = _convolution_route(layer, units)
            layer.route = routes[form]
    for saving, _, layer in sorted(savings, key=lambda one: -one[0]):
        if saving > 0 and layer.stored_bytes(units) <= memory:
            memory -= layer.stored_bytes(units)
            layer.route = "direct"
    picks = {name: layer.route for name, layer in layers.items() if isinstance(layer, Linear | Convolution)}
    log.debug("routes: %s", picks)
    return picks


def _linear_saving(layer: Linear, units: int) -> float:
    """Seconds by which the direct route is quicker than the ghost route."""
    form = layer.inputs
    x = torch.randn(units, layer.positions, layer.width, device=form.device).to(form.dtype)
    g = torch.randn(units, layer.positions, layer.outputs, device=form.device).to(form.dtype)
    factors = torch.ones(units, dtype=torch.float32, device=form.device)
    total = torch.zeros(layer.outputs, layer.width, dtype=widened(x[:0]).dtype, device=form.device)

    def ghost() -> None:
        gram_norms(widened(x), widened(g), biased=layer.biased)
        total.addmm_((widened(g)).flatten(0, 1).T, (widened(x) * factors[:, None, None]).flatten(0, 1))

    def direct() -> None:
        each = unit_gradients(x, g)
        square_norms(each)
        total.view(-1).addmv_(each.flatten(1).T.to(total.dtype), factors.to(total.dtype))

    return _seconds(ghost, form.device) - _seconds(direct, form.device)


def _convolution_route(layer: Convolution, units: int) -> str:
    form = layer.inputs
    rows = units * form.rows
    x = torch.randn(rows, *form.rest, device=form.device).to(form.dtype)
    weight = torch.zeros(layer.kernel, device=form.device).to(form.dtype)
    y = torch.nn.functional.conv2d(x, weight, None, *layer.geometry)
    g = torch.randn(y.shape, device=form.device).to(form.dtype)

    def once(route: str) -> Callable[[], Tensor]:
        return lambda: row_gradients(x, g, weight, layer.geometry, route)

    return min(ROUTES, key=lambda route: _seconds(once(route), form.device))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least of a few repetitions, after one to warm up."""
    work()
    best = float("inf")
    for _ in range(_REPEATS):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
