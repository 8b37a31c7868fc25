"""Retention: how long a record may be used after it was collected."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from bract.value import strict


@strict
@dataclass(frozen=True)
class RetentionRule:
    """A ceiling in days counted from collection; None keeps without end."""

    ceiling_days: int | None = None

    def ends(self, collected_at: datetime) -> datetime | None:
        """When a record collected then may no longer be used."""
        return None if self.ceiling_days is None else collected_at + timedelta(days=self.ceiling_days)

    def over(self, collected_at: datetime, at: datetime) -> bool:
        """Whether the record's time is over."""
        end = self.ends(collected_at)
        return end is not None and end <= at
