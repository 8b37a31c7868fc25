"""A model card in Hugging Face's layout: YAML front matter, then Markdown [Mitchell et al. 2019, 1810.03993].

Whatever the registry does not have says "not recorded". The card that people wrote is registered apart (`ModelCard`).
"""

from collections.abc import Iterable

from bract import __version__
from bract.export.facts import Facts
from bract.export.markdown import MISSING, code, front_matter, page, table, text
from bract.export.names import iri, moment
from bract.export.privacy import CAVEATS, SENSITIVITY, TRUST, CampaignTerms, Privacy, accountant, privacy_of
from bract.model import Node, NodeKind
from bract.value import plain

NO_GUARANTEE = "No DP guarantee"


def card(facts: Facts) -> bytes:
    """The card of the model that the facts are about."""
    node, privacy = facts.subject, privacy_of(facts)
    front = {
        "model_name": node.name,
        "library_name": "bract",
        "tags": ["bract", node.kind.value, "self-supervised", "federated"],
        "bract_ref": node.ref,
        "bract_registry": facts.origin,
        "bract_known_at": moment(facts.known_at),
        "differential_privacy": privacy.guaranteed,
    }
    if privacy.epsilon is not None and privacy.delta is not None:
        front |= {"epsilon": privacy.epsilon, "delta": privacy.delta}
    return page(
        front_matter(front),
        f"# {text(node.name)}",
        _what(facts, node),
        "## Intended use",
        _use(node),
        "## Privacy",
        privacy_block(facts, privacy),
        "## Training data",
        _data(facts),
        "## Training",
        _training(privacy),
        "## Evaluation",
        _evaluations(facts),
        "## Withdrawals",
        _withdrawals(facts),
        "## Releases and overrides",
        _releases(facts),
        "## Limitations and risks",
        f"Known limitations: {MISSING}. Fairness across groups: {MISSING}. Environmental cost: {MISSING}.",
    )


def _what(facts: Facts, node: Node) -> str:
    root = f"{facts.checkpoint_size} entries, {code(facts.checkpoint_root)}" if facts.checkpoint_size else MISSING
    rows = [
        ("kind", text(node.kind.value)),
        ("name in the registry", code(iri(node))),
        ("made", MISSING if node.at is None else moment(node.at)),
        ("weights", code(node.body.get("arrays") or node.body.get("weights") or node.body.get("content"))),
        ("registry", text(facts.origin)),
        ("as known at", moment(facts.known_at)),
        ("log", root),
        ("written by", f"bract {__version__}"),
    ]
    return table(("fact", "value"), rows)


def _use(node: Node) -> str:
    permits = ", ".join(code(one) for one in node.permits) or "none is known to be allowed"
    modifiers = ", ".join(code(one) for one in node.modifiers) or "none is recorded"
    return (
        f"Uses that everything above it allows: {permits}.\n\n"
        f"Conditions that go along (GA4GH DUO): {modifiers}.\n\nOther intended uses and users: {MISSING}."
    )


def privacy_block(facts: Facts, privacy: Privacy) -> str:
    """The privacy of a model as Markdown: what is guaranteed, by what mechanism, and what is not known."""
    if not privacy.touched:
        return (
            f"**{NO_GUARANTEE}**, and none is needed of this federation: no person's record is in the recorded ancestry."
            + (_foreign(privacy))
        )
    parts: list[str] = []
    if privacy.guaranteed:
        parts.append(f"**(ε, δ) = ({privacy.epsilon:g}, {privacy.delta:g})**, the largest of any site.")
    else:
        reasons = "\n".join(f"- {text(reason)}" for reason in privacy.broken[:20])
        rest = f"\n- and {len(privacy.broken) - 20} more" if len(privacy.broken) > 20 else ""
        parts.append(f"**{NO_GUARANTEE}**, because\n\n{reasons}{rest}")
    parts.append(table(("field", "value"), _fields(facts, privacy)))
    parts += [_spends(privacy)] if privacy.guaranteed else []
    parts += [_terms(one) for one in privacy.terms]
    parts.append("\n".join(f"- {caveat}" for caveat in CAVEATS) + _foreign(privacy))
    return "\n\n".join(parts)


def _fields(facts: Facts, privacy: Privacy) -> list[tuple[str, str]]:
    root = f"{facts.checkpoint_size} entries, {code(facts.checkpoint_root)}" if facts.checkpoint_size else MISSING
    return [
        ("unit", "consent subject"),
        ("adjacency", "add or remove one subject"),
        ("accountant", text(accountant())),
        ("ledger entries in this model", str(sum(len(one.mechanisms) for one in privacy.spends))),
        ("trust model", text(TRUST)),
        ("tuning runs", MISSING),
        ("audit lower bound", f"{MISSING} here: each site keeps its own"),
        ("membership inference", MISSING),
        ("initialisation", text(_initialisation(privacy))),
        ("log of the ledger", root),
    ]


