"""Disposals as tasks: claimed before anything is deleted, finished with a signed receipt after it was looked for again.

A task that is `executing` while no job runs was cut off; its pending objects are deleted again, which changes nothing
about those that are gone. A task that `failed` stays, and so stays due.
"""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from bract.digest import Digest, parse_digest
from bract.disposal.book import Pen
from bract.disposal.tables import RetentionTables
from bract.errors import BractError
from bract.retention import DisposalReceipt, Method, ObjectKind
from bract.retention.receipt import objects_root
from bract.signing import parse_envelope
from bract.value import decode

_SALT = 32
_CHUNK = 500


@dataclass(frozen=True)
class Task:
    """A disposal that is not finished; `objects` are those still pending."""

    id: int
    kind: ObjectKind
    scope: str
    objects: tuple[str, ...]
    due_at: datetime
    policies: tuple[Digest, ...]
    sources: bool
    ordered_by: str
    attempts: int
    state: str
    code: str | None


@dataclass(frozen=True)
class Disposal:
    """A receipt as it was signed."""

    receipt: DisposalReceipt
    name: Digest
    task: int
    envelope: bytes


@dataclass(frozen=True)
class Outcome:
    """What one attempt did.

    Attributes:
        gone: objects that were deleted and not found again, and how.
        failed: those that are still there, and the code of what stood in the way.
        remains: what the deletion leaves behind, by `bract.retention.receipt.REMAINS`.
    """

    gone: Mapping[str, Method]
    failed: Mapping[str, str]
    remains: frozenset[str] = frozenset()


def claim(pen: Pen, task: Task) -> Task:
    """Puts a new task on disk, as being executed; its number is given here."""
    table = pen.tables.task
    row = {
        "kind": task.kind.value,
        "scope": task.scope,
        "due_at": task.due_at,
        "policies": list(task.policies),
        "sources": task.sources,
        "ordered_by": task.ordered_by,
        "made_at": pen.at,
        "state": "executing",
        "attempts": 1,
        "claimed_at": pen.at,
        "code": None,
    }
    number = pen.session.execute(insert(table).returning(table.c.id), row).scalar_one()
    members = [{"task": number, "object": one, "state": "pending"} for one in task.objects]
    pen.session.execute(insert(pen.tables.member), members)
    pen.tell("disposal.begin", _about(task.kind, number), {"scope": task.scope, "objects": len(task.objects)})
    return replace(task, id=number, attempts=1, state="executing")


def reclaim(pen: Pen, task: Task) -> Task:
    """Takes a task up again."""
    table = pen.tables.task
    values = {"state": "executing", "attempts": task.attempts + 1, "claimed_at": pen.at}
    pen.session.execute(update(table).where(table.c.id == task.id).values(values))
    return replace(task, attempts=task.attempts + 1, state="executing")


def release(pen: Pen, task: Task, objects: Sequence[str]) -> None:
    """Lets go of objects that may not be deleted any more; they are judged anew from then on."""
    if objects:
        _mark(pen, task, objects, "released")
        pen.tell("disposal.release", _about(task.kind, task.id), {"objects": len(objects)})


def finish(pen: Pen, by: str, task: Task, outcome: Outcome, leaves: Mapping[str, bytes]) -> tuple[DisposalReceipt, ...]:
    """Signs for what is gone, keeps what failed due, and ends the task when nothing is left of it.

    Args:
        pen: the transaction.
        by: the site or hub.
        task: as it was claimed.
        outcome: of the attempt.
        leaves: what each object of this kind and scope is in a root, of all that were there before the attempt.
    """
    receipts = tuple(
        _receipt(pen, by, task, method, [name for name, how in outcome.gone.items() if how is method], outcome, leaves)
        for method in sorted(set(outcome.gone.values()))
    )
    _mark(pen, task, list(outcome.gone), "gone")
    table = pen.tables.task
    code = next(iter(sorted(outcome.failed.values())), None)
    state = "failed" if outcome.failed else "done"
    pen.session.execute(update(table).where(table.c.id == task.id).values(state=state, code=code))
    if outcome.failed:
        body = {"objects": len(outcome.failed), "code": code, "attempts": task.attempts}
        pen.tell("disposal.fail", _about(task.kind, task.id), body)
    return receipts


