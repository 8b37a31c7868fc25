"""The rows of what a withdrawal touches against the log: one entry stands for all rows of one recording."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from bract.digest import Digest
from bract_server.registry.models import ImpactRow, NodeRow, NoticeRow

SPREAD = "withdrawal.spread"
"""The kind of the log entry over the rows of one recording."""


def digests(session: Session) -> Iterator[Digest]:
    """Of every recording, the digest over its rows as they are kept: what its log entry is about."""
    clean = aliased(NodeRow)
    wanted = (
        select(ImpactRow, NodeRow.kind, NodeRow.ref, clean.ref, NoticeRow.digest)
        .join(NodeRow, NodeRow.id == ImpactRow.node_id)
        .join(NoticeRow, NoticeRow.id == ImpactRow.notice_id)
        .outerjoin(clean, clean.id == ImpactRow.clean)
        .where(ImpactRow.batch > 0)
        .order_by(ImpactRow.notice_id, ImpactRow.batch, ImpactRow.node_id)
    )
    lines, place = list[bytes](), ("", 0)
    for row, kind, ref, clean_ref, notice in session.execute(wanted):
        if place != (notice, row.batch):
            if lines:
                yield digest_of_rows(*place, lines)
            place, lines = (notice, row.batch), []
        lines.append(line(kind, ref, row.effect, row.bound, row.path_length, clean_ref, row.due_at))
    if lines:
        yield digest_of_rows(*place, lines)


def line(
    kind: str, ref: str, effect: str, bound: dict[str, Any], length: int, clean: str | None, due: datetime | None
) -> bytes:
    """One row, as it goes into the digest."""
    fields = [kind, ref, str(effect), bound, length, clean, None if due is None else due.isoformat()]
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


def digest_of_rows(notice: str, batch: int, lines: Iterable[bytes]) -> Digest:
    """The digest that the log entry of a recording is about."""
    hasher = hashlib.sha256(f"{notice} {batch}\n".encode())
    for line in lines:
        hasher.update(line + b"\n")
    return Digest(f"sha256:{hasher.hexdigest()}")
