"""What the backdoor check found of a round, kept before the round is closed by it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import STATE, BractError
from bract_server.registry.models import InspectionRow
from bract_server.registry.places import round_row
from bract_server.registry.rounds import OPEN
from bract_server.registry.unit import Store
from bract_server.registry.views import Inspection


class Inspections(Store):
    """The part of the registry that keeps what the backdoor check found."""

    def keep_inspection(
        self,
        campaign: Digest,
        number: int,
        scores: Mapping[str, float],
        flagged: Sequence[str],
        *,
        excluded: bool,
        at: datetime,
    ) -> None:
        """Keep a round's inspection. The same again is kept once; another one, of other updates, beside it: the last counts.

        Args:
            campaign: the campaign's plan.
            number: the round.
            scores: of each inspected site.
            flagged: sites that are suspected.
            excluded: whether their updates are left out of the version.
            at: now.

        Raises:
            BractError: `unknown-campaign`; `wrong-state` when the round has ended.
        """
        with self.writing(at) as unit:
            row = round_row(unit.session, campaign, number)
            if row.state not in OPEN:
                raise BractError(STATE, f"round {number} is {row.state}")
            found = Inspection(dict(sorted(scores.items())), tuple(sorted(flagged)), excluded)
            if inspection(unit.session, row.id) == found:
                return
            unit.session.add(
                InspectionRow(
                    round_id=row.id,
                    scores=dict(found.scores),
                    flagged=list(found.flagged),
                    excluded=excluded,
                    inspected_at=at,
                )
            )
            told: dict[str, Any] = {"scores": dict(found.scores), "flagged": list(found.flagged), "excluded": excluded}
            unit.log("round.inspect", campaign, campaign=campaign, number=number, **told)


def inspection(session: Session, round_id: int) -> Inspection | None:
    """The inspection of a round that counts, None without one."""
    wanted = select(InspectionRow).where(InspectionRow.round_id == round_id).order_by(InspectionRow.id.desc()).limit(1)
    row = session.scalars(wanted).first()
    return None if row is None else Inspection(dict(row.scores), tuple(row.flagged), row.excluded)
