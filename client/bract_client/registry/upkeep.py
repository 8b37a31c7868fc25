"""Recomputing what the consent tables say: the derived state from the events, and the events from the log."""

import json

from sqlalchemy.orm import Session

from bract.errors import LOG as LOG_CODE
from bract.errors import BractError
from bract.log import book
from bract_client.registry import decisions, derived
from bract_client.registry.models import LOG

RECORDED = "consent.record"
"""The kind of the entry that commits to new events."""


def check_state(session: Session) -> None:
    """That the derived tables say what the events say, and the vocabulary is this version's.

    Raises:
        BractError: `log-inconsistent`, naming the tables and how many rows differ.
    """
    wrong = derived.drift(session)
    if wrong:
        told = ", ".join(f"{name}: {count} rows" for name, count in sorted(wrong.items()))
        raise BractError(LOG_CODE, f"consent state differs from the events: {told}")


def check_events(session: Session) -> None:
    """That every consent event is one the log committed to, unchanged, and none is missing.

    Raises:
        BractError: `log-inconsistent`, naming the first bad log entry.
    """
    last = 0
    for entry in book.entries(session, LOG):
        if entry.kind != RECORDED:
            continue
        data = book.body(session, LOG, entry.seq)
        if data is None:
            raise BractError(LOG_CODE, f"log entry {entry.seq} has no body")
        body = json.loads(data)
        first, end, form = body["first"], body["last"], body.get("form", 1)
        if first != last + 1 or decisions.rows_digest(session, first, end, form) != body["rows"]:
            raise BractError(LOG_CODE, f"consent events from {last + 1}: not those of log entry {entry.seq}")
        last = end
    if last != decisions.newest(session):
        raise BractError(LOG_CODE, f"consent events after {last} were never logged")
