"""What can be said of a model's privacy from what is stored, and what cannot.

There is a guarantee only if nothing contradicts it:
    1. Every snapshot in the model's ancestry was used by a contribution to a round, under a stated mechanism.
    2. Every such contribution says that its noise was really random.
    3. Every campaign's plan is known, and its objective proves a bound (`bract.objectives.spec.PrivacyStructure`).
    4. Its objective's certificate is valid in the code that is installed where this is computed.
Otherwise: "No DP guarantee", and why.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bract.export.facts import Facts, Part
from bract.model import Node, NodeKind
from bract.objectives.certificate import Certificate
from bract.objectives.spec import PrivacyStructure
from bract.plan import CampaignPlan
from bract.privacy.accounting import epsilon, rounded_up
from bract.privacy.spec import Mechanism

SENSITIVITY = {
    PrivacyStructure.PER_RECORD: "Δ = C: a subject moves the clipped sum by at most C",
    PrivacyStructure.PER_GROUP: "Δ = 2C: a subject changes one group, whose clipped gradient moves by at most 2C",
    PrivacyStructure.RELEASED_MOMENT: "Δ = C for the clipped sum and 1 for the released moment, one joint Gaussian mechanism",
    PrivacyStructure.NONE: "no bound is proved",
}

TRUST = (
    "Each site trusts its own machine, and the noise is added there, before anything leaves. Hub, other sites and whoever "
    "gets the model see noised sums only; that a site took part, its mechanism and its declared floor are public."
)

CAVEATS = (
    "ε is each site's own: it holds together over sites only if no person is in two of them; otherwise add the sites' ε of "
    "that person up.",
    "The unit is the consent subject as the site resolved identifiers; two identifiers of one person are two subjects.",
    "ε counts what is in this model. Rounds that failed, other models and other uses of the same records come on top; the "
    "site's ledger has them.",
    "ε is computed for real-valued noise; its samples are floating point on a public grid (see `bract.dpsgd.noise`).",
)


@dataclass(frozen=True)
class SiteSpend:
    """What one site's data set has spent in a model: every mechanism of it in the ancestry."""

    site: str
    dataset: str
    mechanisms: tuple[Mechanism, ...]
    delta: float
    epsilon: float


@dataclass(frozen=True)
class CampaignTerms:
    """The private step of one campaign in the ancestry; `certificate` is None with the reason beside it."""

    digest: str
    plan: CampaignPlan
    certificate: Certificate | None
    reason: str


@dataclass(frozen=True)
class Privacy:
    """A model's privacy. `broken` says why there is no guarantee; it is empty where there is one.

    Attributes:
        touched: whether any person's record is in the ancestry.
        spends: by site and data set; ε at the least δ of the campaigns.
        foreign: names of weights and data from elsewhere, of whose training nothing is recorded.
    """

    touched: bool
    broken: tuple[str, ...]
    spends: tuple[SiteSpend, ...]
    terms: tuple[CampaignTerms, ...]
    foreign: tuple[str, ...]

    @property
    def guaranteed(self) -> bool:
        """Whether (ε, δ) hold."""
        return self.touched and not self.broken

    @property
    def epsilon(self) -> float | None:
        """The largest ε of any site, None without a guarantee."""
        return max((spend.epsilon for spend in self.spends), default=None) if self.guaranteed else None

    @property
    def delta(self) -> float | None:
        """The δ of every ε here, None without a guarantee."""
        return self.spends[0].delta if self.guaranteed and self.spends else None


def accountant() -> str:
    """The accountant and its version."""
    try:
        return f"privacy loss distributions (dp-accounting {version('dp-accounting')}), pessimistic"
    except PackageNotFoundError:
        return "privacy loss distributions (dp-accounting)"


def privacy_of(facts: Facts) -> Privacy:
    """The privacy of the model that the facts are about; their lineage is its ancestry."""
    terms = tuple(_terms(facts, digest) for digest in sorted(_campaigns(facts)) if digest in facts.plans)
    broken = [*_outside(facts), *_untrue(facts.parts), *_unknown(facts), *_unproved(terms)]
    delta = min((one.plan.privacy.delta for one in terms), default=None)
    spends = () if delta is None else _spends(facts.parts, delta)
    if not spends:
        broken.append("no mechanism is recorded")
    foreign = tuple(node.name for node in facts.of(NodeKind.BASE, NodeKind.EXTERNAL) if not _initial(node))
    touched = bool(facts.parts or facts.of(NodeKind.SNAPSHOT, NodeKind.CONTRIBUTION, NodeKind.ROUND))
    return Privacy(touched, tuple(dict.fromkeys(broken)), spends, terms, foreign)


def _initial(node: Node) -> bool:
    """Whether weights are a campaign's own initialisation, a function of its public seed."""
    return node.body.get("origin") == "public-seed"


def _campaigns(facts: Facts) -> set[str]:
    return {str(node.body.get("campaign")) for node in facts.of(NodeKind.ROUND)}


def _terms(facts: Facts, digest: str) -> CampaignTerms:
    plan = facts.plans[digest]
    found = facts.certificates.get(plan.objective.kind, "no certificate was looked up")
    if isinstance(found, str):
        return CampaignTerms(digest, plan, None, found)
    return CampaignTerms(digest, plan, found, "")


def _outside(facts: Facts) -> Iterable[str]:
    """Rule 1: data that came in otherwise, and rounds of which no contribution is recorded. To evaluate is not to train."""
    known = {one.digest for one in facts.parts}
    used = {(one.round, one.snapshot) for one in facts.parts}
    for node in facts.of(NodeKind.SNAPSHOT):
        for newer in facts.newer(node):
            stated = newer.ref in known if newer.kind is NodeKind.CONTRIBUTION else (newer.ref, node.ref) in used
            if not stated and newer.kind is not NodeKind.EVALUATION:
                yield f"snapshot {node.ref} was used without a stated mechanism"
    rounds = {one.round for one in facts.parts}
    for node in facts.of(NodeKind.ROUND):
        if node.ref not in rounds:
            yield f"{node.name}: no contribution is recorded"


def _unknown(facts: Facts) -> Iterable[str]:
    """Rule 3: the plans."""
    for digest in sorted(_campaigns(facts) - set(facts.plans)):
        yield f"the plan of campaign {digest} is not recorded"


def _untrue(parts: Iterable[Part]) -> Iterable[str]:
    """Rule 2."""
    for part in parts:
        if not part.private:
            yield f"contribution {part.digest} was made with a test sampler"


def _unproved(terms: Iterable[CampaignTerms]) -> Iterable[str]:
    """Rules 3 and 4."""
    for one in terms:
        if one.plan.structure is PrivacyStructure.NONE:
            yield f"objective {one.plan.objective.kind}: no bound is proved"
        elif one.certificate is None:
            yield f"objective {one.plan.objective.kind}: {one.reason}"


def _spends(parts: Iterable[Part], delta: float) -> tuple[SiteSpend, ...]:
    spent: dict[tuple[str, str], list[Mechanism]] = {}
    for part in parts:
        spent.setdefault((part.clearing.site, part.clearing.dataset), []).append(part.mechanism)
    return tuple(
        SiteSpend(site, dataset, tuple(found), delta, rounded_up(epsilon(found, delta)))
        for (site, dataset), found in sorted(spent.items())
    )
