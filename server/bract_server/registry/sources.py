"""What the sources of lineage permit by themselves: cleared snapshots, external sources, weights to start from."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from bract.model import DatasetTerms, ExternalSource, NodeKind, PublicWeights
from bract.plan import CampaignPlan
from bract.signing import parse_envelope
from bract.use import EVERY, allowed, check_terms, without
from bract.value import decode
from bract_server.registry.campaigns import plan_of
from bract_server.registry.graph import Allowance, Graph
from bract_server.registry.lineage import dataset_ref
from bract_server.registry.models import (
    ArtefactRow,
    CampaignRow,
    ClearanceRow,
    RoundRow,
    TermsRow,
    VersionRow,
)


@dataclass(frozen=True)
class Cleared:
    """For what a snapshot was ever cleared: (data set, purpose) of each campaign."""

    uses: tuple[tuple[str, str], ...]

    @property
    def purposes(self) -> tuple[str, ...]:
        """The purposes, sorted."""
        return tuple(sorted({purpose for _, purpose in self.uses}))


def cleared(session: Session, graph: Graph) -> dict[int, Cleared]:
    """Of every snapshot of the graph for which there is a clearance, what it was cleared for."""
    wanted = [node for node, kind in graph.kinds.items() if kind == NodeKind.SNAPSHOT]
    if not wanted:
        return {}
    plans = {row.digest: plan_of(row) for row in session.scalars(select(CampaignRow))}
    given = (
        select(ClearanceRow.site, ClearanceRow.snapshot, RoundRow.campaign)
        .join(RoundRow, RoundRow.id == ClearanceRow.round_id)
        .distinct()
    )
    found: dict[str, set[tuple[str, str]]] = {}
    for site, snapshot, campaign in session.execute(given):
        plan = plans[campaign]
        found.setdefault(f"{site}/{snapshot}", set()).add((plan.dataset, str(plan.purpose)))
    return {node: Cleared(tuple(sorted(found[graph.refs[node]]))) for node in wanted if graph.refs[node] in found}


def terms(session: Session) -> dict[str, DatasetTerms]:
    """The newest terms of every data set that has any, by its reference."""
    rows = session.scalars(select(TermsRow).order_by(TermsRow.id))
    return {row.dataset: decode(DatasetTerms, parse_envelope(row.envelope).payload) for row in rows}


_NEWEST = select(TermsRow.envelope).where(TermsRow.dataset == bindparam("of")).order_by(TermsRow.id.desc()).limit(1)


def check_declared(session: Session, site: str, plan: CampaignPlan, at: datetime) -> None:
    """That the newest terms of a site's data set, if there are any, leave a campaign's purpose now.

    Raises:
        BractError: `off-purpose`.
    """
    sealed = session.scalar(_NEWEST, {"of": dataset_ref(site, plan.dataset)})
    if sealed is not None:
        check_terms(plan.purpose, decode(DatasetTerms, parse_envelope(sealed).payload).modifiers, at)


def sources(session: Session, graph: Graph) -> dict[int, Allowance]:
    """What each source in the graph permits by itself; a snapshot that was never cleared permits nothing."""
    found = _snapshots(session, graph)
    known = _registered(session)
    first = set(session.scalars(select(VersionRow.arrays).where(VersionRow.parent.is_(None)).distinct()))
    for node, kind in graph.kinds.items():
        if kind not in (NodeKind.EXTERNAL, NodeKind.BASE):
            continue
        if node in known:
            value = known[node]
            found[node] = Allowance(without(frozenset(value.permits), value.modifiers), frozenset(value.modifiers))
        elif graph.refs[node] in first:
            # Weights that a campaign's public seed gives rise to hold nobody's data.
            found[node] = Allowance(EVERY, frozenset())
    return found


def _snapshots(session: Session, graph: Graph) -> dict[int, Allowance]:
    declared = terms(session)
    found = {}
    for node, given in cleared(session, graph).items():
        site = graph.refs[node].split("/")[0]
        said = [declared[ref] for ref in {dataset_ref(site, dataset) for dataset, _ in given.uses} if ref in declared]
        modifiers = frozenset(modifier for one in said for modifier in one.modifiers)
        uses = allowed(given.purposes, (use for one in said for use in one.declares), modifiers)
        found[node] = Allowance(uses, modifiers)
    return found


def _registered(session: Session) -> dict[int, ExternalSource | PublicWeights]:
    kinds: dict[str, type[Any]] = {NodeKind.EXTERNAL: ExternalSource, NodeKind.BASE: PublicWeights}
    rows = session.scalars(select(ArtefactRow).where(ArtefactRow.kind.in_([str(kind) for kind in kinds])))
    return {row.node_id: decode(kinds[row.kind], parse_envelope(row.envelope).payload) for row in rows}


def lacking(graph: Graph, own: dict[int, Allowance], use: str, of: Iterable[int]) -> list[str]:
    """The sources above some nodes that do not permit a use, by reference; and what has no known source."""
    above = set(of)
    todo = list(above)
    while todo:
        for older in graph.parents[todo.pop()]:
            if older not in above:
                above.add(older)
                todo.append(older)
    found = [node for node in above if node in own and use not in own[node].uses]
    rootless = [node for node in above if node not in own and not graph.parents[node]]
    return sorted(graph.refs[node] for node in found + [n for n in rootless if graph.kinds[n] != NodeKind.DATASET])
