"""Tiny models as others write them, each under a plain loss, and what engines are compared with."""

import importlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from timm.layers.norm import GroupNorm
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from bract.dpsgd.clipper import ClippedSum, trained
from bract.dpsgd.vmap import explicit_gradient
from bract.objectives.batch import Batch
from bract.objectives.objective import Objective

OUTPUTS = 5


class Foreign(Objective):
    """A model under a squared error against each record's own random target; `record` makes one record."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...], words: int = 0) -> None:
        super().__init__()
        self.model = model
        self.shape, self.words = shape, words
        self.autocast = False

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.randn(count, OUTPUTS, generator=generator)

    def record_loss(self, records: Tensor, draws: Tensor) -> Tensor:
        with torch.autocast(records.device.type, torch.bfloat16) if self.autocast else nullcontext():
            outputs: Tensor = self.model(records)
        return (outputs.to(draws.dtype).flatten(1)[:, :OUTPUTS] - draws).square().mean(1)


class Pooled(nn.Module):
    """Layers, then the mean over all axes but the first and the channels."""

    def __init__(self, *layers: nn.Module, channels: int = -1) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y.flatten(2).mean(2) if self.channels == 1 else y.flatten(1, -2).mean(1)


class TiedWords(nn.Module):
    """Masked words with plain positions and one matrix for embedding and head."""

    def __init__(self, words: int = 11, length: int = 6, dim: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.place = nn.Parameter(torch.zeros(1, length, dim))
        self.norm = nn.LayerNorm(dim)
        self.mix = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.embed(words) + self.place
        hidden = hidden + functional.gelu(self.mix(self.norm(hidden))).cumsum(1)
        logits: Tensor = self.head(hidden)
        return logits.log_softmax(-1).mean(1)


class Checkpointed(nn.Module):
    """A vision transformer whose blocks are computed twice instead of being kept."""

    def __init__(self) -> None:
        super().__init__()
        self.body = vit_model()

    def forward(self, x: Tensor) -> Tensor:
        body: Any = self.body
        hidden = body._pos_embed(body.patch_embed(x))
        for block in body.blocks:
            hidden = checkpoint(block, hidden, use_reentrant=False)
        outputs: Tensor = body.forward_head(body.norm(hidden))
        return outputs


def vit_model(**changes: Any) -> nn.Module:
    sizes: dict[str, Any] = {"img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2}
    model: nn.Module = VisionTransformer(**{**sizes, "num_classes": OUTPUTS, "init_values": 1e-5, **changes})
    return model


def vit() -> Foreign:
    return Foreign(vit_model(), (1, 8, 8))


def vit_written_out() -> Foreign:
    """Its attention by plain products, for engines that need a rule under `torch.func`."""
    model: Any = vit_model()
    for block in model.blocks:
        block.attn.fused_attn = False
    return Foreign(model, (1, 8, 8))


def vit_of_one_block() -> Foreign:
    return Foreign(vit_model(depth=1), (1, 8, 8))


def vit_with_registers() -> Foreign:
    return Foreign(vit_model(reg_tokens=2, qk_norm=True, global_pool="avg"), (1, 8, 8))


def vit_checkpointed() -> Foreign:
    return Foreign(Checkpointed(), (1, 8, 8))


def convnext() -> Foreign:
    model = ConvNeXt(in_chans=1, num_classes=OUTPUTS, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16))
    return Foreign(model, (1, 32, 32))


def convnext_group_norm() -> Foreign:
    norm = partial(GroupNorm, num_groups=4)
    sizes: dict[str, Any] = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "conv_mlp": True}
    return Foreign(ConvNeXt(in_chans=1, num_classes=OUTPUTS, norm_layer=norm, **sizes), (1, 32, 32))


def resnet() -> Foreign:
    norm: Any = partial(GroupNorm, num_groups=4)
    block: Any = BasicBlock
    model = ResNet(block, (1, 1, 1, 1), OUTPUTS, 1, channels=(8, 8, 16, 16), stem_width=8, norm_layer=norm)
    return Foreign(model, (1, 16, 16))


def lora() -> Foreign:
    """LoRA's factors in a frozen vision transformer; nothing else is trained. Its import takes seconds."""
    peft: Any = importlib.import_module("peft")
    config = peft.LoraConfig(r=2, target_modules=["qkv", "fc1", "proj"], lora_dropout=0.0)
    return Foreign(peft.get_peft_model(vit_model(), config), (1, 8, 8))


def tied() -> Foreign:
    return Foreign(TiedWords(), (6,), words=11)


