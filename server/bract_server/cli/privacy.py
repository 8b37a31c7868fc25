"""`bract privacy`: what mechanisms cost, before anything runs. Reads no folder and asks nobody."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import (
    PLD_LIMIT,
    epsilon,
    epsilon_of_curve,
    epsilon_prv,
    epsilon_rdp,
    rdp_curve,
    rounded_up,
)
from bract.privacy.budget import NOTHING, add
from bract.privacy.events import dp_event, mechanism_of
from bract.privacy.guarantee import solve
from bract.privacy.spec import Mechanism, check_delta
from bract.privacy.tuning import NegativeBinomialRuns, PoissonRuns, Runs, tuned_epsilon
from bract.value import decode
from bract_server.cli.options import AsJson

app = typer.Typer(help="ε of mechanisms, and the noise an ε asks for.", no_args_is_help=True, rich_markup_mode=None)

Sigma = Annotated[
    list[float] | None, typer.Option("--sigma", help="Noise multiplier σ; repeat for several mechanisms.")
]
Rate = Annotated[list[float] | None, typer.Option("--rate", help="Sampling rate q; one for each σ.")]
Steps = Annotated[list[int] | None, typer.Option("--steps", help="Private steps; one number for each σ.")]
Events = Annotated[Path | None, typer.Option("--events", help="A JSON list of events, as these verbs print it.")]
Delta = Annotated[float, typer.Option("--delta", help="δ of the answer.")]
Floor = Annotated[int | None, typer.Option("--subjects-floor", help="Least number of subjects N̄; δ must be below 1/N̄.")]


@app.command("epsilon")
def show(
    delta: Delta,
    sigma: Sigma = None,
    rate: Rate = None,
    steps: Steps = None,
    events: Events = None,
    subjects_floor: Floor = None,
    as_json: AsJson = False,
) -> None:
    """The ε of one mechanism, or of several together, by three accountants."""
    check_delta(delta, subjects_floor)
    _tell("privacy", _costs(_mechanisms(sigma, rate, steps, events), delta), as_json)


@app.command()
def calibrate(
    target: Annotated[float, typer.Option("--epsilon", help="ε that must not be passed.")],
    rate: Annotated[float, typer.Option(help="Sampling rate q.")],
    steps: Annotated[int, typer.Option(help="Private steps over all rounds.")],
    delta: Delta,
    subjects_floor: Floor = None,
    as_json: AsJson = False,
) -> None:
    """The least noise multiplier, to a thousandth, that keeps ε within the target; and what it then costs."""
    found = solve(sampling_rate=rate, steps=steps, epsilon=target, delta=delta, subjects_floor=subjects_floor)
    costs = {"sigma": found.mechanism.noise_multiplier, "target": target, **_costs([found.mechanism], delta)}
    _tell("least noise", costs, as_json)


@app.command()
def tuning(
    delta: Delta,
    mean: Annotated[float, typer.Option(help="Expected number of runs.")],
    law: Annotated[str, typer.Option(help="How many runs there are: geometric, logarithmic, poisson.")] = "geometric",
    eta: Annotated[float | None, typer.Option(help="η of any other truncated negative binomial law.")] = None,
    sigma: Sigma = None,
    rate: Rate = None,
    steps: Steps = None,
    events: Events = None,
    subjects_floor: Floor = None,
    as_json: AsJson = False,
) -> None:
    """The ε of trying a random number of runs on private data and keeping the best; a run does the mechanisms given."""
    check_delta(delta, subjects_floor)
    mechanisms = _mechanisms(sigma, rate, steps, events)
    runs = _runs(law, mean, eta)
    total = NOTHING
    for mechanism in mechanisms:
        total = add(total, rdp_curve(mechanism))
    costs = {
        "tuned": rounded_up(tuned_epsilon(mechanisms, runs, delta)),
        "one_run": rounded_up(epsilon_of_curve(total, delta)),
        "law": {"name": law if eta is None else "negative-binomial", "mean": mean, "eta": getattr(runs, "eta", None)},
        **_about(mechanisms, delta),
    }
    _tell("privacy of choosing the best run (Rényi)", costs, as_json)


def _runs(law: str, mean: float, eta: float | None) -> Runs:
    match law:
        case _ if eta is not None:
            return NegativeBinomialRuns(mean, eta)
        case "geometric":
            return NegativeBinomialRuns(mean, 1.0)
        case "logarithmic":
            return NegativeBinomialRuns(mean, 0.0)
        case "poisson":
            return PoissonRuns(mean)
    raise BractError(MALFORMED, "law: geometric, logarithmic or poisson")


def _mechanisms(
    sigma: list[float] | None, rate: list[float] | None, steps: list[int] | None, events: Path | None
) -> list[Mechanism]:
    """Those of the options and those of the file; at least one."""
    sigmas, rates, counts = sigma or [], rate or [], steps or []
    if not len(sigmas) == len(rates) == len(counts):
        raise BractError(MALFORMED, "--sigma, --rate and --steps go together: as many of each")
    given = [
        decode(Mechanism, {"noise_multiplier": s, "sampling_rate": q, "steps": n})
        for s, q, n in zip(sigmas, rates, counts, strict=True)
    ]
    if events is not None:
        given += [mechanism_of(event) for event in _read(events)]
    if not given:
        raise BractError(MALFORMED, "no mechanism: give --sigma, --rate and --steps, or --events")
    return given


def _read(path: Path) -> list[dict[str, Any]]:
    """The events of a file: a list, or an object that has it as `events`, as these verbs print."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BractError(MALFORMED, f"events: {path.name} is no JSON file that can be read") from error
    listed = found.get("events") if isinstance(found, dict) else found
    if not isinstance(listed, list) or not all(isinstance(event, dict) for event in listed):
        raise BractError(MALFORMED, "events: a list of events is needed")
    return listed


def _costs(mechanisms: list[Mechanism], delta: float) -> dict[str, Any]:
    pld = epsilon(mechanisms, delta)
    prv = epsilon_prv(mechanisms, delta) if pld <= PLD_LIMIT else None
    return {
        "pld": rounded_up(pld),
        "prv": None if prv is None else rounded_up(prv),
        "rdp": rounded_up(epsilon_rdp(mechanisms, delta)),
        **_about(mechanisms, delta),
    }


def _about(mechanisms: list[Mechanism], delta: float) -> dict[str, Any]:
    return {
        "delta": delta,
        "unit": "subject",
        "relation": "add-or-remove-one",
        "events": [dp_event(mechanism) for mechanism in mechanisms],
    }


_NAMES = {
    "sigma": "σ",
    "target": "ε asked for",
    "pld": "ε (PLD)",
    "prv": "ε (PRV)",
    "rdp": "ε (RDP)",
    "tuned": "ε of the choice",
    "one_run": "ε of one run",
    "delta": "δ",
}


def _tell(title: str, costs: dict[str, Any], as_json: bool) -> None:
    if as_json:
        console.emit(costs)
        return
    shown = {_NAMES[key]: "-" if value is None else f"{value:g}" for key, value in costs.items() if key in _NAMES}
    about = f"{title} (unit: {costs['unit']}; add or remove one)"
    console.out.print(console.table(about, tuple(shown), [tuple(shown.values())]))
    rows = []
    for event in costs["events"]:
        mechanism = mechanism_of(event)
        rows.append((mechanism.noise_multiplier, mechanism.sampling_rate, mechanism.steps))
    console.out.print(console.table("of", ("σ", "q", "steps"), rows))
