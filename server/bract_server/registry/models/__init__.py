"""The registry's tables. Rows are added and never changed, but for the state columns that `MUTABLE` names.

Whatever somebody signed is kept whole, as its envelope's bytes; other columns only make it findable. Two rules stand
in the schema itself: a participant needs a clearance and a reservation of that very round and site, and a lineage edge
points to an older node, so that lineage has no circles.
"""

from bract_server.registry.models.base import Base
from bract_server.registry.models.campaigns import CampaignRow, CampaignSiteRow
from bract_server.registry.models.log import LOG
from bract_server.registry.models.rounds import (
    ClearanceRow,
    ContributionRow,
    OutcomeRow,
    ParticipantRow,
    ReceiptRow,
    RefusalRow,
    ReservationRow,
    RoundPlanRow,
    RoundRow,
)
from bract_server.registry.models.sites import CertificateRow, SiteRow
from bract_server.registry.models.versions import EdgeRow, NodeRow, ServerStateRow, VersionRow
from bract_server.registry.models.withdrawals import ImpactRow, NoticeRow, NoticeSnapshotRow, RevocationRow

__all__ = [
    "LOG",
    "MUTABLE",
    "Base",
    "CampaignRow",
    "CampaignSiteRow",
    "CertificateRow",
    "ClearanceRow",
    "ContributionRow",
    "EdgeRow",
    "ImpactRow",
    "NodeRow",
    "NoticeRow",
    "NoticeSnapshotRow",
    "OutcomeRow",
    "ParticipantRow",
    "ReceiptRow",
    "RefusalRow",
    "ReservationRow",
    "RevocationRow",
    "RoundPlanRow",
    "RoundRow",
    "ServerStateRow",
    "SiteRow",
    "VersionRow",
]

MUTABLE: dict[str, frozenset[str]] = {
    "site": frozenset({"revoked_at", "seen_at"}),
    "campaign": frozenset({"state", "reason"}),
    "round": frozenset({"state"}),
}
"""The only columns whose values change; every other table and column is kept by triggers."""
