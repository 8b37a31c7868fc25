"""`bract lineage add`: what no round made, by the digests of its files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.digest import Digest, digest_file
from bract.errors import MALFORMED, BractError
from bract.model import Derived, ExternalSource, ModelCard, NodeKind, PublicWeights, Role
from bract.release import Criterion, Override
from bract.signing import Envelope, sign
from bract.value import decode, digest_value
from bract.vocabulary.purposes import Purpose
from bract_server.cli.approval import read_key, signature
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.cli.release import modifier
from bract_server.home import open_home
from bract_server.hub import open_registry
from bract_server.registry.store import HubRegistry

app = typer.Typer(help="Register what no round made.", no_args_is_help=True, rich_markup_mode=None)

File = Annotated[Path, typer.Option(help="The file; only its digest and size are kept.")]
Data = Annotated[list[str], typer.Option(help="A snapshot (SITE/DIGEST) or an external source; repeat.")]
Permits = Annotated[list[Purpose], typer.Option(help="A use that the licence allows; repeat.")]
Modifiers = Annotated[list[str] | None, typer.Option("--modifier", help="A DUO modifier, CODE or CODE=VALUE; repeat.")]
OverrideKey = Annotated[Path | None, typer.Option(help="Key of a data protection officer who takes it on themselves.")]
OverrideReason = Annotated[str, typer.Option(help="Why; with --override-key.")]


@app.command("source")
def add_source(
    name: str,
    url: Annotated[str, typer.Option(help="Where it came from.")],
    licence: Annotated[str, typer.Option(help="Under what licence: an SPDX identifier, or its name.")],
    file: File,
    permits: Permits,
    modifiers: Modifiers = None,
    signal: Annotated[
        Path | None, typer.Option(help="What the publisher said about mining, as it was fetched.")
    ] = None,
    signal_kind: Annotated[str, typer.Option(help="tdmrep, aipref, or none (asked and found nothing).")] = "none",
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register data from elsewhere, with their licence and what their publisher said about mining."""
    said = None
    if signal is not None or signal_kind != "none":
        raw = "" if signal is None else signal.read_text(encoding="utf-8")
        said = {"source": signal_kind, "raw": raw, "fetched_at": now()}
    value = {
        "name": name,
        "url": url,
        "licence": licence,
        "content": digest_given(file),
        "permits": permits,
        "modifiers": [modifier(one) for one in modifiers or ()],
        "signal": said,
    }
    ref = open_registry(open_home(hub)).add_source(decode(ExternalSource, value), now())
    tell({"name": name, "ref": ref}, as_json)


