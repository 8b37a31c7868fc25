"""One measured figure of the registry."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """What was measured, beside what is wanted.

    Attributes:
        name: what was measured.
        value: in `unit`.
        unit: `s`, `ms` or `/s`; rates should be high, times low.
        floor: what is wanted at least, in the same unit; None where nothing was promised.
        size: how many rows, models or entries it was measured on.
        ratio: this way's time by that of `against`, from the same run; None where there is one way only.
    """

    name: str
    value: float
    unit: str
    floor: float | None
    size: int
    ratio: float | None = None
    against: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the floor is met; None without one."""
        if self.floor is None:
            return None
        return self.value >= self.floor if self.unit == "/s" else self.value <= self.floor
