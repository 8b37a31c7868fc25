"""Every engine gives the clipped sum that its definition gives: on every objective and encoder, and on others' models."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.exc import InvalidCxxCompiler

from bract.dpsgd.bookkeeping.clipper import BookKeeping
from bract.dpsgd.canary import check_canaries
from bract.dpsgd.clipper import Engine, engine
from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.objectives.batch import Batch
from bract.objectives.build import build
from bract.objectives.objective import GroupObjective, MomentObjective, Objective
from bract.objectives.spec import (
    CATALOGUE,
    BarlowSpec,
    BucketContrastSpec,
    ByolSpec,
    LatentImageSpec,
    MaskedImageSpec,
    MaskedTableSpec,
    ObjectiveSpec,
    PublicContrastSpec,
    SimSiamSpec,
    SpectralContrastSpec,
    VicRegSpec,
)
from tests.shared.dpsgd import models
from tests.shared.dpsgd.models import MODELS, Foreign, apart, explicit_gradients, explicit_sum, flat, middle

ENGINES: dict[str, Engine] = {"bract": engine("bract", tune=False), "vmap": engine("vmap"), "opacus": engine("opacus")}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
FORMS = [(torch.float32, 1), (torch.float64, 3)]
"""Types, and places a unit."""
UNITS = 6

ENCODERS: dict[str, tuple[EncoderSpec, tuple[int, ...]]] = {
    "vit": (ViTSpec("vit", image_size=8, patch_size=2, dim=16, depth=1, heads=2), (1, 8, 8)),
    "table": (TableSpec("table", "adult", dim=16, depth=2), (103,)),
}
OBJECTIVES: dict[str, ObjectiveSpec] = {
    spec.kind: spec
    for spec in (
        MaskedImageSpec("masked-image", decoder_dim=8, decoder_heads=2),
        MaskedTableSpec("masked-table"),
        LatentImageSpec("latent-image", predictor_dim=8, predictor_heads=2),
        SimSiamSpec("simsiam", width=8, hidden=6),
        ByolSpec("byol", width=8, hidden=6),
        PublicContrastSpec("public-contrast", width=8),
        BucketContrastSpec("bucket-contrast", width=8, group_size=3, group_capacity=4),
        BarlowSpec("barlow", width=4),
        VicRegSpec("vicreg", width=4),
        SpectralContrastSpec("spectral-contrast", width=4),
    )
}
CASES = [(kind, encoder) for kind, entry in CATALOGUE.items() for encoder in entry.encoders]

pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop because")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Models begin with the same numbers in every run."""
    torch.manual_seed(0)


def test_every_objective_and_encoder_of_the_catalogue_has_a_case() -> None:
    assert set(OBJECTIVES) == set(CATALOGUE)
    assert {encoder for _, encoder in CASES} <= set(ENCODERS)


def ours(kind: str, encoder: str, dtype: torch.dtype, most: int) -> tuple[Objective, Batch]:
    """An objective of the catalogue with its weights away from their first values, and units of `most` places."""
    spec, shape = ENCODERS[encoder]
    objective = build(spec, OBJECTIVES[kind], 0).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    objective.begin()
    places = objective.group_capacity if isinstance(objective, GroupObjective) else most
    records = torch.rand(UNITS, places, *shape, generator=generator).to(dtype)
    present = torch.rand(UNITS, places, generator=generator) < 0.7
    present[0], present[1] = True, False
    draws = objective.draw(UNITS * places, generator)
    draws = draws.to(dtype) if draws.is_floating_point() else draws
    batch = Batch(records, present, draws.reshape(UNITS, places, *draws.shape[1:]))
    if isinstance(objective, MomentObjective):
        with torch.no_grad():
            objective.receive(objective.moment(batch).mean(0).float())
    return objective, batch


@pytest.mark.parametrize(("dtype", "most"), FORMS)
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("kind", "encoder"), CASES)
def test_an_engine_agrees_with_the_definition(
    kind: str, encoder: str, name: str, dtype: torch.dtype, most: int
) -> None:
    objective, batch = ours(kind, encoder, dtype, most)
    rows, norms = explicit_gradients(objective, batch)
    assert norms[1] == 0
    for clip in (middle(norms), 1e3 * max(norms)):
        found = ENGINES[name](objective).clipped_sum(batch, clip)
        assert apart(flat(found), explicit_sum(rows, norms, clip)) <= TOLERANCE[dtype]
        assert found.dropped == 0


def graphs() -> int:
    """How many graphs were compiled so far: a pass that quietly ran as it is would add none."""
    return int(counters["stats"]["unique_graphs"])