@app.command("weights")
def add_weights(
    name: str,
    url: Annotated[str, typer.Option(help="Where they came from.")],
    licence: Annotated[str, typer.Option(help="Under what licence: an SPDX identifier, or its name.")],
    file: File,
    permits: Permits,
    modifiers: Modifiers = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register weights from elsewhere that something starts from."""
    value = {
        "name": name,
        "url": url,
        "licence": licence,
        "weights": digest_given(file),
        "permits": permits,
        "modifiers": [modifier(one) for one in modifiers or ()],
    }
    ref = open_registry(open_home(hub)).add_source(decode(PublicWeights, value), now())
    tell({"name": name, "ref": ref}, as_json)


@app.command("fine-tune")
def add_finetune(
    name: str,
    start: Annotated[str, typer.Option("--from", help="The model that it started from.")],
    weights: File,
    data: Data,
    purpose: Annotated[Purpose, typer.Option(help="For what it was made.")] = Purpose.FINETUNING,
    code: Annotated[str, typer.Option(help="The commit or program that made it.")] = "",
    override_key: OverrideKey = None,
    override_reason: OverrideReason = "",
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register a fine-tuned model."""
    inputs = [(start, Role.INITIALISED), *((one, Role.TRAINED) for one in data)]
    given = {"kind": NodeKind.FINETUNE, "name": name, "purpose": purpose, "code": code}
    _derive(open_registry(open_home(hub)), given, inputs, weights, (override_key, override_reason), as_json)


@app.command("student")
def add_student(
    name: str,
    teacher: Annotated[list[str], typer.Option(help="A model that it learnt from; repeat.")],
    weights: File,
    data: Data,
    purpose: Annotated[Purpose, typer.Option(help="For what it was made.")] = Purpose.DISTILLATION,
    start: Annotated[str | None, typer.Option("--from", help="The weights that it started from, if any.")] = None,
    code: Annotated[str, typer.Option(help="The commit or program that made it.")] = "",
    override_key: OverrideKey = None,
    override_reason: OverrideReason = "",
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register a student that was distilled from models."""
    inputs = [*((one, Role.DISTILLED) for one in teacher), *((one, Role.TRAINED) for one in data)]
    if start is not None:
        inputs.append((start, Role.INITIALISED))
    given = {"kind": NodeKind.STUDENT, "name": name, "purpose": purpose, "code": code}
    _derive(open_registry(open_home(hub)), given, inputs, weights, (override_key, override_reason), as_json)


@app.command("evaluation")
def add_evaluation(
    name: str,
    model: Annotated[str, typer.Option("--of", help="The model that was judged.")],
    report: File,
    data: Annotated[list[str], typer.Option("--on", help="A snapshot or an external source; repeat.")],
    measure: Annotated[list[str] | None, typer.Option(help="A figure, NAME=VALUE; repeat.")] = None,
    code: Annotated[str, typer.Option(help="The commit or program that made it.")] = "",
    override_key: OverrideKey = None,
    override_reason: OverrideReason = "",
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register an evaluation of a model."""
    inputs = [(model, Role.EVALUATED), *((one, Role.EVALUATED_ON) for one in data)]
    purpose, measures = Purpose.EVALUATION, _measures(measure or ())
    given = {"kind": NodeKind.EVALUATION, "name": name, "purpose": purpose, "code": code, "measures": measures}
    _derive(open_registry(open_home(hub)), given, inputs, report, (override_key, override_reason), as_json)


@app.command("card")
def add_card(
    model: Annotated[str, typer.Argument(help="The model.")],
    file: Annotated[Path, typer.Argument(help="The card, Markdown.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Keep a model's card; it takes the place of an earlier one."""
    registry = open_registry(open_home(hub))
    _, about = registry.thing(model)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BractError(MALFORMED, f"{file.name}: no text file that can be read") from error
    card = registry.add_card(decode(ModelCard, {"about": about, "text": text}), now())
    tell({"card": card, "of": about}, as_json)


def _derive(
    registry: HubRegistry,
    given: dict[str, Any],
    inputs: Iterable[tuple[str, Role]],
    file: Path,
    override: tuple[Path | None, str],
    as_json: bool,
) -> None:
    things = [(*registry.thing(ref), role) for ref, role in inputs]
    given["inputs"] = [{"kind": kind, "ref": ref, "role": role} for kind, ref, role in things]
    value = decode(Derived, {**given, "content": digest_given(file), "content_bytes": max(1, file.stat().st_size)})
    signed: Envelope | None = None
    if override[0] is not None:
        signer = read_key(override[0])
        said = {"criterion": Criterion.PURPOSE, "reason": override[1], **signature(signer)}
        signed = sign(decode(Override, {"about": digest_value(value), **said}), signer)
    ref = registry.derive(value, now(), signed)
    tell({"name": value.name, "ref": ref}, as_json)


def digest_given(file: Path) -> Digest:
    """The digest of a file that somebody named.

    Raises:
        BractError: `malformed` when it cannot be read.
    """
    try:
        return digest_file(file)
    except OSError as error:
        raise BractError(MALFORMED, f"{file.name}: no file that can be read") from error


def _measures(given: Iterable[str]) -> dict[str, float]:
    found = {}
    for one in given:
        name, _, value = one.partition("=")
        try:
            found[name] = float(value)
        except ValueError as error:
            raise BractError(MALFORMED, "measure: NAME=VALUE, with a number") from error
    return found


def tell(told: dict[str, Any], as_json: bool) -> None:
    """What was done, for people or for scripts."""
    if as_json:
        console.emit(told)
        return
    for key, value in told.items():
        console.out.print(f"{key}: {value}", soft_wrap=True, markup=False)
