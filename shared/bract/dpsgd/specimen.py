"""From a name to what the falsifier tests: an objective of the catalogue or a user's own, small, with example records."""

import dataclasses
import importlib
import inspect
import sys
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from bract.encoders.spec import EncoderSpec, TableSpec, ViTSpec
from bract.errors import MALFORMED, BractError
from bract.objectives.build import build
from bract.objectives.objective import Objective
from bract.objectives.spec import CATALOGUE, ObjectiveSpec
from bract.samples import adult_parts, digits_parts
from bract.value import decode

EncoderName = Literal["table", "vit"]
_RECORDS = 64
_SMALL: dict[str, EncoderSpec] = {
    "table": TableSpec("table", "adult", dim=16),
    "vit": ViTSpec("vit", image_size=8, patch_size=2, dim=16, depth=1, heads=2),
}


@dataclass(frozen=True, eq=False)
class Specimen:
    """An objective and example records (N, …) of what it takes."""

    kind: str
    objective: Objective
    records: Tensor


def specimen(name: str, encoder: EncoderName | None = None) -> Specimen:
    """What a name stands for.

    Args:
        name: a kind of the catalogue, or MODULE:NAME of a subclass of `Objective`, an instance, or a factory that takes
            nothing and makes one. Whatever has an attribute `example_records` (N, …) is tested on those.
        encoder: whose examples to use; by default told from the objective's encoder.

    Raises:
        BractError: `malformed` when nothing of that name can be had, or no examples are known for it.
    """
    if ":" not in name:
        return _of_catalogue(name, encoder)
    module, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise BractError(MALFORMED, f"{name}: {error}") from error
    objective = found if isinstance(found, Objective) else _made(name, found, encoder)
    own = getattr(found, "example_records", getattr(objective, "example_records", None))
    records = own if isinstance(own, Tensor) else _examples(name, objective, encoder)
    return Specimen(name, objective, records)


def specimens(kind: str) -> list[Specimen]:
    """An objective of the catalogue on each encoder that it fits."""
    return [_of_catalogue(kind, encoder) for encoder in encoders_of(kind)]


def encoders_of(kind: str) -> tuple[EncoderName, ...]:
    """The encoders that an objective of the catalogue fits.

    Raises:
        BractError: `malformed` for a kind that there is not.
    """
    if kind not in CATALOGUE:
        raise BractError(MALFORMED, f"{kind}: neither MODULE:NAME nor one of {', '.join(CATALOGUE)}")
    return tuple(name for name in get_args(EncoderName) if name in CATALOGUE[kind].encoders)


def _of_catalogue(kind: str, encoder: EncoderName | None) -> Specimen:
    fitting = encoders_of(kind)
    chosen = encoder or fitting[0]
    objective = build(_SMALL[chosen], decode_spec(kind), 0)
    name = kind if len(fitting) == 1 else f"{kind} ({chosen})"
    return Specimen(name, objective, _examples(kind, objective, chosen))


def decode_spec(kind: str) -> ObjectiveSpec:
    """The default spec of an objective of the catalogue."""
    for cls in get_args(get_args(ObjectiveSpec)[0]):
        if kind in get_args(typing.get_type_hints(cls)["kind"]):
            spec: ObjectiveSpec = decode(cls, {"kind": kind})
            return spec
    raise BractError(MALFORMED, f"{kind}: no spec of this version")


def _made(name: str, factory: Callable[..., object], encoder: EncoderName | None) -> Objective:
    """What a class or a factory makes: of nothing, or of the specs that its parameters are annotated with."""
    try:
        made = factory(*_arguments(factory, encoder))
    except TypeError as error:
        raise BractError(MALFORMED, f"{name}: {error}") from error
    if not isinstance(made, Objective):
        raise BractError(MALFORMED, f"{name}: {type(made).__name__} is no Objective")
    return made


def _arguments(factory: Callable[..., object], encoder: EncoderName | None) -> list[object]:
    target: Any = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    hints = typing.get_type_hints(target)
    given: list[object] = []
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            continue
        given.append(_spec_for(hints.get(parameter.name), encoder))
    return given


def _spec_for(hint: Any, encoder: EncoderName | None) -> object:
    small = [spec for name, spec in _SMALL.items() if encoder in (None, name)]
    for spec in small:
        if hint is type(spec) or type(spec) in get_args(hint):
            return spec
    if dataclasses.is_dataclass(hint) and (kinds := get_args(typing.get_type_hints(hint).get("kind"))):
        return decode(hint, {"kind": kinds[0]})  # type: ignore[arg-type]
    raise BractError(MALFORMED, "name a factory that takes nothing and makes the objective")


def _examples(name: str, objective: Objective, encoder: EncoderName | None) -> Tensor:
    """Packaged real records in the form that the objective's encoder takes."""
    module: Any = getattr(objective, "encoder", None)
    match encoder or _kind_of(module):
        case "table":
            return torch.from_numpy(adult_parts(1, 0).pool.inputs[:_RECORDS])
        case "vit":
            images = torch.from_numpy(digits_parts(1, 0).pool.inputs[:_RECORDS])
            side = int(module.side * module.patch)
            channels = int(module.patch_numbers // module.patch**2)
            grown = functional.interpolate(images, (side, side), mode="bilinear") if side != 8 else images
            return grown.expand(-1, channels, -1, -1).contiguous()
    raise BractError(MALFORMED, f"{name}: no examples are known; give it an attribute example_records (N, …)")


def _kind_of(module: object) -> EncoderName | None:
    """Table or image encoder, told without loading the libraries of either."""
    names = {cls.__name__ for cls in type(module).__mro__}
    return "table" if "TableEncoder" in names else "vit" if "ViTEncoder" in names else None