def untuned(objective: Objective) -> BookKeeping:
    """Routes by sizes alone; `test_routes_change_no_number` has the others."""
    return BookKeeping(objective, tune=False)


def agree(objective: Foreign, batch: Batch, tolerance: float, clipper: Engine = untuned) -> None:
    rows, norms = explicit_gradients(objective, batch)
    for clip in (middle(norms), 1e3 * max(norms)):
        assert apart(flat(clipper(objective).clipped_sum(batch, clip)), explicit_sum(rows, norms, clip)) <= tolerance


@pytest.mark.parametrize(("dtype", "most"), FORMS)
@pytest.mark.parametrize("name", MODELS)
def test_models_of_others_need_no_change(name: str, dtype: torch.dtype, most: int) -> None:
    objective = models.shaken(MODELS[name]()).to(dtype)
    before = copy.deepcopy(objective.state_dict())
    batch = models.foreign_batch(objective, UNITS, most)
    agree(objective, batch, TOLERANCE[dtype])
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert {type(parameter) for parameter in objective.parameters()} == {torch.nn.Parameter}
    check_canaries(objective, untuned(objective), batch, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_lora_factors_alone_are_trained(dtype: torch.dtype) -> None:
    objective = models.shaken(models.lora()).to(dtype)
    trained = [name for name, parameter in objective.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    for name in ("bract", "opacus"):
        agree(objective, models.foreign_batch(objective, UNITS, 2), TOLERANCE[dtype], ENGINES[name])


@pytest.mark.parametrize("tune", [True, False])
@pytest.mark.parametrize("name", ["vit", "tied", "convnext", "resnet"])
def test_routes_change_no_number(name: str, *, tune: bool) -> None:
    objective = models.shaken(MODELS[name]()).double()
    batch = models.foreign_batch(objective, UNITS)
    agree(objective, batch, 1e-10, lambda one: BookKeeping(one, tune=tune, memory=1e6 if tune else 0.0))


# the same numbers, however the pass is run


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("name", ["vit", "convnext_group_norm", "tied", "mlp", "rms_norm"])
def test_under_bf16_autocast_the_sum_is_near_and_the_clip_holds(name: str) -> None:
    objective = models.shaken(MODELS[name]())
    batch = models.foreign_batch(objective, UNITS, 2)
    objective.autocast = True
    clipper = untuned(objective)
    rows, norms = explicit_gradients(objective, batch)
    clip = middle(norms)
    assert apart(flat(clipper.clipped_sum(batch, clip)), explicit_sum(rows, norms, clip)) <= 0.05
    for unit in range(UNITS):
        alone = flat(clipper.clipped_sum(batch.part(unit, 1), 1e-3))
        assert float(alone.norm()) <= 1e-3 * (1 + clipper.slack)
        assert float(alone.norm()) > 0.9e-3 or norms[unit] == 0


def test_precision_may_also_be_asked_of_the_engine() -> None:
    objective = models.shaken(models.vit())
    batch = models.foreign_batch(objective, UNITS, 2)
    rows, norms = explicit_gradients(objective, batch)
    clipper = BookKeeping(objective, precision=torch.bfloat16)
    found = flat(clipper.clipped_sum(batch, middle(norms)))
    assert 1e-6 < apart(found, explicit_sum(rows, norms, middle(norms))) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        models.group_norm,
        *(pytest.param(make, marks=pytest.mark.nightly) for make in (models.mlp, models.tied, models.vit_of_one_block)),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_pass_gives_the_same_sum(make: Callable[[], Foreign]) -> None:
    objective = models.shaken(make())
    batch = models.foreign_batch(objective, UNITS, 2)
    before = graphs()
    try:
        agree(objective, batch, 1e-5, lambda one: BookKeeping(one, compiled=True))
    except InvalidCxxCompiler:
        pytest.skip("torch.compile needs a C++ compiler")
    assert graphs() > before


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [models.mlp, models.tied, pytest.param(models.vit_of_one_block, marks=pytest.mark.nightly)]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_compiled_model_gives_the_same_sum(make: Callable[[], Foreign]) -> None:
    objective = models.shaken(make())
    before = graphs()
    plain = copy.deepcopy(objective)
    batch = models.foreign_batch(objective, UNITS, 2)
    rows, norms = explicit_gradients(plain, batch)
    objective.model.compile(backend="aot_eager")
    found = BookKeeping(objective).clipped_sum(batch, middle(norms))
    assert apart(flat(found), explicit_sum(rows, norms, middle(norms))) <= 1e-5
    assert graphs() > before


@pytest.mark.parametrize("name", ["vit", "tied", "resnet"])
def test_physical_batches_of_any_size_give_the_same_sum(name: str) -> None:
    objective = models.shaken(MODELS[name]()).double()
    batch = models.foreign_batch(objective, 7, 2)
    rows, norms = explicit_gradients(objective, batch)
    expected = explicit_sum(rows, norms, middle(norms))
    for physical in (1, 3, 7, 128):
        clipper = BookKeeping(objective, physical=physical, tune=False)
        assert apart(flat(clipper.clipped_sum(batch, middle(norms))), expected) <= 1e-10
    for name_of, make in ENGINES.items():
        if name_of == "opacus" and name != "vit":
            continue
        clipper_of = make(objective)
        pieces = [flat(clipper_of.clipped_sum(piece, middle(norms))) for piece in batch.chunks(3)]
        assert apart(torch.stack(pieces).sum(0), expected) <= 1e-10


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("name", ["vit", "convnext", "resnet", "mlp", "conv_1d", "rms_norm", "layer_norm_without_bias"])
def test_a_unit_that_is_not_finite_changes_no_other(name: str, poison: float) -> None:
    objective = models.shaken(MODELS[name]())
    batch = models.foreign_batch(objective, UNITS, 2)
    _, norms = explicit_gradients(objective, batch)
    clipper = untuned(objective)
    others = Batch.join([batch.part(0, 3), batch.part(4, 2)])
    expected = flat(clipper.clipped_sum(others, middle(norms)))
    batch.draws[3] = poison  # the target: what passed the layers is finite, what comes back is not
    found = clipper.clipped_sum(batch, middle(norms))
    assert found.dropped == 1
    assert apart(flat(found), expected) <= 1e-5
    batch.records[3] = poison
    found = clipper.clipped_sum(batch, middle(norms))
    assert found.dropped == 1
    assert apart(flat(found), expected) <= 1e-5


@pytest.mark.parametrize("name", ENGINES)
def test_units_without_records_and_batches_without_units_add_nothing(name: str) -> None:
    objective = models.shaken(models.mlp())
    batch = models.foreign_batch(objective, 4, 2)
    clipper = ENGINES[name](objective)
    absent = Batch(batch.records, torch.zeros_like(batch.present), batch.draws)
    assert not flat(clipper.clipped_sum(absent, 1.0)).any()
    nobody = Batch(batch.records[:0], batch.present[:0], batch.draws[:0])
    assert not flat(clipper.clipped_sum(nobody, 1.0)).any()
    assert flat(clipper.clipped_sum(batch, 1.0)).any()


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("clip", [1e-6, 0.1, 1e4])
def test_no_unit_adds_more_than_the_clip(name: str, clip: float) -> None:
    for make in (models.mlp, models.vit_written_out, models.conv_2d):
        objective = models.shaken(make(), by=1.0)
        batch = models.foreign_batch(objective, 5, 2)
        clipper = ENGINES[name](objective)
        for unit in range(5):
            added = flat(clipper.clipped_sum(batch.part(unit, 1), clip)).norm()
            assert added <= clip * (1 + clipper.slack + 1e-12)


def test_gradients_that_cancel_within_a_unit_stay_within_the_clip() -> None:
    objective = models.shaken(models.layer_norm_without_bias())
    batch = models.foreign_batch(objective, 4, 2)
    batch.present[:] = True

    class Cancelled(Foreign):
        """The second record undoes the first one's gradient but for a ten-millionth."""

        def unit_loss(self, batch: Batch) -> Tensor:
            losses = self.record_loss(*batch.rows()).reshape(batch.present.shape)
            return 1e4 * (losses[:, 0] - (1 - 1e-7) * losses[:, 1]) * batch.present[:, 0]

    cancelled = Cancelled(objective.model, objective.shape)
    batch.records[:, 1], batch.draws[:, 1] = batch.records[:, 0], batch.draws[:, 0]
    for tune, memory in ((False, 0.0), (True, 0.0), (True, 1e6)):
        clipper = BookKeeping(cancelled, tune=tune, memory=memory)
        for unit in range(4):
            assert flat(clipper.clipped_sum(batch.part(unit, 1), 1e-4)).norm() <= 1e-4 * (1 + clipper.slack)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_gives_the_same_sum(name: str) -> None:
    made: Any = models.shaken(MODELS[name]()).double()
    batch = models.foreign_batch(made, UNITS, 2)
    rows, norms = explicit_gradients(made, batch)
    objective = copy.deepcopy(made).cuda()
    found = BookKeeping(objective).clipped_sum(batch, middle(norms))
    assert apart(flat(found), explicit_sum(rows, norms, middle(norms))) <= 1e-9
