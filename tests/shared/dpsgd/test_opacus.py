"""Opacus as a reference engine refuses what it gets wrong; our step in its users' scripts gives its numbers."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from opacus import PrivacyEngine
from opacus.grad_sample import GradSampleModule
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.dpsgd.clipper import engine, trained
from bract.dpsgd.opacus.clipper import OpacusClipper
from bract.dpsgd.opacus.private import make_private
from bract.errors import CANARY, NO_CERTIFICATE, BractError
from bract.objectives.batch import Batch
from tests.shared.dpsgd import models
from tests.shared.dpsgd.models import OUTPUTS, Foreign, apart, explicit_gradients, explicit_sum, flat, middle

pytestmark = pytest.mark.filterwarnings("ignore:Secure RNG turned off", "ignore:There is a performance drop because")

theirs = pytest.mark.filterwarnings("ignore:Full backward hook is firing", "ignore:Optimal order is the largest")
"""Of tests that run Opacus itself for comparison."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Models begin with the same numbers in every run."""
    torch.manual_seed(0)


# as a reference engine


@pytest.mark.parametrize(
    "make", [models.mlp, models.vit_written_out, models.group_norm, models.rms_norm, models.conv_2d]
)
@pytest.mark.parametrize("most", [1, 3])
def test_hooks_give_the_sum_of_units_clipped_alone(make: Callable[[], Foreign], most: int) -> None:
    objective = models.shaken(make())
    batch = models.foreign_batch(objective, 6, most)
    rows, norms = explicit_gradients(objective, batch)
    for clip in (middle(norms), 1e-3, 1e3):
        found = engine("opacus")(objective).clipped_sum(batch, clip)
        assert apart(flat(found), explicit_sum(rows, norms, clip)) <= 1e-5
        assert found.dropped == 0


def test_the_sum_is_the_same_in_chunks_of_one_unit() -> None:
    objective = models.shaken(models.mlp())
    batch = models.foreign_batch(objective, 7, 2)
    whole, single = (flat(OpacusClipper(objective, held).clipped_sum(batch, 0.5)) for held in (10**6, 1))
    assert apart(single, whole) <= 1e-6


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
def test_a_unit_that_is_not_finite_counts_as_zero_and_is_counted(poison: float) -> None:
    objective = models.shaken(models.mlp())
    batch = models.foreign_batch(objective, 5)
    batch.records[2] = poison
    found = OpacusClipper(objective).clipped_sum(batch, 0.5)
    others = OpacusClipper(objective).clipped_sum(Batch.join([batch.part(0, 2), batch.part(3, 2)]), 0.5)
    assert found.dropped == 1
    assert apart(flat(found), flat(others)) <= 1e-6


def test_the_objective_is_left_as_it_was_found() -> None:
    objective = models.shaken(models.vit_written_out())
    parameters = list(objective.parameters())
    parameters[0].grad = kept = torch.ones_like(parameters[0])
    before = {name: set(vars(module)) for name, module in objective.named_modules()}
    marks = [set(vars(parameter)) for parameter in parameters]
    OpacusClipper(objective).clipped_sum(models.foreign_batch(objective), 1.0)
    assert {name: set(vars(module)) for name, module in objective.named_modules()} == before
    assert [set(vars(parameter)) for parameter in parameters] == marks
    assert parameters[0].grad is kept
    assert all(parameter.grad is None for parameter in parameters[1:])
    assert not any(module._forward_hooks or module._backward_hooks for module in objective.modules())


class Odd(nn.Module):
    """Two layers, the second one of which is used in a way that `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, OUTPUTS)
        self.square = nn.Linear(4, 4)
        self.square.requires_grad_(how in ("twice", "unused"))

    def forward(self, x: Tensor) -> Any:
        hidden = self.first(x)
        match self.how:
            case "keyword":
                return functional.linear(self.second(input=hidden), torch.eye(OUTPUTS))
            case "functional":
                return self.second(hidden) + functional.linear(x, self.second.weight)
            case "overwritten":
                return self.second(hidden).relu_()
            case "twice":
                return self.second(self.square(hidden) + self.square(hidden.repeat_interleave(2, 0))[::2])
        outputs: Tensor = self.second(hidden)
        return outputs


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x, x)
        return outputs


class ChannelsLast(nn.Module):
    """A convolution of an image that lies in memory channel by channel: Opacus 1.6 unfolds it as if it did not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, OUTPUTS, 3)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.conv(x.contiguous(memory_format=torch.channels_last))
        return outputs.flatten(2).mean(2)


