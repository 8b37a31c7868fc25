"""Drafts for the EU AI Act: technical documentation (Annex IV) and the summary of training content (Art. 53(1)(d)).

Only what the registry holds is filled in; everything else says who must complete it. Headings follow Regulation (EU)
2024/1689, Annex IV, points 1 to 9, and the Commission's template of July 2025 in its three parts (general information; list
of data sources; aspects of data processing). Not legal advice: whether a duty applies, its addressee decides.
"""

from collections.abc import Iterable

from bract.export.card import privacy_block
from bract.export.facts import Facts
from bract.export.markdown import MISSING, code, page, table, text
from bract.export.names import iri, moment
from bract.export.privacy import privacy_of
from bract.model import Node, NodeKind

_NOTE = (
    "> Draft from the registry's facts. Fields marked ▢ are to be completed by whom they name; nothing in them was guessed. "
    "No legal advice."
)


def to_complete(who: str, what: str) -> str:
    """A field that the registry cannot fill."""
    return f"▢ {what}: to be completed by {who}"


def annex_iv(facts: Facts) -> bytes:
    """Annex IV of the AI Act for the model that the facts are about."""
    node, privacy = facts.subject, privacy_of(facts)
    return page(
        f"# Technical documentation (Regulation (EU) 2024/1689, Annex IV): {text(node.name)}",
        _NOTE,
        "## 1. General description",
        _head(facts, node),
        _todo("provider", "intended purpose and provider's name", "interaction with hardware and software", "forms placed on "
              "the market", "user interface and instructions for use"),
        "## 2. Elements and process of development",
        "### (a), (b) Methods, design and key choices",
        _steps(facts),
        _todo("provider", "rationale and assumptions, also on the persons concerned", "trade-offs made"),
        "### (c) Architecture and computational resources",
        _architecture(facts),
        _todo("provider", "computational resources"),
        "### (d) Data requirements, provenance, selection",
        _sources(facts),
        _todo("site stewards", "how the data were obtained and selected", "labelling and cleaning"),
        "### (e) Human oversight",
        _todo("provider", "assessment of the measures under Article 14"),
        "### (f) Predetermined changes",
        _todo("provider", "changes foreseen"),
        "### (g) Validation and testing",
        _measures(facts),
        _todo("provider", "test logs and reports, dated and signed", "discriminatory impacts"),
        "### (h) Cybersecurity",
        privacy_block(facts, privacy),
        _todo("provider", "other measures"),
        "## 3. Monitoring, functioning and control",
        _todo("provider", "capabilities and limits, foreseeable unintended outcomes, input data"),
        "## 4. Performance metrics",
        _todo("provider", "why the metrics suit the system"),
        "## 5. Risk management (Article 9)",
        _touches(facts),
        _todo("provider", "risk management system"),
        "## 6. Changes over the lifecycle",
        _history(facts),
        "## 7. Harmonised standards",
        _todo("provider", "standards applied"),
        "## 8. EU declaration of conformity",
        _todo("provider", "copy of the declaration"),
        "## 9. Post-market monitoring (Article 72)",
        _todo("provider", "plan"),
    )  # fmt: skip


def training_content(facts: Facts) -> bytes:
    """The public summary of training content of a general-purpose model, Art. 53(1)(d), as a draft."""
    node = facts.subject
    return page(
        f"# Summary of training content (Regulation (EU) 2024/1689, Art. 53(1)(d)): {text(node.name)}",
        _NOTE,
        "## 1. General information",
        _head(facts, node),
        _todo("provider", "provider's name and contact", "authorised representative", "date of placing on the market",
              "modalities and sizes in the template's ranges", "languages", "latest date of data acquisition"),
        "## 2. List of data sources",
        "### 2.1 Publicly available data sets",
        _external(facts),
        "### 2.2 Private data sets of third parties",
        _datasets(facts),
        _todo("site stewards", "general description of the content, with no number of persons"),
        "### 2.3 Data crawled from online sources",
        "The registry records none beyond 2.1." if not _crawled(facts) else _signals(facts),
        _todo("provider", "crawlers used, if any"),
        "### 2.4 User data",
        _todo("provider", "data of users of the provider's services"),
        "### 2.5 Synthetic data",
        _students(facts),
        "### 2.6 Other sources",
        _todo("provider", "other sources"),
        "## 3. Aspects of data processing",
        "### 3.1 Respect of reservations of rights (text and data mining)",
        _signals(facts),
        "### 3.2 Removal of illegal content",
        _todo("provider", "measures"),
        "### 3.3 Other information",
        "Consent was resolved at each site before every round; clearances are in the registry's log.",
    )  # fmt: skip


