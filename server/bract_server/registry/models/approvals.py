"""Persons who sign at the hub, and their overrides."""

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText
from bract_server.registry.models.base import Base, CodeText, NameText


class PersonRow(Base):
    """Somebody who may sign, by their key's fingerprint; the hub's signature over name, key and roles."""

    __tablename__ = "person"
    fingerprint: Mapped[str] = mapped_column(DigestText, primary_key=True)
    name: Mapped[str] = mapped_column(NameText, unique=True)
    key: Mapped[str] = mapped_column(String(64))
    envelope: Mapped[bytes]
    registered_at: Mapped[datetime]


class PersonRoleRow(Base):
    """An office that a person holds."""

    __tablename__ = "person_role"
    person: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"), primary_key=True)
    role: Mapped[str] = mapped_column(CodeText, primary_key=True)


class PersonEndRow(Base):
    """From when on a person may no longer sign; what they signed before stands."""

    __tablename__ = "person_end"
    person: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"), primary_key=True)
    ended_at: Mapped[datetime]


class OverrideRow(Base):
    """A signed override of a criterion for one release or one derived thing. It is shown forever."""

    __tablename__ = "signed_override"
    digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    about: Mapped[str] = mapped_column(DigestText, index=True)
    criterion: Mapped[str] = mapped_column(CodeText)
    person: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"))
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
