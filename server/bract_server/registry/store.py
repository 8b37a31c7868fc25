"""The hub's registry: the one door to its database. One file a noun; here they are one class, and a way to open it."""

from bract_server.registry.access import Access
from bract_server.registry.answers import Answers
from bract_server.registry.bundle import Bundles
from bract_server.registry.campaigns import Campaigns
from bract_server.registry.contributions import Contributions
from bract_server.registry.endings import Endings
from bract_server.registry.inspections import Inspections
from bract_server.registry.ledger import Ledger
from bract_server.registry.nodes import Nodes
from bract_server.registry.persons import Persons
from bract_server.registry.places import Places
from bract_server.registry.quarantine import Quarantines
from bract_server.registry.releases import Releases
from bract_server.registry.retention import RetentionVerbs
from bract_server.registry.rounds import Rounds
from bract_server.registry.runs import Runs
from bract_server.registry.sites import Sites
from bract_server.registry.versions import Versions
from bract_server.registry.views import (
    Accepted,
    Campaign,
    Impact,
    Notice,
    RoundAnswers,
    RoundReport,
    Run,
    Site,
    Version,
)
from bract_server.registry.withdrawals import Withdrawals
from bract_server.registry.witnesses import Witnesses

__all__ = [
    "Accepted",
    "Campaign",
    "HubRegistry",
    "Impact",
    "Notice",
    "RoundAnswers",
    "RoundReport",
    "Run",
    "Site",
    "Version",
]


class HubRegistry(
    Sites,
    Campaigns,
    Runs,
    Quarantines,
    Answers,
    Places,
    Ledger,
    Rounds,
    Contributions,
    Inspections,
    Versions,
    Endings,
    Withdrawals,
    Nodes,
    Persons,
    Releases,
    Access,
    Witnesses,
    Bundles,
    RetentionVerbs,
):
    """Everything that the hub remembers. Every verb is one transaction with its log entries; answers are frozen values.

    May be used by several threads and processes at once.
    """
