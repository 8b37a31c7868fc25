"""The site's registry: one transaction a verb, with its log entry in it; callers get frozen values.

Writers run one after the other (the log's lock), so that numbers and recorded times never go back. Subject identifiers
come in as arguments, become handles at once, and are neither stored nor logged nor named in an error.
"""

from datetime import datetime

from bract.log import book
from bract.log.book import LogReport
from bract.log.checkpoint import Checkpoint
from bract.signing import Envelope
from bract_client.registry import derived, ledger, upkeep
from bract_client.registry.access import AccessVerbs
from bract_client.registry.bundle import Bundles
from bract_client.registry.data import DataVerbs
from bract_client.registry.models import LOG
from bract_client.registry.questions import Questions
from bract_client.registry.relinquish import Relinquishing
from bract_client.registry.retention import RetentionVerbs
from bract_client.registry.rounds import RoundVerbs
from bract_client.registry.terms import TermsVerbs
from bract_client.registry.witnesses import WitnessVerbs


class SiteRegistry(
    RetentionVerbs, DataVerbs, TermsVerbs, RoundVerbs, Relinquishing, Questions, WitnessVerbs, Bundles, AccessVerbs
):
    """Data sets, people's decisions, rounds and the privacy ledger of one site."""

    def checkpoint(self, at: datetime) -> Envelope:
        """The signed state of the log.

        Raises:
            BractError: `log-inconsistent`; `wrong-state` for an empty log.
        """
        with self._write() as session:
            return book.checkpoint(session, LOG, self._keys.signing, self._keys.site, at)

    def verify_log(self, known: Checkpoint | None = None) -> LogReport:
        """Recomputes the log and compares it with every checkpoint.

        Raises:
            BractError: `log-inconsistent`, naming the first bad entry.
        """
        with self._read() as session:
            return book.verify(session, LOG, self._keys.signing.public_key(), known)

    def check(self) -> None:
        """Recomputes everything that is derived: consent state, accounts, and the events that the log commits to.

        Raises:
            BractError: `log-inconsistent`, naming what differs.
        """
        with self._read() as session:
            upkeep.check_state(session)
            upkeep.check_events(session)
            ledger.check(session)

    def rebuild(self, at: datetime) -> None:
        """Derives the consent state again from the events."""
        with self._write() as session:
            derived.rebuild(session)
            self._log(session, "consent.rebuild", self._keys.site, {}, at)
