"""The registry as it was known at a time: a session in which later rows are not there.

Rows are never changed, so that what was recorded by then is what was known then; the few state columns are told apart by
whoever reads them. Nodes of lineage carry no time of their own, and of edges only those that were learnt late:
`bract.export.facts.cut` keeps those that something recorded speaks of.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, Session, with_loader_criteria

from bract_server.registry.models import (
    ApprovalRow,
    ArtefactRow,
    CampaignRow,
    CardRow,
    ClearanceRow,
    ContributionRow,
    DecisionRow,
    EdgeRow,
    ImpactRow,
    NoticeRow,
    OutcomeRow,
    OverrideRow,
    PublicationRow,
    ReceiptRow,
    ReleaseRow,
    RoundPlanRow,
    TakenBackRow,
    TermsRow,
    VersionRow,
)

_RECORDED: dict[type[Any], str] = {
    ApprovalRow: "received_at",
    ArtefactRow: "registered_at",
    CampaignRow: "created_at",
    CardRow: "registered_at",
    ClearanceRow: "received_at",
    ContributionRow: "received_at",
    DecisionRow: "received_at",
    ImpactRow: "recorded_at",
    NoticeRow: "received_at",
    OutcomeRow: "closed_at",
    OverrideRow: "received_at",
    PublicationRow: "published_at",
    ReceiptRow: "issued_at",
    ReleaseRow: "proposed_at",
    RoundPlanRow: "opened_at",
    TakenBackRow: "withdrawn_at",
    TermsRow: "received_at",
    VersionRow: "created_at",
}
"""When each kind of row was recorded."""


def learnt_by(at: datetime) -> LoaderCriteriaOption:
    """For a query: without the edges of lineage that were learnt after that time."""
    known = EdgeRow.learnt_at.is_(None) | (EdgeRow.learnt_at <= at)
    return with_loader_criteria(EdgeRow, known, include_aliases=True)


def as_known(session: Session, at: datetime) -> Session:
    """The session, from now on without what was recorded after that time."""

    def narrow(state: ORMExecuteState) -> None:
        if state.is_select:
            state.statement = state.statement.options(
                *(
                    with_loader_criteria(row, getattr(row, column) <= at, include_aliases=True)
                    for row, column in _RECORDED.items()
                ),
                learnt_by(at),
            )

    event.listen(session, "do_orm_execute", narrow)
    return session
