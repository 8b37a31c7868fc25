"""Privacy accounts as the hub shows them: every charge, what they cost together, and what each year cost."""

from dataclasses import dataclass
from datetime import datetime

from bract.digest import Digest
from bract.privacy.accounting import epsilon
from bract.privacy.budget import bound
from bract.privacy.spec import Mechanism

RESERVED, COMMITTED, ABORTED, EXPIRED = "reserved", "committed", "aborted", "expired"


@dataclass(frozen=True)
class Charge:
    """One reservation in an account, and what became of it.

    Attributes:
        reservation: digest of the signed reservation.
        mechanism: what was reserved; it counts whole, unless the state is `aborted`.
        state: `reserved`, `committed`, `aborted` or `expired`.
        spent: what the accepted contribution says was done.
    """

    campaign: Digest
    number: int
    reservation: Digest
    mechanism: Mechanism
    state: str
    reserved_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    spent: Mechanism | None = None


@dataclass(frozen=True)
class Stated:
    """The ε of an account after one reservation: what the site said with it, and what the hub's own sum makes it."""

    site: str
    dataset: str
    campaign: Digest
    number: int
    at_site: float
    at_hub: float


@dataclass(frozen=True)
class YearSpend:
    """What one year's charges cost (UTC, by when they were reserved).

    ε does not add: `alone` is of that year's `count` mechanisms composed, `cumulative` of all up to its end, and `bound` the
    same by the Rényi curve, which is what the cap is compared with.
    """

    year: int
    count: int
    alone: float
    cumulative: float
    bound: float


@dataclass(frozen=True)
class LedgerAccount:
    """What one unit of a site's data set may cost and has cost, by the hub's own account; charges oldest first."""

    site: str
    dataset: str
    unit: str
    cap_epsilon: float
    delta: float
    charges: tuple[Charge, ...]

    @property
    def counted(self) -> tuple[Mechanism, ...]:
        """Every mechanism that was not given back: whatever came of it, it counts as spent."""
        return tuple(one.mechanism for one in self.charges if one.state != ABORTED)

    @property
    def open(self) -> tuple[Charge, ...]:
        """Reservations of which nothing was heard yet."""
        return tuple(one for one in self.charges if one.state == RESERVED)

    def epsilon(self) -> float:
        """ε of all that counts, at δ, by privacy loss distributions: what reports carry."""
        return epsilon(self.counted, self.delta)

    def bound(self) -> float:
        """ε by the integer Rényi curve, which is what the cap is compared with; looser than `epsilon`."""
        return bound(self.counted, self.delta)

    def remaining(self) -> float:
        """What the cap leaves above the bound, at least 0."""
        return max(0.0, self.cap_epsilon - self.bound())

    def years(self) -> tuple[YearSpend, ...]:
        """Each year with a charge that counts."""
        counted = [one for one in self.charges if one.state != ABORTED]
        told = []
        for year in sorted({one.reserved_at.year for one in counted}):
            alone = [one.mechanism for one in counted if one.reserved_at.year == year]
            until = [one.mechanism for one in counted if one.reserved_at.year <= year]
            spent = epsilon(alone, self.delta), epsilon(until, self.delta), bound(until, self.delta)
            told.append(YearSpend(year, len(alone), *spent))
        return tuple(told)
