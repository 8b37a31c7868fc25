"""The record of every reading of what persons' data gave: written before the answer, and kept for good."""

import re
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.roles import Role
from bract_client.handles import handle
from bract_client.registry.desk import Desk
from bract_client.registry.keys import SiteKeys
from bract_client.registry.models import AccessRow, Subject

_HANDLE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Reader:
    """Who reads, in which role, and why; `purpose` is their own word."""

    name: str
    role: Role = Role.SITE
    purpose: str = "not stated"


class AccessVerbs(Desk):
    """What a site remembers of those who looked."""

    def accessed(self, who: Reader, asked: str, at: datetime, person: str | None = None) -> None:
        """Record a reading; nothing may be read if this fails. The log's entry names no person, not even by number.

        Args:
            who: the reader.
            asked: what was asked, as `question 1` or `subject history`.
            at: now.
            person: an identifier, or a handle in hexadecimal, of the one person whom it is about.
        """
        with self._write() as session:
            number = None if person is None else numbered(session, self._keys, person)
            session.add(
                AccessRow(at=at, principal=who.name, role=who.role, asked=asked, purpose=who.purpose, subject_no=number)
            )
            self._log(session, "access.read", asked, {"by": who.name, "role": who.role, "purpose": who.purpose}, at)


def numbered(session: Session, keys: SiteKeys, person: str) -> int | None:
    """The number of a person, by identifier or by handle in hexadecimal; None when the site knows no such person."""
    names = [handle(keys.subject, person)]
    if _HANDLE.fullmatch(person):
        names.append(bytes.fromhex(person))
    return session.scalar(select(Subject.subject_no).where(Subject.handle.in_(names)).limit(1))
