"""Persons who sign at the hub: by their key, in named offices. What they signed stands when they leave.

Rules:
    1. A person is known by a key of their own, whose fingerprint somebody compared; names and keys are never used again.
    2. Offices are fixed; somebody who changes office gets a new key.
    3. Who left may no longer sign.
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, SAME_PERSON, STATE, UNTRUSTED, BractError
from bract.model import Overriding
from bract.release import MAY_OVERRIDE, Criterion, Override, Person, PersonRole
from bract.signing import Envelope, key_id, parse_envelope, unseal, verify_key
from bract.value import decode
from bract_server.registry.models import OverrideRow, PersonEndRow, PersonRoleRow, PersonRow, ReleaseRow
from bract_server.registry.unit import Store, Unit

T = TypeVar("T")


@dataclass(frozen=True)
class PersonView:
    """Somebody who signs, or signed, at the hub."""

    fingerprint: Digest
    name: str
    roles: tuple[PersonRole, ...]
    registered_at: datetime
    ended_at: datetime | None


class Persons(Store):
    """The part of the registry that knows who may sign what."""

    def add_person(self, person: Person, at: datetime) -> Digest:
        """Register somebody; returns the fingerprint of their key.

        Raises:
            BractError: `already-exists` for a name or key that is or was somebody's; `malformed` for a bad key.
        """
        fingerprint = key_id(verify_key(person.key))
        with self.writing(at) as unit:
            taken = (PersonRow.name == person.name) | (PersonRow.fingerprint == fingerprint)
            if unit.session.scalar(select(PersonRow.name).where(taken)) is not None:
                raise BractError(ALREADY_EXISTS, f"person {person.name}, or somebody with this key")
            envelope = unit.sign(person)
            unit.session.add(
                PersonRow(
                    fingerprint=fingerprint,
                    name=person.name,
                    key=person.key,
                    envelope=envelope.to_json(),
                    registered_at=at,
                )
            )
            unit.session.flush()
            unit.session.add_all(PersonRoleRow(person=fingerprint, role=str(role)) for role in set(person.roles))
            unit.log("person.add", envelope.name, name=person.name, key=fingerprint, roles=sorted(person.roles))
        return fingerprint

    def end_person(self, name: str, at: datetime) -> None:
        """From now on this person signs nothing more.

        Raises:
            BractError: `malformed` when there is nobody of that name; `wrong-state` when they left before.
        """
        with self.writing(at) as unit:
            row = unit.session.scalar(select(PersonRow).where(PersonRow.name == name))
            if row is None:
                raise BractError(MALFORMED, f"nobody is registered as {name}")
            if unit.session.get(PersonEndRow, row.fingerprint) is not None:
                raise BractError(STATE, f"{name} may not sign any more already")
            unit.session.add(PersonEndRow(person=row.fingerprint, ended_at=at))
            unit.log("person.end", row.fingerprint, name=name)

    def persons(self) -> tuple[PersonView, ...]:
        """Everybody who ever could sign, oldest first."""
        wanted = (
            select(PersonRow, PersonEndRow.ended_at)
            .outerjoin(PersonEndRow, PersonEndRow.person == PersonRow.fingerprint)
            .order_by(PersonRow.registered_at, PersonRow.name)
        )
        with self.seeing() as session:
            return tuple(
                PersonView(
                    Digest(row.fingerprint), row.name, roles_of(session, row.fingerprint), row.registered_at, ended_at
                )
                for row, ended_at in session.execute(wanted)
            )

    def override(self, envelope: Envelope, at: datetime) -> None:
        """Take a signed `Override`; the same again changes nothing. It is shown with whatever descends from its subject.

        Raises:
            BractError: `untrusted` for a signer whose office may not override that criterion; `wrong-state` for a
                criterion that nobody can; `same-person` for the author of the release.
        """
        with self.writing(at) as unit:
            take_override(unit, envelope)

    def overrides(self) -> tuple[Overriding, ...]:
        """Every override, oldest first."""
        with self.seeing() as session:
            return overriding(session)


def take_override(unit: Unit, envelope: Envelope) -> Override:
    """Keep a signed override in the caller's transaction (see `Persons.override`)."""
    row, value = signed_by(unit.session, Override, envelope, frozenset(PersonRole))
    allowed = MAY_OVERRIDE.get(value.criterion, frozenset())
    if not allowed:
        raise BractError(STATE, f"{value.criterion} cannot be overridden")
    if not allowed & set(roles_of(unit.session, row.fingerprint)):
        raise BractError(UNTRUSTED, f"{value.criterion} is overridden by: {', '.join(sorted(allowed))}")
    if unit.session.scalar(select(ReleaseRow.author).where(ReleaseRow.digest == value.about)) == row.fingerprint:
        raise BractError(SAME_PERSON, "the author of a release overrides nothing for it")
    if unit.session.get(OverrideRow, envelope.name) is None:
        unit.session.add(
            OverrideRow(
                digest=envelope.name,
                about=value.about,
                criterion=str(value.criterion),
                person=row.fingerprint,
                envelope=envelope.to_json(),
                received_at=unit.at,
            )
        )
        unit.session.flush()
        unit.log("override.take", envelope.name, actor(row), on=value.about, criterion=str(value.criterion))
    return value