def unfinished(session: Session, tables: RetentionTables) -> tuple[Task, ...]:
    """Every task with something pending, or that was not ended, oldest first."""
    task, member = tables.task, tables.member
    pending: dict[int, list[str]] = {}
    rows = session.execute(
        select(member.c.task, member.c.object)
        .join(task, task.c.id == member.c.task)
        .where(task.c.state != "done", member.c.state == "pending")
        .order_by(member.c.task, member.c.object)
    )
    for number, name in rows:
        pending.setdefault(number, []).append(name)
    found = session.execute(select(task).where(task.c.state != "done").order_by(task.c.id))
    return tuple(
        Task(
            id=row.id,
            kind=ObjectKind(row.kind),
            scope=row.scope,
            objects=tuple(pending.get(row.id, ())),
            due_at=row.due_at,
            policies=tuple(row.policies),
            sources=row.sources,
            ordered_by=row.ordered_by,
            attempts=row.attempts,
            state=row.state,
            code=row.code,
        )
        for row in found
    )


def disposals(session: Session, tables: RetentionTables) -> tuple[Disposal, ...]:
    """Every receipt, oldest first."""
    table = tables.receipt
    rows = session.execute(select(table).order_by(table.c.at, table.c.task, table.c.digest))
    return tuple(
        Disposal(
            decode(DisposalReceipt, parse_envelope(row.envelope).payload), Digest(row.digest), row.task, row.envelope
        )
        for row in rows
    )


def _receipt(
    pen: Pen,
    by: str,
    task: Task,
    method: Method,
    names: Sequence[str],
    outcome: Outcome,
    leaves: Mapping[str, bytes],
) -> DisposalReceipt:
    salt, mine = secrets.token_bytes(_SALT), set(names)
    still = set(leaves) - set(outcome.gone)
    value = DisposalReceipt(
        by=by,
        ordered_by=task.ordered_by,
        kind=task.kind,
        scope=task.scope,
        disposed=objects_root(salt, (leaves.get(name, name.encode()) for name in mine)),
        before=objects_root(salt, (leaves[name] for name in leaves)),
        after=objects_root(salt, (leaves[name] for name in still)),
        named=tuple(sorted(_digests(task.kind, mine))),
        method=method,
        remains=tuple(sorted(outcome.remains)),
        policies=task.policies,
        due_at=task.due_at,
        at=pen.at,
    )
    envelope = pen.sign(value)
    row = {
        "digest": envelope.name,
        "task": task.id,
        "kind": task.kind.value,
        "scope": task.scope,
        "method": method.value,
        "salt": salt,
        "envelope": envelope.to_json(),
        "at": pen.at,
    }
    pen.session.execute(insert(pen.tables.receipt), row)
    pen.tell("disposal.finish", envelope.name, {"task": task.id, "objects": len(mine), "method": method.value})
    return value


def _digests(kind: ObjectKind, names: Iterable[str]) -> list[Digest]:
    """Those names that are public digests already; of records and other things of a site none is."""
    if kind not in (ObjectKind.CHECKPOINT, ObjectKind.SERVER_STATE, ObjectKind.UPDATE, ObjectKind.EXPORT):
        return []
    found = []
    for name in names:
        try:
            found.append(parse_digest(name))
        except BractError:
            continue
    return found


def _mark(pen: Pen, task: Task, objects: Sequence[str], state: str) -> None:
    table = pen.tables.member
    for start in range(0, len(objects), _CHUNK):
        chunk = objects[start : start + _CHUNK]
        pen.session.execute(update(table).where(table.c.task == task.id, table.c.object.in_(chunk)).values(state=state))


def _about(kind: ObjectKind, number: int) -> str:
    return f"{kind.value}/{number}"
