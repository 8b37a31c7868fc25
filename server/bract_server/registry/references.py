"""How people name a thing in lineage: its whole reference, the beginning of its digest, or a registered name."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from bract.errors import MALFORMED, BractError
from bract.model import NodeKind
from bract_server.registry.models import ArtefactRow, CampaignRow, NodeRow, ReleaseRow, VersionRow

_SHORTEST = len("sha256:") + 12


def find(session: Session, ref: str) -> NodeRow:
    """The node that somebody means: `sha256:…` (12 digits are enough), `SITE/…`, `CAMPAIGN/ROUND`, or a name.

    Raises:
        BractError: `malformed` when there is no such thing, or several.
    """
    for statement in _ways(ref):
        rows = session.scalars(statement.limit(2)).all()
        if len(rows) == 1:
            return rows[0]
        if rows:
            raise BractError(MALFORMED, "lineage has several things of that name; give the whole reference")
    raise BractError(MALFORMED, "lineage has nothing of that reference")


def _ways(ref: str) -> list[Select[NodeRow]]:
    ways = [select(NodeRow).where(NodeRow.ref == ref)]
    digits = ref if ref.startswith("sha256:") else f"sha256:{ref}"
    if len(digits) >= _SHORTEST and all(c in "0123456789abcdef" for c in digits[7:]):
        # A range, so that the index serves on both databases, whatever the collation of LIKE.
        ways.append(select(NodeRow).where(NodeRow.ref >= digits, NodeRow.ref < digits + "g"))
    campaign, _, number = ref.rpartition("/")
    if campaign and number.isdecimal() and len(number) < 9:
        ways.append(
            select(NodeRow)
            .join(VersionRow, (VersionRow.digest == NodeRow.ref) & (NodeRow.kind == NodeKind.VERSION))
            .join(CampaignRow, CampaignRow.digest == VersionRow.campaign)
            .where(CampaignRow.name == campaign, VersionRow.number == int(number))
        )
    ways.append(select(NodeRow).join(ArtefactRow, ArtefactRow.node_id == NodeRow.id).where(ArtefactRow.name == ref))
    ways.append(select(NodeRow).join(ReleaseRow, ReleaseRow.node_id == NodeRow.id).where(ReleaseRow.name == ref))
    return ways
