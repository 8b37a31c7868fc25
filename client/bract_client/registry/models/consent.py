"""Decisions as they were learnt, and what is derived from them."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract_client.registry.models.base import NAME, Base


class ConsentEventRow(Base):
    """A decision: valid time from the subject, `recorded_at` and `seq` from us, never going back."""

    __tablename__ = "consent_event"
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    subject_no: Mapped[int] = mapped_column(ForeignKey("subject.subject_no"))
    purpose: Mapped[str] = mapped_column(String(32))
    scope: Mapped[str] = mapped_column(NAME)
    decision: Mapped[str] = mapped_column(String(16))
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    recorded_at: Mapped[datetime]
    source: Mapped[str] = mapped_column(String(16))
    source_ref: Mapped[str] = mapped_column(String(128))
    __table_args__ = (
        UniqueConstraint("source", "source_ref"),
        Index("ix_consent_event_subject_no_purpose", "subject_no", "purpose", "scope"),
        CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name="valid"),
    )


class ConsentCurrent(Base):
    """Of each subject, purpose and scope the decision that stands last in valid time; derived from the events."""

    __tablename__ = "consent_current"
    purpose: Mapped[str] = mapped_column(String(32), primary_key=True)
    scope: Mapped[str] = mapped_column(NAME, primary_key=True)
    subject_no: Mapped[int] = mapped_column(ForeignKey("subject.subject_no"), primary_key=True, autoincrement=False)
    decision: Mapped[str] = mapped_column(String(16))
    refusal: Mapped[int]
    valid_from: Mapped[datetime]
    valid_to: Mapped[datetime | None]
    seq: Mapped[int] = mapped_column(ForeignKey("consent_event.seq"))