def _todo(who: str, *fields: str) -> str:
    return "\n".join(f"- {to_complete(who, field)}" for field in fields)


def _head(facts: Facts, node: Node) -> str:
    log = f"{facts.checkpoint_size} entries, {code(facts.checkpoint_root)}" if facts.checkpoint_size else MISSING
    rows = [
        ("model", text(node.name)),
        ("version", code(iri(node))),
        ("made", MISSING if node.at is None else moment(node.at)),
        ("registry", text(facts.origin)),
        ("as known at", moment(facts.known_at)),
        ("log", log),
        ("releases", text("; ".join(f"{one.name} ({one.channel}, {one.state})" for one in facts.releases))),
    ]
    return table(("fact", "value"), rows)


def _steps(facts: Facts) -> str:
    kinds = (NodeKind.BASE, NodeKind.ROUND, NodeKind.VERSION, NodeKind.FINETUNE, NodeKind.STUDENT)
    rows = [
        (
            text(node.kind.value),
            text(node.name),
            MISSING if node.at is None else moment(node.at),
            text(node.body.get("code")),
        )
        for node in _in_time(facts.of(*kinds))
    ]
    return table(("step", "name", "recorded", "code"), rows)


def _in_time(nodes: Iterable[Node]) -> list[Node]:
    return sorted(nodes, key=lambda node: (node.at is None, moment(node.at) if node.at else ""))


def _architecture(facts: Facts) -> str:
    rows = [
        (text(plan.name), text(plan.encoder.kind), text(plan.objective.kind), str(plan.rounds), str(len(plan.sites)))
        for _, plan in sorted(facts.plans.items())
    ]
    return table(("campaign", "encoder", "objective", "rounds planned", "sites"), rows)


def _sources(facts: Facts) -> str:
    return f"{_datasets(facts)}\n\n{_external(facts)}"


def _datasets(facts: Facts) -> str:
    rows = [
        (text(node.body.get("site")), text(node.name), code(node.ref), text(", ".join(node.permits)), text(", ".join(
            str(one) for one in node.modifiers)))
        for node in facts.of(NodeKind.DATASET, NodeKind.SNAPSHOT)
    ]  # fmt: skip
    return table(("held by", "data set or snapshot", "reference", "uses allowed", "conditions"), rows)


def _external(facts: Facts) -> str:
    rows = [
        (text(node.name), text(node.body.get("url")), text(node.body.get("licence")), code(node.ref))
        for node in facts.of(NodeKind.EXTERNAL, NodeKind.BASE)
        if node.body.get("url")
    ]
    return table(("source", "address", "licence", "content"), rows)


def _crawled(facts: Facts) -> bool:
    return bool(facts.of(NodeKind.EXTERNAL))


def _signals(facts: Facts) -> str:
    rows = []
    for node in facts.of(NodeKind.EXTERNAL):
        said = node.body.get("signal") or {}
        rows.append((text(node.name), text(said.get("source")), text(said.get("raw")), text(said.get("fetched_at"))))
    return table(("source", "signal", "as it was said", "when"), rows)


def _students(facts: Facts) -> str:
    rows = [(text(node.name), code(node.ref)) for node in facts.of(NodeKind.STUDENT)]
    return table(("student, trained on a teacher's outputs", "reference"), rows)


def _measures(facts: Facts) -> str:
    rows = [
        (text(node.name), text(measure), text(value))
        for node in facts.evaluations
        for measure, value in sorted((node.body.get("measures") or {}).items())
    ]
    return table(("evaluation", "measure", "value"), rows)


def _touches(facts: Facts) -> str:
    rows = [
        (text(one.site), code(one.ref), text(one.effect), text(one.decision or "undecided")) for one in facts.touches
    ]
    return table(("withdrawal at", "touches", "influence", "decision"), rows)


def _history(facts: Facts) -> str:
    rows = [
        (MISSING if node.at is None else moment(node.at), text(node.kind.value), code(node.ref))
        for node in _in_time(facts.of(NodeKind.VERSION, NodeKind.FINETUNE, NodeKind.STUDENT, NodeKind.RELEASE))
    ]
    return table(("recorded", "what", "reference"), rows)