REFUSED: dict[str, tuple[Callable[[], Foreign], str]] = {
    "an input by keyword": (lambda: Foreign(Odd("keyword"), (4,)), "model.second"),
    "two inputs": (lambda: Foreign(TwoInputs(), (4,)), "model.layer"),
    "a weight used outside its layer": (lambda: Foreign(Odd("functional"), (4,)), "model.second"),
    "an output that is overwritten": (lambda: Foreign(Odd("overwritten"), (4,)), "model.second"),
    "a weight used on other numbers of rows": (lambda: Foreign(Odd("twice"), (4,)), "model.square"),
    "a parameter without a gradient": (lambda: Foreign(Odd("unused"), (4,)), "model.square.weight"),
    "a norm without a rule": (models.layer_norm_without_bias, "model.layers.1"),
    "an image in another memory order": (lambda: Foreign(ChannelsLast(), (4, 6, 6)), "model.conv"),
    "BatchNorm": (lambda: Foreign(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False)), (4,)), "model.1"),
    "a block computed twice": (models.vit_checkpointed, "model.body"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_opacus_gets_wrong_is_refused_by_name(case: str) -> None:
    make, name = REFUSED[case]
    objective = models.shaken(make())
    before = {where: set(vars(module)) for where, module in objective.named_modules()}
    with pytest.raises(BractError, match=name) as caught:
        OpacusClipper(objective).clipped_sum(models.foreign_batch(objective, 4), 1.0)
    assert caught.value.code == NO_CERTIFICATE
    assert {where: set(vars(module)) for where, module in objective.named_modules()} == before


def test_a_layer_out_of_training_mode_is_refused_by_name() -> None:
    objective = models.mlp()
    objective.model.get_submodule("2").eval()
    with pytest.raises(BractError, match=r"model\.2"):
        OpacusClipper(objective).clipped_sum(models.foreign_batch(objective), 1.0)


def test_a_loss_that_is_not_one_value_a_unit_is_refused() -> None:
    class Averaged(Foreign):
        def unit_loss(self, batch: Batch) -> Tensor:
            return super().unit_loss(batch).mean()

    objective = Averaged(nn.Linear(4, OUTPUTS), (4,))
    with pytest.raises(BractError, match="not one value a unit"):
        OpacusClipper(objective).clipped_sum(models.foreign_batch(objective), 1.0)


@theirs
def test_opacus_itself_accepts_the_image_in_another_memory_order_and_is_wrong() -> None:
    objective = models.shaken(Foreign(ChannelsLast(), (4, 6, 6)))
    batch = models.foreign_batch(objective, 4)
    wrapped = GradSampleModule(objective.model, loss_reduction="sum")
    backward((wrapped(batch.records[:, 0]) - batch.draws[:, 0]).square().mean(1).sum())
    weight: Any = objective.model.get_parameter("conv.weight")
    found = weight.grad_sample.sum(0)
    assert (found - weight.grad).norm() > 0.1 * weight.grad.norm()


# inside a script


def script_data(shape: tuple[int, ...] = (4,), count: int = 60) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(count, *shape, generator=generator), torch.randint(OUTPUTS, (count,), generator=generator)
    )


def private(model: nn.Module, data: TensorDataset, *, ours: bool = True, **changes: Any) -> tuple[Any, Any, Any, Any]:
    """The engine, and what it makes of model, optimizer and loader; by our line, or by theirs."""
    options: dict[str, Any] = {
        "module": model,
        "optimizer": torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        "data_loader": DataLoader(data, batch_size=12),
        "noise_multiplier": 1.0,
        "max_grad_norm": 0.7,
        **changes,
    }
    privacy_engine = PrivacyEngine(accountant="rdp")
    made = make_private(privacy_engine, **options) if ours else privacy_engine.make_private(**options)
    return privacy_engine, *made


def backward(loss: Any) -> None:
    loss.backward()


def sums(optimizer: Any) -> Tensor:
    return torch.cat([parameter.summed_grad.flatten() for parameter in optimizer.params])


