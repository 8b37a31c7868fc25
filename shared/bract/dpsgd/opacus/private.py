"""Our book-keeping step in a script written for Opacus, of which one line changes.

    model, optimizer, loader = privacy_engine.make_private(module=model, …)      # before
    model, optimizer, loader = make_private(privacy_engine, module=model, …)     # after

The loop stays: criterion, `loss.backward()`, `optimizer.step()`, also under `BatchMemoryManager`. Poisson sampling, noise,
the accountant and so ε are Opacus' own; what changes is how the sum of clipped gradients is computed, and that models
which Opacus gets wrong in silence are refused. The noise is (1 + `BookKeeping.slack`) times Opacus', so that the accounted
noise multiplier holds for the engine's own bound.

What scripts inherit from Opacus: an expected batch size made from the private number of records, noise from torch's
generator, no budget, and that each row of a batch is somebody else's. `bract.dpsgd.engine` is the step without these.
"""

from typing import Any

import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleModuleNoOp
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from torch import Tensor, nn
from torch.utils import _pytree

from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.dpsgd.opacus.script import Call, Pass, Script, SplitPass, check
from bract.errors import NO_CERTIFICATE, BractError


class BookKeepingModule(GradSampleModuleNoOp):  # type: ignore[misc]
    """The model: in training it runs on the engine's tape, else it is itself."""

    def __init__(self, module: nn.Module, clip: float, loss_reduction: str) -> None:
        super().__init__(module, loss_reduction=loss_reduction)
        self._clip = clip
        self._script = [Script(module)]  # in a list, so that its parameters are not this module's a second time
        self._engines: dict[tuple[object, ...], SplitPass] = {}
        self._passes: list[Pass] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's outputs.

        Raises:
            BractError: `no-certificate`, naming the parameter that the engine has no rule for; `canary`, at the first batch
                of a form, when the engine disagrees with an explicit loop.
        """
        if not (self.training and torch.is_grad_enabled()):
            return self._module(*args, **kwargs)
        call = Call.of(args, kwargs)
        if call.rows == 0:
            return self._of_nobody(call)
        form = call.form()
        if form not in self._engines:
            check(self._script[0], call, self._clip)
            self._engines[form] = SplitPass(self._script[0])
        outputs, waiting = self._engines[form].forward(call)
        self._passes.append(waiting)
        return outputs

    def clipped(self, clip: float) -> dict[Tensor, Tensor]:
        """Sums of clipped gradients by parameter, of the one pass since the last step; then it is forgotten.

        Raises:
            BractError: `no-certificate`, when the step had several passes, or a gradient is there that is not clipped.
        """
        parameters = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        used = [each for each in self._passes if each.used]
        self._passes = []
        if len(used) > 1:
            raise BractError(NO_CERTIFICATE, "the model was called more than once for one step")
        for name, parameter in self._module.named_parameters():
            if parameter.grad is not None:
                raise BractError(
                    NO_CERTIFICATE, f"{name}: a gradient that is not clipped reached it, or an old one is left"
                )
        if not used:
            return {parameter: torch.zeros_like(parameter) for parameter in parameters}
        done = used[0]
        scale = float(done.rows) if self.loss_reduction == "mean" else 1.0
        summed = done.engine.clipped(done, clip, scale)
        return {p: each.to(p.dtype) for p, each in zip(parameters, summed.gradients, strict=True)}

    def forget(self) -> None:
        """Drop passes whose backward was done; one that still waits for it stays."""
        self._passes = [each for each in self._passes if not each.used]

    def _of_nobody(self, call: Call) -> Any:
        """Outputs for a batch that the coins left empty: they take a backward pass and pass nothing on."""
        with torch.no_grad():
            outputs = self._module(*call.args, **call.kwargs)

        def leaf(each: Any) -> Any:
            return each.requires_grad_() if isinstance(each, Tensor) and each.is_floating_point() else each

        return _pytree.tree_map(leaf, outputs)


class BookKeepingOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus' noise and step on sums that come clipped."""

    def __init__(self, wrapped: DPOptimizer, module: BookKeepingModule) -> None:
        super().__init__(
            wrapped.original_optimizer,
            noise_multiplier=wrapped.noise_multiplier,
            max_grad_norm=wrapped.max_grad_norm,
            expected_batch_size=wrapped.expected_batch_size,
            loss_reduction=wrapped.loss_reduction,
            generator=wrapped.generator,
            secure_mode=wrapped.secure_mode,
        )
        self.attach_step_hook(wrapped.step_hook)
        self._book = module

    @property
    def _adjusted_noise_multiplier(self) -> float:
        """What Opacus draws noise by; what it accounts is `noise_multiplier`, which schedules may change."""
        return float(self.noise_multiplier) * (1 + BookKeeping.slack)

    def accumulate(self) -> None:
        """Add the pass' clipped sum to the step's."""
        sums = self._book.clipped(self.max_grad_norm)
        for parameter in self.params:
            before = parameter.summed_grad
            parameter.summed_grad = sums[parameter] if before is None else before + sums[parameter]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear what the last step left; gradients become None, so that one that is not clipped can be seen."""
        self._book.forget()
        super().zero_grad(set_to_none=True)


def make_private(privacy_engine: PrivacyEngine, **options: Any) -> tuple[BookKeepingModule, BookKeepingOptimizer, Any]:
    """`PrivacyEngine.make_private` or, given `target_epsilon`, `make_private_with_epsilon`, with our step inside.

    Args:
        privacy_engine: Opacus' own, with its accountant.
        options: as for Opacus: module, optimizer, data_loader, noise_multiplier, max_grad_norm, loss_reduction …

    Returns:
        Module, optimizer and data loader, to be used as Opacus' own.

    Raises:
        BractError: `no-certificate`, for options that change the clip or the axis of samples, or a module that cannot be
            bounded.
    """
    for name, only in (
        ("clipping", "flat"),
        ("batch_first", True),
        ("wrap_model", True),
        ("grad_sample_mode", "no_op"),
    ):
        if options.setdefault(name, only) != only:
            raise BractError(NO_CERTIFICATE, f"{name}: only {only!r} is bounded here")
    make = privacy_engine.make_private_with_epsilon if "target_epsilon" in options else privacy_engine.make_private
    plain, optimizer, loader = make(**options)
    if type(optimizer) is not DPOptimizer:
        raise BractError(NO_CERTIFICATE, f"{type(optimizer).__name__}: only one process is bounded here")
    module = BookKeepingModule(plain.to_standard_module(), optimizer.max_grad_norm, optimizer.loss_reduction)
    return module, BookKeepingOptimizer(optimizer, module), loader
