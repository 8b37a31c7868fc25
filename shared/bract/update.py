"""What a site says to the hub: clearances, reservations, contributions, withdrawal notices. All signed, none names a person."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from bract.consent import Purpose
from bract.digest import Digest
from bract.plan import Name
from bract.privacy.spec import Mechanism
from bract.value import strict


@strict
@dataclass(frozen=True)
class Clearance:
    """Consent holds at this site, for this purpose and round, until `expires_at`.

    Attributes:
        snapshot: Merkle root over the keyed digests of the admitted records.
        rule: digest of the consent rule that was applied.
        subjects_floor: the site's *declared* public floor, not a count of anybody.
    """

    site: Name
    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    dataset: Name
    purpose: Purpose
    snapshot: Digest
    rule: Digest
    subjects_floor: Annotated[int, Field(ge=1)]
    issued_at: AwareDatetime
    expires_at: AwareDatetime


@strict
@dataclass(frozen=True)
class Reservation:
    """The site's ledger has set this much privacy aside for a round, on disk, before any data are read.

    `epsilon` is what all of the account's mechanisms, this one included, cost together at `delta`: a function of public
    parameters only.
    """

    site: Name
    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    dataset: Name
    mechanism: Mechanism
    epsilon: float
    epsilon_cap: float
    delta: float
    reserved_at: AwareDatetime
    expires_at: AwareDatetime


@strict
@dataclass(frozen=True)
class Relinquishment:
    """Training was not begun under this reservation: nothing was read for it and no update left; nor will it be begun.

    The one statement on which a reservation is given back. The site's own ledger has refused to begin from the moment
    that the statement was signed.
    """

    site: Name
    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    reservation: Digest
    relinquished_at: AwareDatetime


@strict
@dataclass(frozen=True)
class Refusal:
    """The site will not take part in a round; `code` is one of `bract.errors.CODES`, and that is all it says."""

    site: Name
    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    code: str


@strict
@dataclass(frozen=True)
class Contribution:
    """What a site sent in a round, and what it cost.

    Attributes:
        plan: digest of the `RoundPlan`.
        update: digest of the safetensors file of after − before, float32.
        private: False only for artefacts of a seeded test sampler; such an update carries no guarantee.
    """

    site: Name
    plan: Digest
    clearance: Digest
    reservation: Digest
    spent: Mechanism
    update: Digest
    update_bytes: Annotated[int, Field(ge=1)]
    private: bool = True


@strict
@dataclass(frozen=True)
class WithdrawalNotice:
    """Some subjects of these snapshots have withdrawn; how many and who stays at the site.

    `notice` is random, so that a repeated delivery is recognised.
    """

    site: Name
    notice: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
    snapshots: tuple[Digest, ...]
    noticed_at: AwareDatetime


@strict
@dataclass(frozen=True)
class LedgerLine:
    """One reservation as a site's ledger has it.

    Attributes:
        state: `reserved`; `settled` with what was `spent`; `spent` when it expired; `aborted` when it was given back.
        spent: what was really done, of a settled one.
    """

    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    reservation: Digest
    dataset: Name
    mechanism: Mechanism
    state: Literal["reserved", "settled", "spent", "aborted"]
    expires_at: AwareDatetime
    spent: Mechanism | None = None


@strict
@dataclass(frozen=True)
class LedgerExport:
    """A site's whole ledger at a moment, for whoever holds the hub's beside it. Public parameters only.

    `part` of `parts`, from 1: an envelope holds only so much.
    """

    site: Name
    at: AwareDatetime
    part: Annotated[int, Field(ge=1)]
    parts: Annotated[int, Field(ge=1)]
    lines: tuple[LedgerLine, ...]
