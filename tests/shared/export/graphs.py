"""Small lineages of any shape, with names that no format must take for anything but text."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from bract.digest import digest
from bract.encoders.spec import TableSpec
from bract.export.facts import Clearing, Facts, Part, Published, Touch
from bract.model import Edge, Lineage, Node, NodeKind, Overriding, Relation, Role
from bract.objectives.spec import MaskedTableSpec
from bract.plan import CampaignPlan, SitePlan
from bract.privacy.spec import Mechanism, PrivacySpec
from bract.value import digest_value
from bract.vocabulary.purposes import Purpose

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)

HOSTILE = (
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)",
    "\t=1+1",
    "../../etc/passwd",
    "..",
    '"; DROP TABLE round; --',
    "<script>alert(1)</script>",
    "a\r\nb: c\n---\n# owned",
    "| a | b |\n|---|---|",
    "[x](javascript:alert(1))",
    "`code` *bold* ![i](http://x)",
    "nul\x00esc\x1b[31m",
    "\u202egnitirw\u2028\u0085",
    "http://x/?a=b#c d%2F",
    "prov:Entity",
    "_:b0",
    "💥é\ufeff",
)

texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
times = st.none() | st.integers(0, 10_000).map(lambda seconds: AT + timedelta(seconds=seconds))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


def plan(name: str = "heart", **changes: Any) -> CampaignPlan:
    values: dict[str, Any] = {
        "name": name,
        "purpose": Purpose.PRETRAINING,
        "dataset": "adult",
        "encoder": TableSpec("table", "adult"),
        "objective": MaskedTableSpec("masked-table"),
        "privacy": PrivacySpec(1.0, 1.2, 0.05, 20, 1e-5),
        "sites": (SitePlan("alder"), SitePlan("birch")),
        "rounds": 3,
        "quorum": 2,
    }
    return CampaignPlan(**{**values, **changes})


FACTS = {
    "site": texts,
    "url": texts,
    "licence": texts,
    "purposes": st.lists(texts, max_size=2),
    "measures": st.dictionaries(texts, st.floats(0, 1), max_size=2),
    "arrays": texts,
    "campaign": texts,
    "number": st.integers(0, 9),
    "signal": st.none() | st.fixed_dictionaries({"source": texts, "raw": texts, "fetched_at": texts}),
    "more": plain,
}


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    keys = draw(st.lists(st.tuples(st.sampled_from(NodeKind), texts), min_size=1, max_size=7, unique=True))
    bodies = st.fixed_dictionaries({}, optional=FACTS)
    return [
        Node(
            kind,
            ref,
            draw(texts),
            draw(times),
            draw(bodies),
            tuple(draw(st.lists(st.sampled_from(Purpose), max_size=2, unique=True))),
            tuple(draw(st.lists(st.sampled_from(["DUO:0000015", "DUO:0000022=CH,DE"]), max_size=2, unique=True))),
        )
        for kind, ref in keys
    ]


@st.composite
def lineages(draw: st.DrawFn) -> Lineage:
    """Edges point from later nodes to earlier ones, so that there is no circle."""
    found = draw(nodes())
    pairs = [(src, dst) for src in range(len(found)) for dst in range(src)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=10, unique=True)) if pairs else []
    edges = tuple(
        Edge(
            found[src].kind,
            found[src].ref,
            draw(st.sampled_from(Relation)),
            draw(st.none() | st.sampled_from(Role)),
            found[dst].kind,
            found[dst].ref,
        )
        for src, dst in chosen
    )
    overrides = tuple(
        Overriding(digest(b"o"), digest(b"a"), draw(texts), draw(texts), draw(texts), ("dpo",), AT, b"")
        for _ in range(draw(st.integers(0, 1)))
    )
    return Lineage(tuple(found), edges, overrides)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """Everything about the last node of a lineage, whatever that is."""
    lineage = draw(lineages())
    about = lineage.nodes[-1]
    one = plan()
    rounds = [node for node in lineage.nodes if node.kind is NodeKind.ROUND]
    return Facts(
        origin=draw(texts),
        known_at=AT + timedelta(days=1),
        lineage=lineage,
        about=(about.kind, about.ref),
        plans={digest_value(one): one},
        parts=tuple(part(node.ref, draw(texts), draw(st.booleans())) for node in rounds),
        evaluations=tuple(node for node in lineage.nodes if node.kind is NodeKind.EVALUATION),
        certificates={"masked-table": draw(texts)},
        touches=(Touch(draw(texts), about.ref, draw(texts), draw(st.none() | texts), AT),),
        releases=(Published(draw(texts), draw(texts), about.ref, draw(texts), draw(texts), AT, None),),
        checkpoint_size=draw(st.integers(0, 3)),
        checkpoint_root=digest(b"root"),
    )


def part(
    round_: str, site: str, private: bool = True, *, mechanism: Mechanism | None = None, version: str = "v"
) -> Part:
    return Part(
        digest=digest(f"contribution {round_} {site}".encode()),
        round=round_,
        version=version,
        snapshot=f"{site}/{digest(site.encode())}",
        reservation=digest(b"reservation"),
        mechanism=mechanism or Mechanism(1.2, 0.05, 20),
        private=private,
        clearing=Clearing(
            digest(b"clearance"), site, "adult", "ssl-pretraining", digest(b"rule"), AT, AT + timedelta(hours=1)
        ),
    )
