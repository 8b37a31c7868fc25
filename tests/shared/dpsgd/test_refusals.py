"""The book-keeping engine is right about a model, or refuses it by name: it is never wrong in silence."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from bract.dpsgd.bookkeeping import linear
from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.dpsgd.canary import check_canaries
from bract.errors import CANARY, NO_CERTIFICATE, BractError
from bract.objectives.batch import Batch
from tests.shared.dpsgd import models
from tests.shared.dpsgd.models import OUTPUTS, Foreign, apart, explicit_gradients, explicit_sum, flat, middle

UNITS = 6


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Models begin with the same numbers in every run."""
    torch.manual_seed(0)


class Net(nn.Module):
    """A first layer, whatever `forward` makes of the rest, and the layers that it needs."""

    def __init__(self, use: Callable[["Any", Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.last = nn.Linear(8, OUTPUTS)
        self.use = use

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.use(self, x)
        return outputs


def net(use: Callable[[Any, Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> Foreign:
    return Foreign(Net(use, **layers), (4,))


class Doubled(torch.autograd.Function):
    """What a bad kernel would do: its gradient depends on how many rows there are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * (1.5 if len(gradient) > 1 else 1.0)


def matrix() -> nn.Parameter:
    return nn.Parameter(torch.randn(8, 8))


REFUSED: dict[str, tuple[Callable[[], Foreign], str]] = {
    "an unknown operation on a matrix": (
        lambda: net(lambda m, x: m.last(m.first(x) @ torch.linalg.inv(m.odd)), odd=matrix()),
        r"model\.odd",
    ),
    "a matrix that is multiplied in by hand": (
        lambda: net(lambda m, x: m.last(torch.einsum("bi,ij->bj", m.first(x), m.odd)), odd=matrix()),
        r"model\.odd",
    ),
    "a layer that is used twice": (
        lambda: net(lambda m, x: m.last(m.odd(m.odd(m.first(x)))), odd=nn.Linear(8, 8)),
        r"model\.odd\.weight",
    ),
    "a norm that is used twice": (
        lambda: net(lambda m, x: m.last(m.odd(m.odd(m.first(x)).relu())), odd=nn.LayerNorm(8)),
        r"model\.odd\.weight",
    ),
    "a weight that is used outside its layer": (
        lambda: net(lambda m, x: m.last(m.first(x)) + functional.linear(x, m.first.weight)[:, :OUTPUTS]),
        r"model\.first\.weight",
    ),
    "the transpose of a layer's weight": (
        lambda: net(lambda m, x: m.last(m.odd(m.first(x)) @ m.odd.weight.T), odd=nn.Linear(8, 8)),
        r"model\.odd\.weight",
    ),
    "a bias that is used outside its layer": (
        lambda: net(lambda m, x: m.last(m.first(x) + m.first.bias)),
        r"model\.first\.bias",
    ),
    "a penalty on a weight": (
        lambda: net(lambda m, x: m.last(m.first(x)) + m.last.weight.square().sum()),
        r"model\.last\.weight",
    ),
    "a parameter that is not used": (
        lambda: net(lambda m, x: m.last(m.first(x)), odd=nn.Linear(8, 8)),
        r"model\.odd",
    ),
    "a layer whose output is detached": (
        lambda: net(lambda m, x: m.last(m.first(x) + m.odd(x).detach()), odd=nn.Linear(4, 8)),
        r"model\.odd",
    ),
    "BatchNorm": (
        lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=nn.BatchNorm1d(8)),
        r"model\.odd",
    ),
    "BatchNorm without parameters": (
        lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=nn.BatchNorm1d(8, affine=False)),
        r"model\.odd",
    ),
    "BatchNorm without parameters and statistics": (
        lambda: net(
            lambda m, x: m.last(m.odd(m.first(x))), odd=nn.BatchNorm1d(8, affine=False, track_running_stats=False)
        ),
        r"model\.odd",
    ),
    "dropout": (
        lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=nn.Dropout(0.5)),
        r"model\.odd",
    ),
    "a recurrent layer": (
        lambda: net(lambda m, x: m.last(m.odd(m.first(x)[:, None])[0][:, 0]), odd=nn.GRU(8, 8, batch_first=True)),
        r"model\.odd",
    ),
    "a layer over the units as a sequence": (
        lambda: net(lambda m, x: m.last(m.odd(m.first(x).T).T), odd=nn.Linear(UNITS, UNITS)),
        r"model\.odd\.weight",
    ),
    "a layer on what is no batch": (
        lambda: net(lambda m, x: m.last(m.first(x) + m.odd(torch.ones(8))), odd=nn.Linear(8, 8)),
        r"model\.odd",
    ),
    "a layer on the mean of all rows": (
        lambda: net(lambda m, x: m.last((h := m.first(x)) + m.odd(h.mean(0, keepdim=True))), odd=nn.Linear(8, 8)),
        r"model\.odd\.weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_without_a_bound_is_refused_by_name(case: str) -> None:
    make, name = REFUSED[case]
    objective = models.shaken(make())
    before = {key: value.clone() for key, value in objective.state_dict().items()}
    with pytest.raises(BractError, match=name) as caught:
        BookKeeping(objective).clipped_sum(models.foreign_batch(objective, UNITS), 1.0)
    assert caught.value.code == NO_CERTIFICATE
    assert all(torch.equal(value, before[key]) for key, value in objective.state_dict().items())
    assert {type(parameter) for parameter in objective.parameters()} == {nn.Parameter}
    assert all(parameter.grad is None for parameter in objective.parameters())


def views_apart(model: Any, x: Tensor) -> Tensor:
    """Two views of each row, one view after the other instead of side by side."""
    views = model.last(model.first(torch.cat([x, x.square()])).tanh())
    first, second = views.chunk(2)
    both: Tensor = first * second
    return both


def tokens_first(layer: nn.Module, x: Tensor) -> Tensor:
    """Four tokens a row, in one axis with the rows, the tokens outermost."""
    tokens = x.reshape(len(x), 4, 2).transpose(0, 1).reshape(-1, 2)
    outputs: Tensor = layer(tokens).reshape(4, len(x), 2).transpose(0, 1).reshape(len(x), 8)
    return outputs


def hidden_reference() -> Foreign:
    weight = nn.Parameter(torch.randn(8, 8))
    return net(lambda m, x: m.last(m.odd(h := m.first(x)) + h @ weight), odd=holding(weight))


def holding(weight: nn.Parameter) -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.weight = weight
    return layer


COUPLED: dict[str, Callable[[], Foreign]] = {
    "the batch's mean taken off": lambda: net(lambda m, x: m.last(m.first(x - x.mean(0)))),
    "the batch's mean taken off as a constant": lambda: net(lambda m, x: m.last(m.first(x - x.mean(0).detach()))),
    "normalised by the batch": lambda: net(lambda m, x: m.last(functional.normalize(m.first(x), dim=0))),
    "attention across the batch": lambda: net(
        lambda m, x: m.last(functional.scaled_dot_product_attention(*[m.first(x)] * 3))
    ),
    "a function of the batch's size": lambda: net(lambda m, x: m.last(m.first(x)) * len(x) ** 0.5),
    "a neighbour's row": lambda: net(lambda m, x: m.last((h := m.first(x)) + h.roll(1, 0).detach())),
    "rows in another order": lambda: net(lambda m, x: m.last(m.odd(m.first(x).flip(0)).flip(0)), odd=nn.Linear(8, 8)),
    "rows of a unit apart": lambda: net(views_apart),
    "tokens before units": lambda: net(lambda m, x: m.last(tokens_first(m.odd, m.first(x))), odd=nn.Linear(2, 2)),
    "a sequence before units": lambda: net(
        lambda m, x: m.last(m.odd(m.first(x)[None].expand(6, -1, -1)).mean(0)), odd=nn.LayerNorm(8)
    ),
    "a layer that depends on the batch": lambda: net(
        lambda m, x: m.last(m.odd(m.first(x)) if len(x) > 3 else m.first(x)), odd=nn.Linear(8, 8)
    ),
    "a parameter that is reached by another way": hidden_reference,
    "coins of its own": lambda: net(lambda m, x: m.last(m.first(x) * torch.rand(len(x), 1))),
    "a kernel that is wrong for more than one row": lambda: net(lambda m, x: m.last(Doubled.apply(m.first(x)))),
}


@pytest.mark.parametrize("case", COUPLED)
def test_coupling_that_no_type_shows_is_caught_before_a_step(case: str) -> None:
    objective = models.shaken(COUPLED[case]())
    batch = models.foreign_batch(objective, UNITS)
    with pytest.raises(BractError) as caught:
        check_canaries(objective, BookKeeping(objective), batch, 1.0)
    assert caught.value.code in {CANARY, NO_CERTIFICATE}


@pytest.mark.parametrize("reduce", [Tensor.mean, Tensor.sum, lambda losses: losses[:1], lambda losses: losses[:, None]])
def test_a_loss_that_is_not_one_value_a_unit_is_refused(reduce: Callable[[Tensor], Tensor]) -> None:
    class Reduced(Foreign):
        def unit_loss(self, batch: Batch) -> Tensor:
            return reduce(super().unit_loss(batch))

    objective = Reduced(nn.Linear(4, OUTPUTS), (4,))
    with pytest.raises(BractError) as caught:
        BookKeeping(objective).clipped_sum(models.foreign_batch(objective, UNITS), 1.0)
    assert caught.value.code == NO_CERTIFICATE


def test_a_loss_that_is_diluted_by_the_others_records_is_caught() -> None:
    class Averaged(Foreign):
        def unit_loss(self, batch: Batch) -> Tensor:
            return super().unit_loss(batch) / batch.present.sum().clamp(min=1)

    objective = models.shaken(Averaged(nn.Linear(4, OUTPUTS), (4,)))
    with pytest.raises(BractError) as caught:
        check_canaries(objective, BookKeeping(objective), models.foreign_batch(objective, UNITS), 1.0)
    assert caught.value.code == CANARY


def test_a_raw_gradient_that_reaches_a_parameter_is_refused() -> None:
    objective = models.mlp()
    kept = objective.model.get_parameter("0.weight")

    class Leaking(Foreign):
        def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                kept.sum().backward()  # type: ignore[no-untyped-call]
            return super().record_loss(records, draws)

    leaking = Leaking(objective.model, (4,))
    with pytest.raises(BractError, match=r"model\.0\.weight") as caught:
        BookKeeping(leaking).clipped_sum(models.foreign_batch(objective, UNITS), 1.0)
    assert caught.value.code == NO_CERTIFICATE


def test_a_rule_that_is_wrong_is_caught_before_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = models.shaken(models.vit())
    batch = models.foreign_batch(objective, UNITS)
    check_canaries(objective, BookKeeping(objective), batch, 1.0)
    right = linear.gram_norms
    wrong = lambda x, g, *, biased: (1.2 * right(x, g, biased=biased)[0], right(x, g, biased=biased)[1])  # noqa: E731
    monkeypatch.setattr(linear, "gram_norms", wrong)
    with pytest.raises(BractError) as caught:
        check_canaries(objective, BookKeeping(objective, tune=False), batch, 1.0)
    assert caught.value.code == CANARY


class Twofold(nn.Linear):
    """A linear layer by its type, that does something else."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x).tanh()


class Standardised(nn.Conv1d):
    """A convolution whose weight is standardised first."""

    def forward(self, x: Tensor) -> Any:
        weight = self.weight - self.weight.mean((1, 2), keepdim=True)
        return self._conv_forward(x, weight, self.bias)


def words(layer: nn.Module) -> Foreign:
    return Foreign(models.Pooled(layer, nn.Linear(8, OUTPUTS)), (6,), words=11)


def line(*layers: nn.Module) -> Foreign:
    return Foreign(models.Pooled(*layers, channels=1), (4, 9))


PECULIAR: dict[str, Callable[[], Foreign]] = {
    "a subclass that does something else": lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=Twofold(8, 8)),
    "a weight that is standardised": lambda: line(Standardised(4, OUTPUTS, 3)),
    "a parametrised weight": lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=weight_norm(nn.Linear(8, 8))),
    "an input by keyword": lambda: net(lambda m, x: m.last(input=m.first(input=x))),
    "an output that is overwritten": lambda: net(lambda m, x: m.last(m.first(x).relu_())),
    "padding in an embedding": lambda: words(nn.Embedding(11, 8, padding_idx=3)),
    "an embedding scaled by frequency": lambda: words(nn.Embedding(11, 8, scale_grad_by_freq=True)),
    "an embedding of bounded norm": lambda: words(nn.Embedding(11, 8, max_norm=0.5)),
    "circular padding": lambda: line(nn.Conv1d(4, OUTPUTS, 3, padding=1, padding_mode="circular")),
    "padding of even kernels": lambda: line(nn.Conv1d(4, OUTPUTS, 4, padding="same")),
    "a transposed convolution": lambda: line(nn.ConvTranspose1d(4, OUTPUTS, 3)),
    "a convolution without bias": lambda: line(nn.Conv1d(4, OUTPUTS, 3, bias=False)),
    "a kernel that strides over patches": lambda: line(nn.Conv1d(4, OUTPUTS, 3, stride=3)),
    "a group norm without parameters": lambda: line(nn.Conv1d(4, 8, 3), nn.GroupNorm(2, 8, affine=False)),
    "an instance norm": lambda: line(nn.Conv1d(4, 8, 3), nn.InstanceNorm1d(8), nn.Conv1d(8, OUTPUTS, 1)),
    "a group norm whose bias is frozen": lambda: line(nn.Conv1d(4, 8, 3), half_frozen(nn.GroupNorm(2, 8))),
    "a layer norm whose bias is frozen": lambda: net(
        lambda m, x: m.last(m.odd(m.first(x))), odd=half_frozen(nn.LayerNorm(8))
    ),
    "a convolution whose bias is frozen": lambda: line(half_frozen(nn.Conv1d(4, OUTPUTS, 3))),
    "a linear layer whose bias is frozen": lambda: net(
        lambda m, x: m.last(m.odd(m.first(x))), odd=half_frozen(nn.Linear(8, 8))
    ),
    "a slope for each channel": lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=nn.PReLU(8)),
    "one slope for all": lambda: net(lambda m, x: m.last(m.odd(m.first(x))), odd=nn.PReLU()),
    "bilinear": lambda: net(lambda m, x: m.last(m.odd(h := m.first(x), h.detach())), odd=nn.Bilinear(8, 8, 8)),
    "torch's own attention": lambda: net(
        lambda m, x: m.last(m.odd(*[m.first(x)[:, None]] * 3)[0][:, 0]),
        odd=nn.MultiheadAttention(8, 2, batch_first=True),
    ),
    "a scalar that is multiplied in": lambda: net(
        lambda m, x: m.last(m.first(x) * m.odd), odd=nn.Parameter(torch.tensor(0.7))
    ),
    "a temperature that is divided by": lambda: net(
        lambda m, x: m.last(m.first(x) / m.odd), odd=nn.Parameter(torch.tensor([0.7]))
    ),
    "an exponent": lambda: net(lambda m, x: m.last(m.first(x) * m.odd.exp()), odd=nn.Parameter(torch.zeros(1, 8))),
    "a token that is joined on": lambda: net(
        lambda m, x: m.last(torch.cat([m.first(x)[:, None], m.odd.expand(len(x), -1, -1)], 1).tanh().mean(1)),
        odd=nn.Parameter(torch.randn(1, 2, 8)),
    ),
    "a token that is used twice": lambda: net(
        lambda m, x: m.last((m.first(x) + m.odd).tanh() * m.odd), odd=nn.Parameter(torch.randn(1, 8))
    ),
    "a token subtracted from the left": lambda: net(
        lambda m, x: m.last(m.odd - m.first(x)), odd=nn.Parameter(torch.randn(8))
    ),
    "a sum that is scaled": lambda: net(
        lambda m, x: m.last(torch.add(m.first(x), m.odd, alpha=3)), odd=nn.Parameter(torch.randn(8))
    ),
    "a parameter added in place": lambda: net(
        lambda m, x: m.last(m.first(x).add_(m.odd)), odd=nn.Parameter(torch.randn(8))
    ),
    "a parameter multiplied in place": lambda: net(
        lambda m, x: m.last(m.first(x).mul_(m.odd)), odd=nn.Parameter(torch.randn(8))
    ),
    "a parameter that broadcasts the batch": lambda: net(
        lambda m, x: m.last((m.first(x)[:, None] * m.odd).sum(1)), odd=nn.Parameter(torch.randn(1, 3, 8))
    ),
    "a positional table that is cut": lambda: net(
        lambda m, x: m.last((m.first(x)[:, None] + m.odd[:, :2]).tanh().mean(1)), odd=nn.Parameter(torch.randn(1, 3, 8))
    ),
    "a positional table without leading axis": lambda: net(
        lambda m, x: m.last((m.first(x)[:, None] + m.odd).tanh().mean(1)), odd=nn.Parameter(torch.randn(3, 8))
    ),
    "a weight seen through data": lambda: net(lambda m, x: m.last(m.first(x) * m.first.weight.data.mean())),
    "a weight seen through detach": lambda: net(lambda m, x: m.last(m.first(x) * m.first.weight.detach().mean())),
    "a weight seen through a view": lambda: net(
        lambda m, x: functional.linear(m.first(x), m.last.weight.view(OUTPUTS, 8), m.last.bias)
    ),
    "a slice of a weight": lambda: net(
        lambda m, x: functional.linear(m.first(x)[:, :4], m.last.weight[:, :4], m.last.bias)
    ),
    "a weight through matmul": lambda: net(
        lambda m, x: m.last(m.first(x)) + x @ m.odd, odd=nn.Parameter(torch.randn(4, OUTPUTS))
    ),
    "a layer under no_grad": lambda: net(lambda m, x: m.last(m.first(x) + without(m.odd, x)), odd=nn.Linear(4, 8)),
    "checkpointed layers": lambda: net(
        lambda m, x: m.last(torch.utils.checkpoint.checkpoint(m.odd, m.first(x), use_reentrant=False)),
        odd=nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)),
    ),
    "a convolution of one image": lambda: Foreign(
        models.Pooled(nn.Conv2d(4, 8, 3, padding_mode="reflect", padding=1), nn.Conv2d(8, OUTPUTS, 2, 2), channels=1),
        (4, 6, 6),
    ),
    "an image in another memory order": lambda: Foreign(
        nn.Sequential(Reordered(), models.Pooled(nn.Conv2d(4, 8, 3), nn.GroupNorm(2, 8), channels=1), nn.Linear(8, 5)),
        (4, 6, 6),
    ),
    "three axes": lambda: Foreign(models.Pooled(nn.Conv3d(2, OUTPUTS, 2), channels=1), (2, 3, 3, 3)),
}  # fmt: skip


class Reordered(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last)


def half_frozen(layer: Any) -> nn.Module:
    layer.bias.requires_grad_(False)
    frozen: nn.Module = layer
    return frozen


def without(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = layer(x)
    return outputs


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("case", PECULIAR)
def test_a_peculiar_model_is_bounded_rightly_or_refused(case: str, most: int) -> None:
    objective = models.shaken(PECULIAR[case]()).double()
    batch = models.foreign_batch(objective, UNITS, most)
    rows, norms = explicit_gradients(objective, batch)
    clip = middle(norms)
    try:
        found = BookKeeping(objective).clipped_sum(batch, clip)
    except BractError as refusal:
        assert refusal.code == NO_CERTIFICATE
        assert "model." in refusal.detail or "objective" in refusal.detail
        return
    assert apart(flat(found), explicit_sum(rows, norms, clip)) <= 1e-10
