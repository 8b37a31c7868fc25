"""Who left a snapshot while a round was trained on it, by what is known now."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Session

from bract.consent import Purpose, Verdict
from bract.digest import Digest
from bract.vocabulary.modifiers import UseContext
from bract_client.registry import judged, snapshots
from bract_client.registry.members import dataset
from bract_client.registry.models import Record
from bract_client.registry.resolving import judge, known_at, many

_IN = Verdict.ADMITTED.value


def lost(session: Session, snapshot: Digest, since: datetime, at: datetime, use: UseContext) -> bool:
    """Whether somebody of a snapshot was permitted at `since`, by what was known then, and by what is known now is not at `at`.

    Knowledge counts, not only times: a withdrawal that is learnt late lies before `since`. Records that were taken away
    meanwhile do not hide who withdrew.

    Raises:
        BractError: `stale-clearance` when there is no such snapshot.
    """
    row = snapshots.row_of(session, snapshot)
    purpose, about = Purpose(row.purpose), replace(dataset(session, row.dataset), member_seq=row.member_seq)
    was = judged.records(session, about, purpose, since, use, known_at(session, since))
    then = snapshots.judged_then(session, row)
    now = judge(session, Record.subject_no, purpose, about.name, at, use, name="after")
    ended = func.coalesce(now.verdict, Verdict.NO_CONSENT.value) != _IN
    statement = now.join(then.join(was.admitted)).where(then.verdict == _IN, ended)
    with many(session):
        return session.execute(statement.add_columns(Record.record_no).limit(1)).first() is not None
