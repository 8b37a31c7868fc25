"""Subjects, data sets, their records, and the lines that could not be taken."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Json
from bract_client.registry.models.base import NAME, Base


class Subject(Base):
    """A person or machine, by keyed handle; `subject_no` is what joins use."""

    __tablename__ = "subject"
    subject_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    handle: Mapped[bytes] = mapped_column(unique=True)
    key_id: Mapped[str] = mapped_column(DigestText)
    created_at: Mapped[datetime]


class Dataset(Base):
    """A data set that the site holds; `member_seq` counts its ingests."""

    __tablename__ = "dataset"
    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    location: Mapped[dict[str, Any]] = mapped_column(Json)
    retention_days: Mapped[int | None]
    subjects_floor: Mapped[int]
    member_seq: Mapped[int]
    created_at: Mapped[datetime]


class TermsRow(Base):
    """What the steward declared about a data set; the newest counts. `sent_at` when the hub had it."""

    __tablename__ = "dataset_terms"
    no: Mapped[int] = mapped_column(primary_key=True)
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("dataset.name"), index=True)
    name: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    given_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]


class Record(Base):
    """A record's membership in a data set from one ingest up to, not including, another."""

    __tablename__ = "record"
    record_no: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("dataset.name"))
    subject_no: Mapped[int] = mapped_column(ForeignKey("subject.subject_no"), index=True)
    record_id: Mapped[str] = mapped_column(String(256))
    record_digest: Mapped[bytes]
    collected_at: Mapped[datetime]
    added_seq: Mapped[int]
    removed_seq: Mapped[int | None]
    __table_args__ = (
        Index(
            "uq_record_live",
            "dataset",
            "record_id",
            unique=True,
            sqlite_where=text("removed_seq IS NULL"),
            postgresql_where=text("removed_seq IS NULL"),
        ),
        CheckConstraint("removed_seq > added_seq", name="interval"),
    )


class Quarantine(Base):
    """A line of a source that the last ingest could not take."""

    __tablename__ = "quarantine"
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("dataset.name"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    reason: Mapped[str] = mapped_column(String(32))