def mlp() -> Foreign:
    return Foreign(nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, OUTPUTS)), (4,))


def conv_1d() -> Foreign:
    layers = [nn.Conv1d(4, 8, 3, groups=2, padding=1), nn.GELU(), nn.Conv1d(8, OUTPUTS, 3, stride=2, dilation=2)]
    return Foreign(Pooled(*layers, channels=1), (4, 9))


def conv_2d() -> Foreign:
    layers = [
        nn.Conv2d(4, 8, 3, groups=4, padding="same"),
        nn.GELU(),
        nn.Conv2d(8, 8, (3, 1), groups=8, stride=(2, 1), bias=False),
        nn.Conv2d(8, OUTPUTS, 1),
    ]
    return Foreign(Pooled(*layers, channels=1), (4, 6, 5))


def layer_norm_without_bias() -> Foreign:
    return Foreign(Pooled(nn.Linear(4, 8), nn.LayerNorm(8, bias=False), nn.GELU(), nn.Linear(8, OUTPUTS)), (3, 4))


def layer_norm_of_two_axes() -> Foreign:
    return Foreign(Pooled(nn.Linear(4, 8), nn.LayerNorm((3, 8)), nn.GELU(), nn.Linear(8, OUTPUTS)), (3, 4))


def rms_norm() -> Foreign:
    return Foreign(Pooled(nn.Linear(4, 8), nn.RMSNorm(8), nn.GELU(), nn.Linear(8, OUTPUTS)), (3, 4))


def group_norm() -> Foreign:
    layers = [nn.Conv2d(4, 8, 3), nn.GroupNorm(4, 8), nn.GELU(), nn.Conv2d(8, OUTPUTS, 1)]
    return Foreign(Pooled(*layers, channels=1), (4, 6, 6))


def frozen_parts() -> Foreign:
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, OUTPUTS))
    for parameter in (*model[0].parameters(), model[1].weight, model[3].bias):
        parameter.requires_grad_(False)
    return Foreign(model, (4,))


MODELS: dict[str, Callable[[], Foreign]] = {
    make.__name__: make
    for make in (
        *(vit, vit_written_out, vit_with_registers, vit_checkpointed, convnext, convnext_group_norm, resnet, tied),
        *(mlp, conv_1d, conv_2d, layer_norm_without_bias, layer_norm_of_two_axes, rms_norm, group_norm, frozen_parts),
    )
}


def shaken(objective: Foreign, seed: int = 0, by: float = 0.3) -> Foreign:
    """The objective with no parameter at a special value: zeros and ones hide gradients that are missing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return objective


def foreign_batch(objective: Foreign, units: int = 5, most: int = 1, seed: int = 0) -> Batch:
    """Random records; with more than one place a unit, the first unit is full, the second empty, the others between."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(objective.parameters()).dtype
    shape = (units, most, *objective.shape)
    if objective.words:
        records = torch.randint(objective.words, shape, generator=generator)
    else:
        records = torch.randn(shape, generator=generator).to(dtype)
    present = torch.rand(units, most, generator=generator) < 0.6
    present[:, 0] = True
    present[0] = True
    if most > 1:
        present[1] = False
    return Batch(records, present, objective.draw(units * most, generator).to(dtype).reshape(units, most, OUTPUTS))


def explicit_gradients(objective: Objective, batch: Batch) -> tuple[list[Tensor], list[float]]:
    """Each unit's whole gradient (P,) in float64 by a backward pass over it alone, and its norm."""
    alone = [explicit_gradient(objective, batch.part(unit, 1)) for unit in range(len(batch))]
    rows = [torch.cat([each[name].detach().flatten().double() for name in trained(objective)]) for each in alone]
    return rows, [float(row.norm()) for row in rows]


def middle(norms: list[float]) -> float:
    """A clip that clips about half of the units."""
    finite = sorted(norm for norm in norms if 0 < norm < math.inf)
    return finite[(len(finite) - 1) // 2]


def explicit_sum(rows: list[Tensor], norms: list[float], clip: float) -> Tensor:
    """The clipped sum by its definition, (P,)."""
    return torch.stack([row * min(1.0, clip / max(norm, 1e-300)) for row, norm in zip(rows, norms, strict=True)]).sum(0)


def flat(summed: ClippedSum) -> Tensor:
    """A clipped sum as one vector (P,), float64."""
    return torch.cat([each.detach().flatten().to("cpu", torch.float64) for each in summed.gradients])


def apart(found: Tensor, expected: Tensor) -> float:
    """The error relative to what is expected."""
    return float((found - expected.cpu()).norm() / expected.norm())
