"""What the release gate answers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bract.digest import Digest
from bract.model import Overriding
from bract.release import Criterion


@dataclass(frozen=True)
class Verdict:
    """One criterion: whether it holds, what is in its way (references), and the override that lets it pass."""

    criterion: Criterion
    ok: bool
    detail: str
    offenders: tuple[str, ...] = ()
    overridden_by: Digest | None = None

    @property
    def passes(self) -> bool:
        """It holds, or somebody took it on themselves."""
        return self.ok or self.overridden_by is not None


@dataclass(frozen=True)
class GateReport:
    """How a release stands at the gate. `overrides` are all that bear on it, its own and those of what is above it."""

    release: Digest
    name: str
    target: str
    channel: str
    at: datetime
    criteria: tuple[Verdict, ...]
    overrides: tuple[Overriding, ...]

    @property
    def ok(self) -> bool:
        """Whether every criterion passes."""
        return all(one.passes for one in self.criteria)

    def plain(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {
            "release": self.release,
            "name": self.name,
            "target": self.target,
            "channel": str(self.channel),
            "at": self.at.isoformat(),
            "ok": self.ok,
            "criteria": [
                {
                    "criterion": str(one.criterion),
                    "ok": one.ok,
                    "detail": one.detail,
                    "offenders": list(one.offenders),
                    "overridden_by": one.overridden_by,
                }
                for one in self.criteria
            ],
            "overrides": [
                {
                    "digest": one.digest,
                    "about": one.about,
                    "criterion": one.criterion,
                    "reason": one.reason,
                    "by": one.by,
                    "roles": [str(role) for role in one.roles],
                    "at": one.at.isoformat(),
                }
                for one in self.overrides
            ],
        }