@theirs
@pytest.mark.parametrize("make", [models.mlp, models.vit_written_out])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_one_line_gives_the_sums_and_the_epsilon_of_opacus(make: Callable[[], Foreign], reduction: str) -> None:
    made = models.shaken(make())
    data = script_data(made.shape)
    sides = [private(copy.deepcopy(made.model), data, ours=ours, loss_reduction=reduction) for ours in (False, True)]
    for inputs, labels in sides[0][3]:
        found = []
        for _, model, optimizer, _ in sides:
            optimizer.zero_grad()
            backward(functional.cross_entropy(model(inputs), labels, reduction=reduction))
            optimizer.step()
            found.append(sums(optimizer))
        assert apart(found[1], found[0]) <= 1e-5
        sides[1][1].load_state_dict(sides[0][1].state_dict())
    theirs, ours = (side[0].get_epsilon(1e-5) for side in sides)
    assert ours == theirs > 0
    assert len(sides[1][0].accountant) == 1
    assert sides[1][0].accountant.history == sides[0][0].accountant.history


def test_an_input_by_keyword_counts_in_the_gradient() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, OUTPUTS)

        def forward(self, x: Tensor, *, scale: Tensor) -> Tensor:
            outputs: Tensor = self.layer(x * scale)
            return outputs

    model = Scaled()
    reference = copy.deepcopy(model)
    data = script_data()
    _, wrapped, optimizer, _ = private(model, data, loss_reduction="sum")
    inputs, labels = data[:6]
    scale = 1 + 4 * torch.rand(6, 1)
    backward(functional.cross_entropy(wrapped(inputs, scale=scale), labels, reduction="sum"))
    optimizer.step()
    expected = torch.zeros(25)
    for row in range(6):
        one = functional.cross_entropy(
            reference(inputs[row : row + 1], scale=scale[row : row + 1]), labels[row : row + 1]
        )
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(one, list(reference.parameters()))])
        expected += gradient * min(1.0, 0.7 / float(gradient.norm()))
    assert apart(sums(optimizer), expected) <= 1e-5


def test_physical_batches_add_up_to_the_logical_one() -> None:
    model = models.mlp().model
    data = script_data()
    found = {}
    for physical in (3, 100):
        torch.manual_seed(1)  # Opacus samples and draws noise by it
        _, wrapped, optimizer, loader = private(copy.deepcopy(model), data)
        with BatchMemoryManager(data_loader=loader, max_physical_batch_size=physical, optimizer=optimizer) as pieces:
            for inputs, labels in pieces:
                optimizer.zero_grad()
                backward(functional.cross_entropy(wrapped(inputs), labels))
                optimizer.step()
                if not optimizer._is_last_step_skipped:
                    break
        found[physical] = sums(optimizer)
    assert apart(found[3], found[100]) <= 1e-5


def test_noise_has_the_size_that_the_engines_own_bound_needs() -> None:
    model = nn.Linear(400, 100)
    _, wrapped, optimizer, _ = private(model, script_data((400,)), noise_multiplier=2.0, loss_reduction="sum")
    backward(wrapped(torch.zeros(0, 400)).sum())
    optimizer.step()
    noise = torch.cat([parameter.grad.flatten() for parameter in wrapped.parameters()])
    assert noise.std().item() == pytest.approx(2.0 * 0.7 * (1 + BookKeeping.slack), rel=0.02)
    assert optimizer.noise_multiplier == 2.0


def test_an_empty_batch_takes_a_step_of_noise_alone_and_is_accounted() -> None:
    privacy_engine, wrapped, optimizer, _ = private(models.mlp().model, script_data())
    before = [parameter.clone() for parameter in wrapped.parameters()]
    backward(functional.cross_entropy(wrapped(torch.zeros(0, 4)), torch.zeros(0, dtype=torch.long)))
    optimizer.step()
    assert not sums(optimizer).any()
    assert all(not torch.equal(one, other) for one, other in zip(before, wrapped.parameters(), strict=True))
    assert all(torch.isfinite(parameter).all() for parameter in wrapped.parameters())
    assert len(privacy_engine.accountant) == 1


