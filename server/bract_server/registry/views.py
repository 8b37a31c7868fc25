"""What the registry answers: frozen values, never rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bract.digest import Digest
from bract.model import NodeKind
from bract.plan import CampaignPlan, Place
from bract.privacy.spec import Mechanism
from bract.receipt import EncoderVersion
from bract.release import PersonRole, Remedy
from bract_server.lifecycle import TaskState
from bract_server.withdrawal import Effect, epsilon_of


@dataclass(frozen=True)
class Site:
    """An enrolled site; `revoked_at` is set once its word no longer counts, `quarantined_at` while it is set apart."""

    name: str
    verify_key: str
    node_fingerprint: Digest
    node_public_pem: str
    certificate_fingerprint: Digest
    subjects_floor: int
    registered_at: datetime
    revoked_at: datetime | None
    seen_at: datetime | None
    quarantined_at: datetime | None = None


@dataclass(frozen=True)
class Campaign:
    """A campaign: its plan, the hub's signature over it (an envelope's JSON), and how it stands and why."""

    digest: Digest
    plan: CampaignPlan
    envelope: bytes
    state: str
    created_at: datetime
    reason: str


@dataclass(frozen=True)
class Run:
    """One life of a campaign's process.

    Attributes:
        tries: runs in a row, this one included, of which none before it closed a round.
        after: the code of why the run before ended, None for the first.
        flower_run: Flower's number of it, once its process has told.
        progressed: whether a round was closed since it was opened.
    """

    campaign: Digest
    epoch: int
    tries: int
    after: str | None
    flower_run: str | None
    opened_at: datetime
    progressed: bool


@dataclass(frozen=True)
class Quarantine:
    """A site that takes part in nothing, because of contributions refused (code -> how many), until somebody lifts it."""

    site: str
    codes: dict[str, int]
    began_at: datetime
    lifted_by: str | None = None
    reason: str | None = None
    lifted_at: datetime | None = None


@dataclass(frozen=True)
class RoundAnswers:
    """Who may take part in a proposed round, who may not and why (a code), and who has not answered."""

    places: tuple[Place, ...]
    refusals: dict[str, str]
    waiting: tuple[str, ...]


@dataclass(frozen=True)
class Accepted:
    """A contribution that passed every rule, by its digest, with the digest and size of its update."""

    site: str
    digest: Digest
    update: Digest
    update_bytes: int


@dataclass(frozen=True)
class Version:
    """An encoder version under its name, and the digest of the server optimizer's state after it."""

    digest: Digest
    value: EncoderVersion
    server_state: Digest | None
    created_at: datetime


@dataclass(frozen=True)
class Inspection:
    """What the backdoor check found: the share of public records against each site, who is suspected, and if it is left out."""

    scores: Mapping[str, float]
    flagged: tuple[str, ...]
    excluded: bool


@dataclass(frozen=True)
class RoundReport:
    """A round as the operator sees it.

    Attributes:
        state: planned, running, committed or aborted.
        version: the encoder version that it made, if it was committed.
        participants: the sites whose contributions are in the version, or, before it is closed, those with a place.
        missing: the other sites of the campaign's plan and why, by code.
        tasks: how far each site of the plan is, while the round is open (`lifecycle.TaskState`).
        opened_at: when it was proposed.
        seconds: from `opened_at` to `closed_at`.
        bytes_moved: of arrays, to sites and back.
        inspection: what the backdoor check found, if there was one.
    """

    number: int
    state: str
    version: Digest | None
    participants: tuple[str, ...]
    missing: dict[str, str]
    opened_at: datetime
    closed_at: datetime | None
    seconds: float | None
    bytes_moved: int
    inspection: Inspection | None = None
    tasks: dict[str, TaskState] = field(default_factory=dict)


@dataclass(frozen=True)
class Notice:
    """A site's word that subjects of these snapshots withdrew."""

    site: str
    notice: str
    snapshots: tuple[Digest, ...]
    noticed_at: datetime
    received_at: datetime


@dataclass(frozen=True)
class Decided:
    """What somebody decided about a touched thing."""

    digest: Digest
    remedy: Remedy
    rationale: str
    by: str
    roles: tuple[PersonRole, ...]
    received_at: datetime
    envelope: bytes


@dataclass(frozen=True)
class Impact:
    """A thing that descends from a withdrawn subject's snapshot.

    Attributes:
        effect: a `bract_server.withdrawal.Effect`.
        mechanisms: everything of the site that is in it, equal ones with their steps added; empty without DP.
        delta: the least δ of the campaigns that they belong to.
        path_length: edges on the shortest way from the snapshot to it.
        clean: reference of the newest model above it that does not descend from the snapshots.
        options: what may be decided; empty for what is history.
        due_at: until when it is to be decided.
        decisions: every decision about it, oldest first; the last one counts.
        campaign: of an encoder version, else None.
        number: of an encoder version, else None.
    """

    site: str
    notice: str
    kind: NodeKind
    ref: str
    effect: str
    mechanisms: tuple[Mechanism, ...]
    delta: float | None
    path_length: int
    clean: str | None
    options: tuple[Remedy, ...]
    due_at: datetime | None
    recorded_at: datetime
    decisions: tuple[Decided, ...] = ()
    campaign: Digest | None = None
    number: int | None = None

    @property
    def version(self) -> Digest:
        """Its reference, where it is an encoder version."""
        return Digest(self.ref)

    @property
    def decision(self) -> Decided | None:
        """The one that counts."""
        return self.decisions[-1] if self.decisions else None

    @property
    def epsilon(self) -> float | None:
        """The ε that bounds what it can have learnt of the subject, at `delta`, by the Rényi curve; None without one."""
        if self.effect != Effect.BOUNDED or self.delta is None:
            return None
        return epsilon_of(self.mechanisms, self.delta)
