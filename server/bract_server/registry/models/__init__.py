"""The registry's tables. Rows are added and never changed, but for the state columns that `MUTABLE` names.

Whatever somebody signed is kept whole, as its envelope's bytes; other columns only make it findable. Two rules stand
in the schema itself: a participant needs a clearance and a reservation of that very round and site, and a lineage edge
points to an older node, or was checked when it was learnt late, so that lineage has no circles.
"""

from bract.disposal.tables import CHANGING
from bract_server.registry.models.access import AccessRow, PrincipalRow, TokenRow
from bract_server.registry.models.approvals import OverrideRow, PersonEndRow, PersonRoleRow, PersonRow
from bract_server.registry.models.base import Base
from bract_server.registry.models.campaigns import CampaignRow, CampaignSiteRow
from bract_server.registry.models.ledger import AccountRow, EntryRow, RelinquishmentRow
from bract_server.registry.models.lineage import ArtefactRow, CardRow, TermsRow
from bract_server.registry.models.log import LOG
from bract_server.registry.models.releases import ApprovalRow, PolicyRow, PublicationRow, ReleaseRow, TakenBackRow
from bract_server.registry.models.retention import RETENTION
from bract_server.registry.models.rounds import (
    ClearanceRow,
    ContributionRow,
    InspectionRow,
    OutcomeRow,
    ParticipantRow,
    ReceiptRow,
    RefusalRow,
    ReservationRow,
    RoundPlanRow,
    RoundRow,
)
from bract_server.registry.models.runs import LiftRow, QuarantineRow, RunRow
from bract_server.registry.models.sites import CertificateRow, SiteRow
from bract_server.registry.models.versions import EdgeRow, NodeRow, ServerStateRow, VersionRow
from bract_server.registry.models.withdrawals import (
    DecidedRow,
    DecisionRow,
    ImpactRow,
    NoticeRow,
    NoticeSnapshotRow,
    RevocationRow,
)

__all__ = [
    "LOG",
    "MUTABLE",
    "RETENTION",
    "AccessRow",
    "AccountRow",
    "ApprovalRow",
    "ArtefactRow",
    "Base",
    "CampaignRow",
    "CampaignSiteRow",
    "CardRow",
    "CertificateRow",
    "ClearanceRow",
    "ContributionRow",
    "DecidedRow",
    "DecisionRow",
    "EdgeRow",
    "EntryRow",
    "ImpactRow",
    "InspectionRow",
    "LiftRow",
    "NodeRow",
    "NoticeRow",
    "NoticeSnapshotRow",
    "OutcomeRow",
    "OverrideRow",
    "ParticipantRow",
    "PersonEndRow",
    "PersonRoleRow",
    "PersonRow",
    "PolicyRow",
    "PrincipalRow",
    "PublicationRow",
    "QuarantineRow",
    "ReceiptRow",
    "RefusalRow",
    "ReleaseRow",
    "RelinquishmentRow",
    "ReservationRow",
    "RevocationRow",
    "RoundPlanRow",
    "RoundRow",
    "RunRow",
    "ServerStateRow",
    "SiteRow",
    "TakenBackRow",
    "TermsRow",
    "TokenRow",
    "VersionRow",
]

MUTABLE: dict[str, frozenset[str]] = {
    **{table: frozenset(columns) for table, columns in CHANGING.items()},
    "site": frozenset({"revoked_at", "seen_at"}),
    "campaign": frozenset({"state", "reason"}),
    "round": frozenset({"state"}),
    "campaign_run": frozenset({"flower_run"}),
    "privacy_account": frozenset({"cap_epsilon", "curve"}),
    "access_token": frozenset({"revoked_at"}),
}
"""The only columns whose values change; every other table and column is kept by triggers."""
