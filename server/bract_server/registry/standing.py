"""What was last decided about things that withdrawals touch."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.release import Remedy
from bract_server.registry.models import DecidedRow, DecisionRow


def last_remedies(session: Session) -> dict[int, tuple[Remedy, ...]]:
    """Of every node that somebody decided about, the last remedy under each notice."""
    wanted = (
        select(DecidedRow.node_id, DecidedRow.notice_id, DecisionRow.remedy)
        .join(DecisionRow, DecisionRow.id == DecidedRow.decision_id)
        .order_by(DecisionRow.id)
    )
    last: dict[int, dict[int, Remedy]] = {}
    for node, notice, remedy in session.execute(wanted):
        last.setdefault(node, {})[notice] = Remedy(remedy)
    return {node: tuple(by_notice.values()) for node, by_notice in last.items()}
