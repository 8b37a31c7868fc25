"""Mechanisms as data that others can read: the events of Google's dp-accounting, as plain JSON.

An ε alone cannot be checked, composed or corrected; its events can. The form is that of `dp_accounting.dp_event`: a class
name and its fields, nested.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bract.privacy.accounting import epsilon
from bract.privacy.spec import Mechanism
from bract.value import decode, plain, strict


@strict
@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """One noised sum, of sensitivity 1 over `noise_multiplier`."""

    class_name: Literal["GaussianDpEvent"] = "GaussianDpEvent"
    noise_multiplier: float


@strict
@dataclass(frozen=True, kw_only=True)
class PoissonSampled:
    """The same over a sample that each subject joins by a coin of its own."""

    class_name: Literal["PoissonSampledDpEvent"] = "PoissonSampledDpEvent"
    sampling_probability: float
    event: Gaussian


@strict
@dataclass(frozen=True, kw_only=True)
class SelfComposed:
    """The same `count` times."""

    class_name: Literal["SelfComposedDpEvent"] = "SelfComposedDpEvent"
    count: int
    event: PoissonSampled


def dp_event(mechanism: Mechanism) -> dict[str, Any]:
    """The mechanism as a `SelfComposedDpEvent`."""
    gaussian = Gaussian(noise_multiplier=mechanism.noise_multiplier)
    sampled = PoissonSampled(sampling_probability=mechanism.sampling_rate, event=gaussian)
    return plain(SelfComposed(count=mechanism.steps, event=sampled))


def mechanism_of(event: dict[str, Any]) -> Mechanism:
    """The mechanism that an event stands for.

    Raises:
        BractError: `malformed` for any other kind of event, or a value out of range.
    """
    read = decode(SelfComposed, event)
    sampled = read.event
    values = {
        "noise_multiplier": sampled.event.noise_multiplier,
        "sampling_rate": sampled.sampling_probability,
        "steps": read.count,
    }
    return decode(Mechanism, values)


def epsilon_of_events(events: Iterable[dict[str, Any]], delta: float) -> float:
    """The ε of stored events together, computed anew.

    Raises:
        BractError: as `mechanism_of`.
    """
    return epsilon([mechanism_of(event) for event in events], delta)
