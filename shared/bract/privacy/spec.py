"""The private mechanism as public values: everything a guarantee depends on, and nothing secret.

Unit: the consent subject. Relation: add or remove one subject. Sampler: Poisson over subjects. Noise: Gaussian of standard
deviation `noise_multiplier * clip` on the sum of per-subject gradients, each clipped to L2 norm `clip`. Denominators are the
public `sampling_rate * subjects_floor`, never a realised batch [Abadi et al. 2016, 1607.00133;
Charles et al. 2024, 2407.07737].
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Literal, Self

from pydantic import Field

from bract.errors import MALFORMED, BractError
from bract.value import decode, strict


@strict
@dataclass(frozen=True)
class Mechanism:
    """`steps` Poisson-subsampled Gaussian releases: what a ledger stores, from which any ε can be recomputed."""

    noise_multiplier: Annotated[float, Field(gt=0, le=1e6)]
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1, le=10_000_000)]


@strict
@dataclass(frozen=True)
class PrivacySpec:
    """The private step of one round at one site.

    Attributes:
        clip: L2 bound C of one subject's gradient; below a thousandth, float32 leaves too little room for proofs.
        noise_multiplier: σ; the noise on the sum has standard deviation σ·C in each coordinate.
        sampling_rate: q, the public probability with which each subject joins a step.
        steps: private steps in one round.
        delta: δ of every reported ε.
        records_per_subject: m; of a subject with more records, m are drawn at each step.
        views_per_record: K; the loss of a record is the mean over K independent draws. It costs time, not privacy.
    """

    clip: Annotated[float, Field(ge=1e-3, le=1e6)]
    noise_multiplier: Annotated[float, Field(gt=0, le=1e6)]
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    delta: Annotated[float, Field(gt=0, lt=0.1)]
    records_per_subject: Annotated[int, Field(ge=1, le=1024)] = 1
    views_per_record: Annotated[int, Field(ge=1, le=64)] = 1
    unit: Literal["subject"] = "subject"
    relation: Literal["add-or-remove-one"] = "add-or-remove-one"

    @property
    def mechanism(self) -> Mechanism:
        """What one round costs."""
        return Mechanism(self.noise_multiplier, self.sampling_rate, self.steps)

    def check(self, subjects_floor: int | None = None) -> Self:
        """The spec itself, if it gives a guarantee; ask before anything runs.

        Args:
            subjects_floor: N̄, if δ shall be checked against it.

        Raises:
            BractError: `malformed`, naming the field: no noise, no clip, a rate above 1, m or K of zero, δ too large.
        """
        decode(type(self), asdict(self))
        check_delta(self.delta, subjects_floor)
        return self


def check_delta(delta: float, subjects_floor: int | None = None) -> None:
    """That δ says something: with δ = 1/N̄ a mechanism may publish one subject's records whole.

    Raises:
        BractError: `malformed` unless 0 < δ < 1, and δ < 1/N̄ where N̄ is given.
    """
    if not 0 < delta < 1:
        raise BractError(MALFORMED, "delta: it must be between 0 and 1")
    if subjects_floor is not None and not delta * subjects_floor < 1:
        raise BractError(MALFORMED, f"delta: {delta:g} is not below 1 / {subjects_floor}, the least number of subjects")
