"""The site registry's tables.

Events (consent, ledger entries, clearances, contributions, receipts, snapshots, the log) are only ever added; triggers
refuse anything else. `consent_current` and `consent_effective` are derived from the events and can be rebuilt. Subjects
are known by handle.
"""

from bract_client.registry.models.access import AccessRow
from bract_client.registry.models.base import EVERYWHERE, NAME, Base
from bract_client.registry.models.consent import (
    ConsentCondition,
    ConsentCurrent,
    ConsentEffective,
    ConsentEventRow,
    PurposeClosure,
    PurposeRow,
)
from bract_client.registry.models.data import Dataset, Quarantine, Record, Subject, TermsRow
from bract_client.registry.models.ledger import PrivacyAccount, PrivacyEntry, RelinquishmentRow, ReservationRow
from bract_client.registry.models.log import LOG
from bract_client.registry.models.retention import RETENTION
from bract_client.registry.models.rounds import ClearanceRow, ContributionRow, NoticeOutbox, ReceiptRow, SnapshotRow

__all__ = [
    "EVERYWHERE",
    "LOG",
    "NAME",
    "RETENTION",
    "AccessRow",
    "Base",
    "ClearanceRow",
    "ConsentCondition",
    "ConsentCurrent",
    "ConsentEffective",
    "ConsentEventRow",
    "ContributionRow",
    "Dataset",
    "NoticeOutbox",
    "PrivacyAccount",
    "PrivacyEntry",
    "PurposeClosure",
    "PurposeRow",
    "Quarantine",
    "ReceiptRow",
    "Record",
    "RelinquishmentRow",
    "ReservationRow",
    "SnapshotRow",
    "Subject",
    "TermsRow",
]
