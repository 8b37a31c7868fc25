"""The site's registry: one transaction a verb, with its log entry in it; callers get frozen values.

Writers run one after the other (the log's lock), so that numbers and recorded times never go back. Subject identifiers
come in as arguments, become handles at once, and are neither stored nor logged nor named in an error.
"""

import json
from datetime import datetime

from sqlalchemy.orm import Session

from bract.errors import LOG as LOG_CODE
from bract.errors import BractError
from bract.log import book
from bract.log.book import LogReport
from bract.log.checkpoint import Checkpoint
from bract.signing import Envelope
from bract_client.registry import decisions, ledger
from bract_client.registry.data import DataVerbs
from bract_client.registry.models import LOG
from bract_client.registry.questions import Questions
from bract_client.registry.rounds import RoundVerbs


class SiteRegistry(DataVerbs, RoundVerbs, Questions):
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
            wrong = decisions.drift(session)
            if wrong:
                raise BractError(LOG_CODE, f"consent state: {wrong} rows differ from the events")
            _check_events(session)
            ledger.check(session)

    def rebuild(self, at: datetime) -> None:
        """Derives the consent state again from the events."""
        with self._write() as session:
            decisions.rebuild(session)
            self._log(session, "consent.rebuild", self._keys.site, {}, at)


def _check_events(session: Session) -> None:
    """That every consent event is one the log committed to, unchanged, and none is missing."""
    last = 0
    for entry in book.entries(session, LOG):
        if entry.kind != "consent.record":
            continue
        data = book.body(session, LOG, entry.seq)
        if data is None:
            raise BractError(LOG_CODE, f"log entry {entry.seq} has no body")
        body = json.loads(data)
        if body["first"] != last + 1 or decisions.rows_digest(session, body["first"], body["last"]) != body["rows"]:
            raise BractError(LOG_CODE, f"consent events from {last + 1}: not those of log entry {entry.seq}")
        last = body["last"]
    if last != decisions.newest(session):
        raise BractError(LOG_CODE, f"consent events after {last} were never logged")
