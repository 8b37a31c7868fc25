"""Releases as signed public values: who proposes, who approves, what was overridden, and how a withdrawal was decided.

Whoever speaks here is a person with a key, a role and a name at the hub; never a data subject. Each value names the key that
signs it (`by`, its fingerprint), so that two persons' equal words are two values.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from bract.model import Hash, Text
from bract.plan import Name
from bract.value import strict
from bract.vocabulary.modifiers import Modifier
from bract.vocabulary.purposes import Purpose


class PersonRole(StrEnum):
    """In what office somebody signs."""

    OWNER = "owner"
    DPO = "dpo"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    ETHICS = "ethics-board"


@strict
@dataclass(frozen=True)
class Person:
    """Somebody who may sign at the hub.

    Attributes:
        key: base64 of the 32 bytes of an Ed25519 public key.
    """

    name: Name
    key: Annotated[str, Field(min_length=44, max_length=44)]
    roles: Annotated[tuple[PersonRole, ...], Field(min_length=1)]


@strict
@dataclass(frozen=True)
class Policy:
    """What a release through a channel asks for.

    Attributes:
        required: distinct persons who approve; the author is never one of them.
        roles: offices of which at least one approver must be, each.
        witnesses: how many sites in good standing or registered auditors must have cosigned the log.
    """

    channel: Literal[Purpose.RELEASE_INTERNAL, Purpose.RELEASE_PUBLIC]
    required: Annotated[int, Field(ge=1, le=100)]
    roles: tuple[PersonRole, ...]
    witnesses: Annotated[int, Field(ge=0, le=100)] = 0


DEFAULT_POLICIES: dict[Purpose, Policy] = {
    Purpose.RELEASE_INTERNAL: Policy(Purpose.RELEASE_INTERNAL, 1, ()),
    Purpose.RELEASE_PUBLIC: Policy(Purpose.RELEASE_PUBLIC, 2, (PersonRole.DPO,)),
}
"""Until the hub sets others."""


@strict
@dataclass(frozen=True)
class ReleaseProposal:
    """An author asks that a model be released.

    Attributes:
        target: the model: the digest of an encoder version or a derived model.
        weights: digest of its weights, which the author's signature thereby covers.
        evaluations: digests of the evaluations that are told with it.
        honours: the modifiers of the data above it that the release's terms keep.
    """

    name: Name
    channel: Literal[Purpose.RELEASE_INTERNAL, Purpose.RELEASE_PUBLIC]
    target: Hash
    weights: Hash
    evaluations: tuple[Hash, ...]
    honours: tuple[Modifier, ...]
    by: Hash
    proposed_at: datetime


@strict
@dataclass(frozen=True)
class Approval:
    """One person's word on a proposed release."""

    release: Hash
    decision: Literal["approve", "reject"]
    reason: Text
    by: Hash
    signed_at: datetime


class Criterion(StrEnum):
    """What a release must meet."""

    SOURCES = "sources"
    LICENCES = "licences"
    PURPOSE = "purpose"
    MODIFIERS = "modifiers"
    RESERVATIONS = "reservations"
    WITHDRAWALS = "withdrawals"
    STANDING = "standing"
    RANDOMNESS = "randomness"
    CARD = "card"
    EVALUATION = "evaluation"
    SIGNATURE = "signature"
    APPROVALS = "approvals"
    WITNESSES = "witnesses"


MAY_OVERRIDE: dict[Criterion, frozenset[PersonRole]] = {
    Criterion.LICENCES: frozenset({PersonRole.OWNER}),
    Criterion.PURPOSE: frozenset({PersonRole.DPO}),
    Criterion.MODIFIERS: frozenset({PersonRole.DPO, PersonRole.ETHICS}),
    Criterion.WITHDRAWALS: frozenset({PersonRole.DPO}),
    Criterion.CARD: frozenset({PersonRole.OWNER}),
    Criterion.EVALUATION: frozenset({PersonRole.OWNER}),
    Criterion.WITNESSES: frozenset({PersonRole.AUDITOR}),
}
"""Who may override a criterion; those that are not here nobody can: without known sources, settled budgets, a standing
model, unforeseeable noise, a signature and approvals there is nothing to release."""


@strict
@dataclass(frozen=True)
class Override:
    """Somebody takes a failed criterion on themselves, for one release or one derived thing, and says why.

    For a release it is somebody else than its author.
    """

    about: Hash
    criterion: Criterion
    reason: Text
    by: Hash
    signed_at: datetime


class Remedy(StrEnum):
    """What is done about a thing that descends from withdrawn data."""

    NONE = "none"
    FLAG = "flag"
    RETRAIN = "retrain"
    UNLEARN = "unlearn"
    RETIRE = "retire"


@strict
@dataclass(frozen=True)
class ImpactDecision:
    """What somebody decided about things that a withdrawal touches, and why.

    Attributes:
        site: whose notice it is.
        refs: the references of the things.
    """

    site: Name
    notice: Annotated[str, Field(min_length=1, max_length=200)]
    refs: Annotated[tuple[Annotated[str, Field(max_length=160)], ...], Field(min_length=1, max_length=10_000)]
    remedy: Remedy
    rationale: Text
    by: Hash
    signed_at: datetime


@strict
@dataclass(frozen=True)
class Withdrawn:
    """A release is taken back."""

    release: Hash
    reason: Text
    by: Hash
    signed_at: datetime


@strict
@dataclass(frozen=True)
class Release:
    """The hub's word that a release went out, and on what grounds.

    Attributes:
        proposal: its name.
        report: digest of the gate's report as it stood.
        approvals: digests of the approvals that counted.
        overrides: digests of every override that bears on it, its own and those of what it descends from.
        log_size: entries of the newest checkpoint before it.
        log_checkpoint: digest of that checkpoint.
    """

    proposal: Hash
    target: Hash
    weights: Hash
    channel: Literal[Purpose.RELEASE_INTERNAL, Purpose.RELEASE_PUBLIC]
    report: Hash
    approvals: tuple[Hash, ...]
    overrides: tuple[Hash, ...]
    log_size: Annotated[int, Field(ge=0)]
    log_checkpoint: Hash
    published_at: datetime
