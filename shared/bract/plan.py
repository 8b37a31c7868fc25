"""What is to be done: the campaign an operator signs through the hub, and the frozen plan of each round."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field

from bract.aggregation import LEAST_SITES, WEIGHTED, Aggregation, DeclaredMean, Inspection
from bract.consent import Purpose
from bract.digest import Digest
from bract.encoders.spec import EncoderSpec
from bract.errors import MALFORMED, BractError
from bract.objectives.spec import CATALOGUE, ObjectiveSpec, PrivacyStructure
from bract.privacy.spec import PrivacySpec, check_delta
from bract.secure.spec import SecureSpec
from bract.value import strict

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""Names of sites, campaigns and data sets: lower-case letters, digits and hyphens."""


@strict
@dataclass(frozen=True)
class SitePlan:
    """A site's declared part: aggregation weight and a public lower bound on its subjects (N̄), neither a live count."""

    name: Name
    weight: Annotated[float, Field(gt=0, le=1e9)] = 1.0
    subjects_floor: Annotated[int, Field(ge=1)] = 1000


@strict
@dataclass(frozen=True)
class LocalOptimizer:
    """The optimizer of a site's private steps; its state lives for one round."""

    kind: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 2e-3


@strict
@dataclass(frozen=True)
class ServerOptimizer:
    """FedAdam on the averaged update [Reddi et al. 2021, 2003.00295], or plain FedAvg [McMahan et al. 2017, 1602.05629]."""

    kind: Literal["fedavg", "fedadam"] = "fedadam"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Field(gt=0)] = 1e-3


@strict
@dataclass(frozen=True)
class CampaignPlan:
    """Everything a campaign is, in one immutable value.

    Attributes:
        quorum: least number of sites whose contributions make a round count.
        deadline_s: seconds a round may take at most from its opening.
        grace_s: seconds the others wait for the rest once the quorum has answered.
        max_update_norm: L2 norm above which an update is refused.
        aggregation: the rule that makes one update of the sites'.
        inspection: whether a site whose encoder stands apart on public records is told of, or its update left out, too.
        secure: the hub learns the sum of the updates and none of them; without it, it sees each noised update.
        seeded_test: only for tests on made-up people: sites train with this seed's foreseeable sampling and noise, so that a
            run can be repeated to the bit. What comes of it has no DP guarantee and can never be released.
    """

    name: Name
    purpose: Purpose
    dataset: Name
    encoder: EncoderSpec
    objective: ObjectiveSpec
    privacy: PrivacySpec
    sites: Annotated[tuple[SitePlan, ...], Field(min_length=1)]
    rounds: Annotated[int, Field(ge=1, le=100_000)]
    quorum: Annotated[int, Field(ge=1)]
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] = 600.0
    grace_s: Annotated[float, Field(ge=0, le=86_400)] = 20.0
    local: LocalOptimizer = LocalOptimizer()
    server: ServerOptimizer = ServerOptimizer()
    aggregation: Aggregation = field(default_factory=DeclaredMean)
    inspection: Inspection = "none"
    max_update_norm: Annotated[float, Field(gt=0, le=1e12)] = 1e4
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    seeded_test: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    secure: SecureSpec | None = None

    def check(self) -> Self:
        """The plan itself, if its parts fit together.

        Raises:
            BractError: `malformed`.
        """
        names = [site.name for site in self.sites]
        if len(set(names)) != len(names):
            raise BractError(MALFORMED, "sites: a site is named twice")
        if self.quorum > len(names):
            raise BractError(MALFORMED, f"quorum: {self.quorum} of {len(names)} sites can never be met")
        if self.grace_s >= self.deadline_s:
            raise BractError(MALFORMED, "grace_s: it must be shorter than deadline_s")
        if self.encoder.kind not in CATALOGUE[self.objective.kind].encoders:
            raise BractError(MALFORMED, f"objective: {self.objective.kind} does not fit a {self.encoder.kind} encoder")
        self._check_groups()
        self._check_delta()
        if self.secure is not None:
            self.secure.check(len(names), self.quorum)
            if not isinstance(self.aggregation, DeclaredMean):
                raise BractError(
                    MALFORMED, f"aggregation: {self.aggregation.kind} needs every update, secure hides them"
                )
        self._check_aggregation()
        return self

    def _check_aggregation(self) -> None:
        """The rule's claim holds for every round that can count, and no declared weight is passed over in silence."""
        rule = self.aggregation
        if self.quorum < rule.least_sites:
            raise BractError(MALFORMED, f"quorum: {rule.kind} as it is asked for needs {rule.least_sites} sites")
        if not isinstance(rule, WEIGHTED) and len({site.weight for site in self.sites}) > 1:
            raise BractError(MALFORMED, f"sites: under {rule.kind} each has one voice; leave their weights alike")
        if self.inspection != "none" and (self.quorum < LEAST_SITES or self.secure is not None):
            raise BractError(
                MALFORMED, f"inspection: it compares the updates of {LEAST_SITES} sites, and none may be hidden"
            )

    def _check_delta(self) -> None:
        for site in self.sites:
            check_delta(self.privacy.delta, site.subjects_floor)

    def _check_groups(self) -> None:
        """A group's member is one record; its two views are the objective's own."""
        if self.structure is not PrivacyStructure.PER_GROUP:
            return
        for name in ("records_per_subject", "views_per_record"):
            if getattr(self.privacy, name) != 1:
                raise BractError(MALFORMED, f"privacy.{name}: a grouped objective takes 1")

    def site(self, name: str) -> SitePlan:
        """The part of the site of that name; KeyError if the plan has none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)

    @property
    def structure(self) -> PrivacyStructure:
        """How one subject moves the clipped sum under this objective; none is proved for one that we do not know."""
        entry = CATALOGUE.get(self.objective.kind)
        return PrivacyStructure.NONE if entry is None else entry.structure


@strict
@dataclass(frozen=True)
class Proposal:
    """The hub asks a site to clear and reserve for a round that it would like to open."""

    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    opened_at: AwareDatetime


@strict
@dataclass(frozen=True)
class Place:
    """A site's place in a round: there is none without a clearance and a reservation."""

    site: Name
    clearance: Digest
    reservation: Digest


@strict
@dataclass(frozen=True)
class SiteKey:
    """A site's registered Ed25519 key, base64 of its 32 raw bytes."""

    site: Name
    verify_key: Annotated[str, Field(max_length=64)]


@strict
@dataclass(frozen=True)
class RoundPlan:
    """One round, the same signed bytes for every site.

    Attributes:
        campaign: digest of the `CampaignPlan`.
        parent: digest of the encoder version that the round starts from.
        arrays: digest of that version's arrays file (safetensors).
        arrays_bytes: its size.
        keys: of the cohort's sites, with secure aggregation; by them each site knows the others.
    """

    campaign: Digest
    number: Annotated[int, Field(ge=1, lt=2**63)]
    parent: Digest
    arrays: Digest
    arrays_bytes: Annotated[int, Field(ge=1)]
    cohort: Annotated[tuple[Place, ...], Field(min_length=1)]
    opened_at: AwareDatetime
    deadline: AwareDatetime
    keys: tuple[SiteKey, ...] = ()