def test_gradients_may_be_cleared_between_forward_and_backward() -> None:
    _, wrapped, optimizer, _ = private(models.mlp().model, script_data())
    inputs, labels = script_data()[:5]
    for _ in range(2):
        loss = functional.cross_entropy(wrapped(inputs), labels)
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        assert sums(optimizer).any()


def test_sequences_may_have_another_length_in_each_batch() -> None:
    model = models.Pooled(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, OUTPUTS))
    _, wrapped, optimizer, _ = private(model, script_data())
    for length in (3, 5, 3):
        optimizer.zero_grad()
        backward(wrapped(torch.randn(4, length, 4)).square().mean())
        optimizer.step()
        assert sums(optimizer).any()


def test_evaluation_is_the_model_itself() -> None:
    model = models.mlp().model
    plain = copy.deepcopy(model)
    _, wrapped, _, _ = private(model, script_data())
    inputs, _ = script_data()[:5]
    with torch.no_grad():
        assert torch.equal(wrapped(inputs), plain(inputs))
    wrapped.eval()
    assert torch.equal(wrapped(inputs), plain(inputs))
    wrapped.train()
    assert torch.allclose(wrapped(inputs), plain(inputs))
    assert set(wrapped.to_standard_module().state_dict()) == set(plain.state_dict())


@theirs
def test_a_target_epsilon_is_met_as_in_opacus() -> None:
    options: dict[str, Any] = {"target_epsilon": 3.0, "target_delta": 1e-5, "epochs": 2, "max_grad_norm": 0.7}
    model, data = models.mlp().model, script_data()
    found = []
    for ours in (False, True):
        privacy_engine = PrivacyEngine(accountant="rdp")
        chosen = copy.deepcopy(model)
        optimizer = torch.optim.SGD(chosen.parameters(), lr=0.1)
        full = {**options, "module": chosen, "optimizer": optimizer, "data_loader": DataLoader(data, batch_size=12)}
        made = make_private(privacy_engine, **full) if ours else privacy_engine.make_private_with_epsilon(**full)
        found.append(made[1].noise_multiplier)
    assert found[0] == found[1] > 0


class Centred(nn.Module):
    """Batch statistics without a layer that shows them."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x - x.mean(0))
        return outputs


@theirs
def test_a_model_that_mixes_samples_is_refused_where_opacus_takes_it() -> None:
    inputs, labels = script_data()[:6]
    _, theirs, optimizer, _ = private(Centred(), script_data(), ours=False)
    backward(functional.cross_entropy(theirs(inputs), labels))
    optimizer.step()
    _, ours, _, _ = private(Centred(), script_data())
    with pytest.raises(BractError) as caught:
        ours(inputs)
    assert caught.value.code == CANARY


def test_a_step_with_two_passes_or_a_gradient_that_is_not_clipped_is_refused() -> None:
    inputs, labels = script_data()[:6]
    _, wrapped, optimizer, _ = private(models.mlp().model, script_data())
    backward(functional.cross_entropy(wrapped(inputs) + wrapped(inputs), labels))
    with pytest.raises(BractError, match="more than once"):
        optimizer.step()
    optimizer.zero_grad()
    penalty = next(wrapped.parameters()).square().sum()
    backward(functional.cross_entropy(wrapped(inputs), labels) + penalty)
    with pytest.raises(BractError, match="not clipped"):
        optimizer.step()


def test_a_step_without_zero_grad_is_refused() -> None:
    inputs, labels = script_data()[:6]
    _, wrapped, optimizer, _ = private(models.mlp().model, script_data())
    for _ in range(2):
        backward(functional.cross_entropy(wrapped(inputs), labels))
        if optimizer.params[0].grad is None:
            optimizer.step()
    with pytest.raises(BractError, match="an old one is left"):
        optimizer.step()


@pytest.mark.parametrize("option", [{"clipping": "per_layer"}, {"batch_first": False}, {"grad_sample_mode": "ghost"}])
def test_options_that_are_not_bounded_here_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(BractError, match=next(iter(option))):
        private(models.mlp().model, script_data(), **option)


def test_the_names_of_trained_parameters_stay_those_of_the_model() -> None:
    model = models.mlp().model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, wrapped, _, _ = private(model, script_data())
    assert [name for name, _ in wrapped.named_parameters()] == [
        f"_module.{name}" for name, _ in model.named_parameters()
    ]
    assert len(trained(models.mlp())) == 4
