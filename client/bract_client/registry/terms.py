"""What the steward declares about a data set beside its people's consents: further uses, and conditions that take uses away.

Rules:
    1. The newest terms of a data set count, for what is cleared and trained from then on; without any its consents decide.
    2. They are signed, kept and logged here first, and then told to the hub, which compares them with every clearance too.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from bract.consent import Purpose
from bract.digest import Digest
from bract.model import DatasetTerms
from bract.signing import Envelope, parse_envelope, sign
from bract.use import check_terms
from bract.value import decode
from bract.vocabulary.modifiers import Modifier
from bract_client.registry import members
from bract_client.registry.desk import Desk
from bract_client.registry.models import TermsRow


class TermsVerbs(Desk):
    """The part of the registry that knows what a data set's notice allows."""

    def declare(
        self,
        dataset: str,
        declares: Sequence[Purpose],
        modifiers: Sequence[Modifier],
        document: Digest,
        at: datetime,
    ) -> Envelope:
        """Signs a data set's terms, which take the place of earlier ones; the hub has still to hear of them.

        Args:
            dataset: its name.
            declares: further uses that the notice to its people named.
            modifiers: conditions that the notice names.
            document: digest of the notice.
            at: now.

        Raises:
            BractError: `unknown-dataset`.
        """
        value = DatasetTerms(self.site, dataset, tuple(declares), tuple(modifiers), document, at)
        envelope = sign(value, self._keys.signing)
        with self._write() as session:
            members.dataset(session, dataset)
            if session.scalar(select(TermsRow.no).where(TermsRow.name == envelope.name)) is None:
                said = {"dataset": dataset, "name": envelope.name, "envelope": envelope.to_json(), "given_at": at}
                session.execute(insert(TermsRow), said)
                self._log(session, "terms.give", envelope.name, {"dataset": dataset, "declares": sorted(declares)}, at)
        return envelope

    def terms(self, dataset: str) -> DatasetTerms | None:
        """A data set's newest terms, None before there are any."""
        with self._read() as session:
            return _newest(session, dataset)

    def check_terms(self, dataset: str, purpose: Purpose, at: datetime) -> None:
        """That a data set's terms, if there are any, leave a purpose now.

        Raises:
            BractError: `off-purpose`.
        """
        found = self.terms(dataset)
        if found is not None:
            check_terms(purpose, found.modifiers, at)

    def untold_terms(self) -> tuple[Envelope, ...]:
        """The terms that the hub has still to hear of, oldest first."""
        wanted = select(TermsRow.envelope).where(TermsRow.sent_at.is_(None)).order_by(TermsRow.no)
        with self._read() as session:
            return tuple(map(parse_envelope, session.scalars(wanted)))

    def mark_told(self, name: Digest, at: datetime) -> None:
        """Notes that the hub has the terms of that name; again is fine."""
        row = TermsRow
        with self._write() as session:
            session.execute(update(row).where(row.name == name, row.sent_at.is_(None)).values(sent_at=at))


def _newest(session: Session, dataset: str) -> DatasetTerms | None:
    wanted = select(TermsRow.envelope).where(TermsRow.dataset == dataset).order_by(TermsRow.no.desc()).limit(1)
    sealed = session.scalar(wanted)
    return None if sealed is None else decode(DatasetTerms, parse_envelope(sealed).payload)
