"""Decisions as they were learnt, and what is derived from them."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText
from bract_client.registry.models.base import NAME, Base

CODE = String(32)


class PurposeRow(Base):
    """A purpose of the pinned vocabulary (`bract.vocabulary.purposes`)."""

    __tablename__ = "purpose"
    code: Mapped[str] = mapped_column(CODE, primary_key=True)
    iri: Mapped[str] = mapped_column(String(128), unique=True)
    label: Mapped[str] = mapped_column(String(128))
    scheme: Mapped[str] = mapped_column(String(16))


class PurposeClosure(Base):
    """That one purpose covers another, in how many steps; depth 1 are the parents, depth 0 is itself."""

    __tablename__ = "purpose_closure"
    ancestor: Mapped[str] = mapped_column(ForeignKey("purpose.code"), primary_key=True)
    descendant: Mapped[str] = mapped_column(ForeignKey("purpose.code"), primary_key=True)
    depth: Mapped[int]


class ConsentCondition(Base):
    """A set of conditions that permits carry, as canonical JSON, each set once."""

    __tablename__ = "consent_condition"
    no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    modifiers: Mapped[str] = mapped_column(String(), unique=True)


class ConsentEventRow(Base):
    """A decision: valid time from the subject, `recorded_at` and `seq` from us, never going back."""

    __tablename__ = "consent_event"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    subject_no: Mapped[int] = mapped_column(ForeignKey("subject.subject_no"))
    purpose: Mapped[str] = mapped_column(CODE)
    scope: Mapped[str] = mapped_column(NAME)
    decision: Mapped[str] = mapped_column(String(16))
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    recorded_at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(16))
    source_ref: Mapped[str] = mapped_column(String(128))
    condition_no: Mapped[int | None]
    supersedes_seq: Mapped[int | None]
    legal_basis: Mapped[str | None] = mapped_column(String(64))
    evidence_digest: Mapped[str | None] = mapped_column(DigestText)
    notice_ref: Mapped[str | None] = mapped_column(String(128))
    capacity: Mapped[str | None] = mapped_column(String(16))
    actor: Mapped[str | None] = mapped_column(String(64))
    __table_args__ = (
        UniqueConstraint("source", "source_ref"),
        Index("ix_consent_event_subject_no_purpose", "subject_no", "purpose", "scope"),
        Index(
            "ix_consent_event_supersedes_seq",
            "supersedes_seq",
            sqlite_where=text("supersedes_seq IS NOT NULL"),
            postgresql_where=text("supersedes_seq IS NOT NULL"),
        ),
        Index(
            "ix_consent_event_expire",
            "subject_no",
            "valid_from",
            sqlite_where=text("decision = 'expire'"),
            postgresql_where=text("decision = 'expire'"),
        ),
        Index("ix_consent_event_valid_from", "valid_from"),
        CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name="valid"),
    )


class ConsentCurrent(Base):
    """Of each subject, purpose and scope the permit or refusal that stands last in valid time; derived from the events.

    `valid_to` is when a permit ends, whatever ends it.
    """

    __tablename__ = "consent_current"
    purpose: Mapped[str] = mapped_column(CODE, primary_key=True)
    scope: Mapped[str] = mapped_column(NAME, primary_key=True)
    subject_no: Mapped[int] = mapped_column(ForeignKey("subject.subject_no"), primary_key=True, autoincrement=False)
    decision: Mapped[str] = mapped_column(String(16))
    refusal: Mapped[int]
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    seq: Mapped[int] = mapped_column(ForeignKey("consent_event.seq"))
    condition_no: Mapped[int | None]


class ConsentEffective(Base):
    """What stands in one scope for one use, over all purposes that cover it; derived from `consent_current`.

    It has no foreign keys, which would take longer than all else: what it follows from has them.

    Attributes:
        ok: 1 if permitted whatever the use, 2 if that depends on the conditions of a permit, 0 if refused.
        withdrawn: 1 if one of the refusals is a withdrawal.
        until: when the last of the permits ends, None for never.
        since: when the last of the decisions begins; before that the row does not hold.
        deciding_seq: the newest of the events that decide.
    """

    __tablename__ = "consent_effective"
    purpose: Mapped[str] = mapped_column(CODE, primary_key=True)
    scope: Mapped[str] = mapped_column(NAME, primary_key=True)
    subject_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    ok: Mapped[int]
    withdrawn: Mapped[int]
    until: Mapped[datetime | None]
    since: Mapped[datetime]
    deciding_seq: Mapped[int]
    __table_args__ = (
        Index(
            "ix_consent_effective_conditional",
            "purpose",
            "scope",
            sqlite_where=text("ok = 2"),
            postgresql_where=text("ok = 2"),
        ),
        {"sqlite_with_rowid": False},
    )
