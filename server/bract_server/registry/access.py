"""Access: principals, their tokens, and the record of every reading.

Rules:
    1. A token is 256 random bits; only its SHA-256 is kept, so that a stolen registry opens nothing.
    2. A token expires, at the latest after a year, and can be revoked at any time.
    3. A principal keeps its role; another role is another principal.
    4. A reading is recorded before it is answered. One that is about persons has its entry in the log, too.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, STATE, TOKEN, BractError
from bract.question import QUESTIONS
from bract.roles import Role
from bract_server.registry.models import AccessRow, PrincipalRow, TokenRow
from bract_server.registry.sites import live_site
from bract_server.registry.unit import Store, Unit

LONGEST = timedelta(days=366)


@dataclass(frozen=True)
class Principal:
    """Somebody who asks. `questions` narrows what the role may ask, unless it is empty; `site` is of the role `site`."""

    name: str
    role: Role
    site: str | None = None
    questions: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Token:
    """A token as it is listed: everything but itself."""

    number: int
    principal: str
    role: Role
    site: str | None
    questions: tuple[int, ...]
    issued_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class Access(Store):
    """The part of the registry that knows who may read, and who did."""

    def issue_token(
        self,
        name: str,
        role: Role,
        at: datetime,
        *,
        expires_at: datetime,
        site: str | None = None,
        questions: frozenset[int] = frozenset(),
    ) -> tuple[int, str]:
        """A new token for a principal, who is made if new.

        Returns:
            The token's number, and the token: it is shown this once.

        Raises:
            BractError: `already-exists` when the principal has another role or site; `unknown-site`; `malformed` for a
                site with another role than `site`, an unknown question, or an end that is past or over a year ahead.
        """
        if (role is Role.SITE) != (site is not None):
            raise BractError(MALFORMED, "site: named for the role `site`, and for no other")
        if not at < expires_at <= at + LONGEST:
            raise BractError(MALFORMED, f"a token ends between now and in {LONGEST.days} days")
        if not questions <= set(QUESTIONS):
            raise BractError(MALFORMED, f"questions are numbered 1 to {len(QUESTIONS)}")
        token = secrets.token_urlsafe(32)
        with self.writing(at) as unit:
            _principal(unit, name, role, site)
            row = TokenRow(
                principal=name,
                digest=token_digest(token),
                questions=sorted(questions),
                issued_at=at,
                expires_at=expires_at,
            )
            unit.session.add(row)
            unit.session.flush()
            until, only = expires_at.isoformat(), sorted(questions)
            unit.log("access.issue", name, role=role, site=site, token=row.digest, expires_at=until, questions=only)
            return row.id, token

    def revoke_token(self, number: int, at: datetime) -> None:
        """From now on the token opens nothing; twice is once.

        Raises:
            BractError: `wrong-state` when there is no such token.
        """
        with self.writing(at) as unit:
            row = unit.session.get(TokenRow, number)
            if row is None:
                raise BractError(STATE, f"there is no token {number}")
            if row.revoked_at is None:
                row.revoked_at = at
                unit.log("access.revoke", row.principal, token=row.digest)

    def tokens(self) -> tuple[Token, ...]:
        """Every token ever given out, oldest first."""
        wanted = select(TokenRow, PrincipalRow).join(PrincipalRow, PrincipalRow.name == TokenRow.principal)
        with self.seeing() as session:
            return tuple(
                Token(
                    number=row.id,
                    principal=row.principal,
                    role=Role(who.role),
                    site=who.site,
                    questions=tuple(row.questions),
                    issued_at=row.issued_at,
                    expires_at=row.expires_at,
                    revoked_at=row.revoked_at,
                )
                for row, who in session.execute(wanted.order_by(TokenRow.id))
            )

    def principal(self, token: str, at: datetime) -> Principal:
        """Whose token this is. A site's tokens end with its enrolment.

        Raises:
            BractError: `access-token` when it is unknown, expired or revoked; `unknown-site`.
        """
        wanted = (
            select(TokenRow, PrincipalRow)
            .join(PrincipalRow, PrincipalRow.name == TokenRow.principal)
            .where(TokenRow.digest == token_digest(token), TokenRow.expires_at > at, TokenRow.revoked_at.is_(None))
        )
        with self.seeing() as session:
            found = session.execute(wanted).first()
            if found is None:
                raise BractError(TOKEN)
            row, who = found
            if who.site is not None:
                live_site(session, who.site)
            return Principal(who.name, Role(who.role), who.site, frozenset(row.questions))

    def accessed(
        self,
        who: Principal,
        asked: str,
        arguments: Mapping[str, Any],
        purpose: str,
        at: datetime,
        *,
        about_persons: bool = False,
    ) -> None:
        """Record a reading (rule 4), before it is answered.

        Raises:
            BractError: `disk`, `concurrent`: then nothing may be read.
        """
        row = AccessRow(
            at=at,
            principal=who.name,
            role=who.role,
            asked=asked,
            arguments=dict(arguments),
            purpose=purpose,
            about_persons=about_persons,
        )
        if not about_persons:
            # Not a fact for the log: whoever asks often would fill it.
            with Session(self._engine) as session, session.begin():
                session.add(row)
            return
        with self.writing(at) as unit:
            unit.session.add(row)
            unit.log("access.read", asked, who.name, role=who.role, purpose=purpose, arguments=dict(arguments))


def token_digest(token: str) -> Digest:
    """The digest under which a token is kept."""
    return Digest(f"sha256:{hashlib.sha256(token.encode()).hexdigest()}")


def _principal(unit: Unit, name: str, role: Role, site: str | None) -> None:
    before = unit.session.get(PrincipalRow, name)
    if before is not None:
        if (before.role, before.site) != (role, site):
            raise BractError(ALREADY_EXISTS, f"{name} is {before.role} already")
        return
    if site is not None:
        live_site(unit.session, site)
    unit.session.add(PrincipalRow(name=name, role=role, site=site, created_at=unit.at))
    unit.session.flush()