def _initialisation(privacy: Privacy) -> str:
    seeds = [f"{one.plan.name}: seed {one.plan.seed}" for one in privacy.terms]
    if privacy.foreign:
        seeds.append("and from what is listed below")
    return "random, from the public seed of each plan: " + "; ".join(seeds) if seeds else MISSING


def _foreign(privacy: Privacy) -> str:
    if not privacy.foreign:
        return ""
    names = ", ".join(text(name) for name in privacy.foreign)
    return f"\n\nFrom elsewhere, with nothing recorded of whose data or privacy: {names}."


def _spends(privacy: Privacy) -> str:
    rows = [
        (
            text(one.site),
            text(one.dataset),
            str(len(one.mechanisms)),
            str(sum(mechanism.steps for mechanism in one.mechanisms)),
            f"{one.epsilon:g}",
            f"{one.delta:g}",
        )
        for one in privacy.spends
    ]
    return table(("site", "data set", "rounds", "steps T", "ε", "δ"), rows)


def _terms(one: CampaignTerms) -> str:
    spec, plan = one.plan.privacy, one.plan
    if one.certificate is None:
        certificate = f"none: {text(one.reason)}"
    else:
        measured = f"moved the sum by at most {one.certificate.measured:g} C of {one.certificate.declared:g} C"
        certificate = f"the falsifier (version {one.certificate.falsifier}) {measured} in {one.certificate.cases} cases"
    floors = "; ".join(
        f"{text(site.name)} {site.subjects_floor} (δ·N̄ = {spec.delta * site.subjects_floor:g})" for site in plan.sites
    )
    rows = [
        ("campaign", f"{text(plan.name)} {code(one.digest)}"),
        ("sampler", "Poisson over subjects"),
        ("σ", f"{spec.noise_multiplier:g}"),
        ("q", f"{spec.sampling_rate:g}"),
        ("T of one round", str(spec.steps)),
        ("C", f"{spec.clip:g}"),
        ("Δ", text(SENSITIVITY[plan.structure])),
        ("k: records of a subject in a step, at most", str(spec.records_per_subject)),
        ("views of a record", str(spec.views_per_record)),
        ("δ, and N̄ as each site declared it", f"{spec.delta:g}; {floors}"),
        ("objective", text(plan.objective.kind)),
        ("certificate, of the code installed here", certificate),
    ]
    return table(("campaign's private step", "value"), rows)


def _data(facts: Facts) -> str:
    rows = [
        (
            text(node.kind.value),
            text(node.name),
            code(node.ref),
            text(", ".join(_words(node, "purposes", "licence", "url"))),
        )
        for node in facts.of(NodeKind.DATASET, NodeKind.SNAPSHOT, NodeKind.EXTERNAL)
    ]
    told = table(("kind", "name", "reference", "purposes, licence or address"), rows)
    return f"{told}\n\nHow many persons or records: not told. A site says no more than its declared floor."


def _words(node: Node, *fields: str) -> Iterable[str]:
    for name in fields:
        value = node.body.get(name)
        yield from (str(one) for one in value) if isinstance(value, list | tuple) else [str(value)] if value else []


def _training(privacy: Privacy) -> str:
    rows = []
    for one in privacy.terms:
        plan = one.plan
        encoder = ", ".join(f"{key} {value}" for key, value in plain(plan.encoder).items())
        server, site = plan.server, plan.local
        how = f"{site.kind} at sites, learning rate {site.learning_rate:g}; {server.kind} at the hub, {server.learning_rate:g}"
        rows.append((text(plan.name), text(encoder), text(plan.objective.kind), text(how)))
    return table(("campaign", "encoder", "objective", "optimizers"), rows)


def _evaluations(facts: Facts) -> str:
    rows = [
        (text(node.name), text(measure), f"{value:g}" if isinstance(value, int | float) else text(value))
        for node in facts.evaluations
        for measure, value in sorted((node.body.get("measures") or {}).items())
    ]
    return table(("evaluation", "measure", "value"), rows)


def _withdrawals(facts: Facts) -> str:
    rows = [
        (
            one.noticed_at.date().isoformat(),
            text(one.site),
            code(one.ref),
            text(one.effect),
            text(one.decision or "undecided"),
        )
        for one in facts.touches
    ]
    if not rows:
        return "No withdrawal that touches this model was known."
    told = table(("noticed", "site", "touches", "influence", "decision"), rows)
    return f"{told}\n\nNothing was erased from this model by a withdrawal."


def _releases(facts: Facts) -> str:
    releases = [(text(one.name), text(one.channel), text(one.state), code(one.digest)) for one in facts.releases]
    overrides = [
        (text(one.criterion), text(one.reason), text(one.by), moment(one.at)) for one in facts.lineage.overrides
    ]
    return (
        ("Releases: none." if not releases else table(("release", "channel", "state", "digest"), releases))
        + "\n\nOverrides: "
        + ("none." if not overrides else "\n\n" + table(("criterion", "reason", "by", "at"), overrides))
    )
