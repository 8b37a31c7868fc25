"""What the site puts into a bundle for auditors beside its log: nothing that is about one person.

Entries name no person, and all of them are in the bundle: the tree is made of them. A body leaves only if its kind is
listed here as speaking of rounds or of the log itself, and every text in it is a name, a digest or a time; all others are
withheld, and the bundle says so. Exact counts of people are withheld unless the steward adds them: two of them can be
subtracted.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.log import book, exchange, export, forks
from bract.log.bundle import HUB, SITE, Party
from bract.log.export import Contents
from bract.signing import key_text
from bract_client.registry.desk import Desk
from bract_client.registry.models import (
    LOG,
    ClearanceRow,
    ContributionRow,
    ReceiptRow,
    RelinquishmentRow,
    ReservationRow,
    TermsRow,
)

OPEN = frozenset(
    {
        "clearance.issue",
        "privacy.reserve",
        "privacy.settle",
        "privacy.expire",
        "privacy.relinquish",
        "training.begin",
        "contribution.keep",
        "receipt.keep",
        "consent.rebuild",
        "notice.take",
        "notice.send",
        "terms.give",
        exchange.PADDING,
    }
)
"""Kinds that speak of rounds, and of what data sets may be used for."""

SPOKEN = frozenset({book.ERASED, forks.FOUND, forks.ACCEPTED})
"""Kinds with a reason in somebody's words, which is written to be read by auditors."""

COUNTS = frozenset({"snapshot.freeze", "dataset.ingest", "consent.import", "consent.record"})
"""Kinds that count people, records or decisions."""

_HARMLESS = re.compile(r"sha256:[0-9a-f]{64}|[a-z0-9][a-z0-9_.-]{0,62}|\d{4}-\d\d-\d\dT[0-9:.]{8,15}(Z|\+00:00)|")


class Bundles(Desk):
    """The part of the registry that is handed to auditors as a whole."""

    def bundle(self, hub: Ed25519PublicKey | None, *, counts: bool = False) -> Iterator[tuple[str, bytes]]:
        """The files of a bundle of the whole log, up to its newest checkpoint; sign one before (`checkpoint`).

        Args:
            hub: the hub's key, if the site is enrolled.
            counts: also bodies that count people, records or decisions.

        Raises:
            BractError: `wrong-state` before anything is signed; `log-inconsistent` when something is missing.
        """
        with self._read() as session:
            yield from export.files(session, LOG, self._keys.signing, _contents(session, hub, counts))


def harmless(body: Any) -> bool:
    """Whether every text in plain data is a name, a digest or a time."""
    if isinstance(body, str):
        return _HARMLESS.fullmatch(body) is not None
    if isinstance(body, dict):
        return all(harmless(one) for one in (*body, *body.values()))
    if isinstance(body, list):
        return all(harmless(one) for one in body)
    return True


def _contents(session: Session, hub: Ed25519PublicKey | None, counts: bool) -> Contents:
    clearance, reservation, receipt = ClearanceRow, ReservationRow, ReceiptRow
    contribution, relinquished = ContributionRow, RelinquishmentRow
    wanted = {
        "clearance.issue": select(clearance.name, clearance.envelope),
        "privacy.reserve": select(reservation.name, reservation.envelope),
        "privacy.relinquish": select(relinquished.name, relinquished.envelope),
        "terms.give": select(TermsRow.name, TermsRow.envelope),
        "contribution.keep": select(contribution.name, contribution.envelope),
        "receipt.keep": select(receipt.contribution, receipt.envelope),
    }
    things = {kind: dict(session.execute(rows).all()) for kind, rows in wanted.items()}
    shown = OPEN | SPOKEN | (COUNTS if counts else frozenset())
    return Contents(
        side=SITE,
        parties=() if hub is None else (Party(HUB, key_text(hub)),),
        people=(),
        authority="",
        things=things,
        named=frozenset(),
        disclosed=lambda kind: kind in shown,
        harmless=lambda kind, body: kind in SPOKEN or harmless(json.loads(body)),
        lineage=None,
    )
