"""The site registry's tables.

Events (consent, ledger entries, clearances, contributions, receipts, snapshots, the log) are only ever added; triggers
refuse anything else. `consent_current` is derived from the events and can be rebuilt. Subjects are known by handle.
"""

from bract_client.registry.models.base import EVERYWHERE, NAME, Base
from bract_client.registry.models.consent import ConsentCurrent, ConsentEventRow
from bract_client.registry.models.data import Dataset, Quarantine, Record, Subject
from bract_client.registry.models.ledger import PrivacyAccount, PrivacyEntry, ReservationRow
from bract_client.registry.models.log import LOG
from bract_client.registry.models.rounds import ClearanceRow, ContributionRow, NoticeOutbox, ReceiptRow, SnapshotRow

__all__ = [
    "EVERYWHERE",
    "LOG",
    "NAME",
    "Base",
    "ClearanceRow",
    "ConsentCurrent",
    "ConsentEventRow",
    "ContributionRow",
    "Dataset",
    "NoticeOutbox",
    "PrivacyAccount",
    "PrivacyEntry",
    "Quarantine",
    "ReceiptRow",
    "Record",
    "ReservationRow",
    "SnapshotRow",
    "Subject",
]
