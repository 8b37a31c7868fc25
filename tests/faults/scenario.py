"""A fault as data: what happens to which process or line in which phase of a round, and what must come of it."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from tests.faults.network import Weather

VICTIM = "coast"
"""The site to which things happen."""


class Phase(IntEnum):
    """How far a campaign's first round is, for the victim; what is reached stays reached."""

    PROPOSED = 1
    """The hub has proposed it."""
    CLEARED = 2
    """The hub holds the victim's clearance."""
    RESERVED = 3
    """The hub holds the victim's reservation."""
    OPENED = 4
    """The hub has opened it and sends its plan."""
    TRAINING = 5
    """The victim has begun to train."""
    UPLOADED = 6
    """The victim's update has reached the hub's disk."""
    CLOSING = 7
    """Every site's contribution is accepted."""
    BETWEEN = 8
    """Its encoder version is committed."""


FLEETING = frozenset({Phase.CLEARED, Phase.CLOSING})
"""What may be over before anything can be done to it: a site reserves, and the hub makes a version, within milliseconds."""


class Process(StrEnum):
    """What can be killed, by the module that it runs."""

    HUB = "bract_server.cli"
    SERVER_APP = "bract_server.app"
    GATEWAY = "bract_server.gateway"
    COORDINATOR = "bract_server.coordinator"
    LAUNCHER = "bract_server.launcher"
    SITE = "bract_client.cli"
    SUPERNODE = "bract_client.node"
    EXECUTOR = "bract_client.executor"
    TRAINER = "bract_client.trainer"
    POSTGRES = "postgres"


@dataclass(frozen=True)
class Kill:
    """SIGKILL. What nobody else starts again (hub, site, PostgreSQL) is started again by hand after `back_s`."""

    process: Process
    back_s: float = 1.0

    def __str__(self) -> str:
        return f"kill {self.process.name.lower().replace('_', ' ')}"


@dataclass(frozen=True)
class Line:
    """The victim's line to the hub is like that for `seconds`."""

    name: str
    weather: Weather
    seconds: float

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Lock:
    """Somebody else holds the write lock of a SQLite registry (`hub` or the victim's) for `seconds`."""

    whose: str
    seconds: float

    def __str__(self) -> str:
        return f"lock {self.whose} registry"


@dataclass(frozen=True)
class FullDisk:
    """There is no room left for `seconds`: on the disk of the victim's outbox, or in the hub's quota of arrays."""

    seconds: float
    whose: str = "site"

    def __str__(self) -> str:
        return "full disk at a site" if self.whose == "site" else "full quota at the hub"


Action = Kill | Line | Lock | FullDisk


class Outcome(StrEnum):
    """What must come of it; in each case the campaign completes, and the model is what its rounds' sites make of it."""

    SAME = "same"
    """Every site is in every version, and the final model is the unfaulted run's, bit for bit."""
    QUORUM = "quorum"
    """The victim may be missing from versions, nobody else is; afterwards it takes part again."""


@dataclass(frozen=True)
class Scenario:
    """One line of the matrix; `ci` ones run at every change, the others at night; `secure` ones with secure aggregation."""

    action: Action
    phase: Phase
    outcome: Outcome
    ci: bool = False
    database: str = "sqlite"
    secure: bool = False

    def __str__(self) -> str:
        kind = ", secure" if self.secure else ""
        return f"{self.action}, {self.phase.name.lower()}{kind}".replace(" ", "-").replace(",", "")


def _kill(process: Process, outcomes: str, ci: tuple[Phase, ...], database: str = "sqlite") -> list[Scenario]:
    """One scenario a phase: `outcomes` has a letter for each, s(ame) or q(uorum)."""
    letters = {one.value[0]: one for one in Outcome}
    return [
        Scenario(Kill(process), phase, letters[letter], phase in ci, database)
        for phase, letter in zip(Phase, outcomes, strict=True)
    ]


CUT = Line("partition", Weather(cut=True), 6.0)
HALF_OPEN = Line("half-open link", Weather(swallow=True), 6.0)
SLOW = Line("throttled line", Weather(bytes_per_s=20_000), 10.0)
LOSSY = Line("lossy line", Weather(reset_after=30_000), 10.0)

SCENARIOS = (
    # At each change some of each kind: a hub takes all its processes along, a site all of its own.
    # A site's process that dies before it trains is back in time or misses the round; it never trains a round twice.
    *_kill(Process.HUB, "ssssssss", (Phase.BETWEEN,)),
    *_kill(Process.SERVER_APP, "ssssssss", (Phase.RESERVED,)),
    *_kill(Process.GATEWAY, "ssssssss", ()),
    *_kill(Process.COORDINATOR, "ssssssss", ()),
    *_kill(Process.LAUNCHER, "ssssssss", ()),
    *_kill(Process.SITE, "qqqqqqqq", (Phase.TRAINING,)),
    *_kill(Process.SUPERNODE, "qqqqqqqq", ()),
    *_kill(Process.EXECUTOR, "qqqqqqqq", (Phase.CLEARED,)),
    *_kill(Process.TRAINER, "ssssqsss", ()),
    *_kill(Process.POSTGRES, "ssssssss", (), "postgresql"),
    *(Scenario(CUT, phase, Outcome.QUORUM) for phase in Phase),
    *(Scenario(HALF_OPEN, phase, Outcome.QUORUM, phase is Phase.OPENED) for phase in Phase),
    *(Scenario(SLOW, phase, Outcome.QUORUM) for phase in Phase),
    *(Scenario(LOSSY, phase, Outcome.QUORUM) for phase in Phase),
    *(Scenario(Lock("hub", 5.0), phase, Outcome.SAME) for phase in Phase),
    *(Scenario(Lock("site", 5.0), phase, Outcome.QUORUM) for phase in Phase),
    Scenario(FullDisk(8.0), Phase.PROPOSED, Outcome.QUORUM, ci=True),
    # Nobody's update is taken: the round is given up, what it cost stays spent, and the next one has everybody again.
    Scenario(FullDisk(5.0, "hub"), Phase.TRAINING, Outcome.SAME),
    # With secure aggregation a site that was asked answers the same again, also to another process of the hub.
    *(
        Scenario(Kill(process), phase, outcome, secure=True)
        for process, outcome in (
            (Process.HUB, Outcome.SAME),
            (Process.SERVER_APP, Outcome.SAME),
            (Process.SITE, Outcome.QUORUM),
        )
        for phase in (Phase.OPENED, Phase.TRAINING, Phase.UPLOADED)
    ),
)