def overriding(
    session: Session, about: Set[str] | None = None, criterion: Criterion | None = None
) -> tuple[Overriding, ...]:
    """The overrides of these things, or of all; oldest first."""
    wanted = (
        select(OverrideRow, PersonRow.name)
        .join(PersonRow, PersonRow.fingerprint == OverrideRow.person)
        .order_by(OverrideRow.received_at, OverrideRow.digest)
    )
    if criterion is not None:
        wanted = wanted.where(OverrideRow.criterion == criterion)
    found = []
    for row, name in session.execute(wanted):
        if about is not None and row.about not in about:
            continue
        value = decode(Override, parse_envelope(row.envelope).payload)
        found.append(
            Overriding(
                Digest(row.digest),
                Digest(row.about),
                row.criterion,
                value.reason,
                name,
                roles_of(session, row.person),
                row.received_at,
                row.envelope,
            )
        )
    return tuple(found)


def signed_by(session: Session, cls: type[T], envelope: Envelope, roles: Set[PersonRole]) -> tuple[PersonRow, T]:
    """The value inside, and who signed it: somebody who may still sign, in one of these offices.

    Raises:
        BractError: `untrusted`, `malformed`.
    """
    row = session.get(PersonRow, envelope.keyid)
    if row is None:
        raise BractError(UNTRUSTED, "signed by nobody who is registered")
    value = unseal(cls, envelope, verify_key(row.key))
    if getattr(value, "by", row.fingerprint) != row.fingerprint:
        raise BractError(UNTRUSTED, "a person speaks for themselves only")
    if session.get(PersonEndRow, row.fingerprint) is not None:
        raise BractError(UNTRUSTED, f"{row.name} may not sign any more")
    if not roles & set(roles_of(session, row.fingerprint)):
        raise BractError(UNTRUSTED, f"{row.name} does not hold an office that may: {', '.join(sorted(roles))}")
    return row, value


def actor(row: PersonRow) -> str:
    """Somebody as the log's actor; no site's name can be mistaken for it."""
    return f"person:{row.name}"


def known_person(session: Session, fingerprint: str) -> PersonRow:
    """The row of somebody who is registered."""
    return session.get_one(PersonRow, fingerprint)


def auditors(session: Session) -> frozenset[str]:
    """The keys of those who may sign as auditors."""
    held = select(PersonRow.key).join(PersonRoleRow, PersonRoleRow.person == PersonRow.fingerprint)
    left = select(PersonEndRow.person)
    wanted = held.where(PersonRoleRow.role == PersonRole.AUDITOR, PersonRow.fingerprint.not_in(left))
    return frozenset(session.scalars(wanted))


def roles_of(session: Session, fingerprint: str) -> tuple[PersonRole, ...]:
    """The offices of somebody."""
    held = select(PersonRoleRow.role).where(PersonRoleRow.person == fingerprint).order_by(PersonRoleRow.role)
    return tuple(PersonRole(role) for role in session.scalars(held))
