"""Audits of mechanisms on this machine, kept in the site's folder: what stands beside an ε where one was run.

An audit trains on invented subjects and canaries with the site's own engine, sampler and noise. No record of the site is
read, and nothing leaves.
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bract.dpsgd.engines import EngineName
from bract.encoders.spec import EncoderSpec
from bract.files import PRIVATE_FOLDER, write_private
from bract.objectives.spec import ObjectiveSpec
from bract.privacy.spec import Mechanism, PrivacySpec
from bract.value import decode, digest_value, encode, strict
from bract_client.home import SiteHome

if TYPE_CHECKING:
    from bract.dpsgd.audit_run import Audited

_ORDINARY = 32


@strict
@dataclass(frozen=True)
class AuditRecord:
    """What one run showed about one mechanism.

    Attributes:
        mechanism: σ, q and steps that were audited.
        clip: C; it makes no difference to ε.
        delta: δ of the claim.
        objective: its kind.
        engine: that computed the clipped sums.
        claimed: ε by the PLD accountant.
        lower_bound: ε below which the claim is refuted; zero says nothing.
        confidence: of the bound.
        canaries: m.
        guesses: r.
        right: v of them.
        estimate: ε̂ if the scores are normal: an estimate, not a bound.
        estimate_normal: whether they look so.
        audited_at: by this machine's clock.
    """

    mechanism: Mechanism
    clip: float
    delta: float
    objective: str
    engine: EngineName
    claimed: float
    lower_bound: Annotated[float, Field(ge=0)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    canaries: Annotated[int, Field(ge=2)]
    guesses: int
    right: int
    estimate: float
    estimate_normal: bool
    audited_at: datetime

    @property
    def refuted(self) -> bool:
        """Whether the claim is false, at this confidence."""
        return self.lower_bound > self.claimed


def audit_mechanism(
    home: SiteHome,
    encoder: EncoderSpec,
    objective: ObjectiveSpec,
    privacy: PrivacySpec,
    *,
    canaries: int,
    confidence: float,
    at: datetime,
) -> AuditRecord:
    """Run the audit and keep its result.

    Args:
        home: whose engine is audited, and where the result is kept.
        encoder: with the objective, what is trained.
        objective: see `encoder`.
        privacy: the claim.
        canaries: m.
        confidence: of the bound.
        at: now.

    Raises:
        BractError: `malformed` for more canaries than parameters; `canary`, `no-certificate`; `disk`.
    """
    # a second of import, of no use to most commands
    import torch  # noqa: PLC0415

    from bract.dpsgd.audit_run import audit_run  # noqa: PLC0415
    from bract.dpsgd.clipper import engine  # noqa: PLC0415
    from bract.objectives.build import build  # noqa: PLC0415
    from bract.objectives.public_records import public_records  # noqa: PLC0415

    settings = home.settings()
    torch.set_num_threads(settings.threads)
    found = audit_run(
        build(encoder, objective, 0),
        public_records(encoder, _ORDINARY, 0),
        privacy,
        canaries=canaries,
        confidence=confidence,
        clipper=engine(settings.engine),
    )
    record = _record(privacy, objective.kind, settings.engine, found, at)
    keep(home, record)
    return record


def keep(home: SiteHome, record: AuditRecord) -> None:
    """Write a result into the site's folder, all or nothing.

    Raises:
        BractError: `disk`.
    """
    _folder(home).mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
    name = digest_value(record).removeprefix("sha256:")[:32]
    write_private(_folder(home) / f"{name}.json", encode(record))


def kept(home: SiteHome) -> list[AuditRecord]:
    """Every result in the site's folder, oldest first.

    Raises:
        BractError: `malformed` for a file that was changed.
    """
    read = [decode(AuditRecord, path.read_bytes()) for path in _folder(home).glob("*.json")]
    return sorted(read, key=lambda record: record.audited_at)


def audit_bound(home: SiteHome, *mechanisms: Mechanism, delta: float) -> AuditRecord | None:
    """The audit that says most about these mechanisms together at δ; None where none was run.

    An audit of as many or fewer steps at the same σ and q counts: whoever sees more steps can do no worse. So does one at
    the same or a larger δ: what is (ε, δ)-private is (ε, δ')-private for every larger δ'.
    """
    steps: Counter[tuple[float, float]] = Counter()
    for mechanism in mechanisms:
        steps[mechanism.noise_multiplier, mechanism.sampling_rate] += mechanism.steps
    fitting = [
        record
        for record in kept(home)
        if record.delta >= delta
        and record.mechanism.steps <= steps[record.mechanism.noise_multiplier, record.mechanism.sampling_rate]
    ]
    return max(fitting, key=lambda record: record.lower_bound, default=None)


def campaign_privacy(privacy: PrivacySpec, rounds: int) -> PrivacySpec:
    """All rounds of a campaign as one run."""
    return dataclasses.replace(privacy, steps=privacy.steps * rounds)


def _record(privacy: PrivacySpec, objective: str, engine: EngineName, found: "Audited", at: datetime) -> AuditRecord:
    return AuditRecord(
        mechanism=privacy.mechanism,
        clip=privacy.clip,
        delta=privacy.delta,
        objective=objective,
        engine=engine,
        claimed=found.claimed,
        lower_bound=found.bound.epsilon,
        confidence=found.bound.confidence,
        canaries=found.bound.canaries,
        guesses=found.bound.guesses,
        right=found.bound.right,
        estimate=found.estimate.epsilon,
        estimate_normal=found.estimate.normal,
        audited_at=at,
    )


def _folder(home: SiteHome) -> Path:
    return home.root / "audits"
