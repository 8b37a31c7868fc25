"""The site registry's tables.

Events (consent, ledger entries, clearances, contributions, receipts, snapshots, the log) are only ever added; triggers
refuse anything else. `consent_current` is derived from the events and can be rebuilt. Subjects are known by handle.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bract.database import DigestText, Json, Number, Utc, metadata
from bract.log import book

NAME = String(63)
EVERYWHERE = ""
"""The scope of a decision that holds for all of the site's data sets."""


class Base(DeclarativeBase):
    """All tables of the site registry."""

    metadata = metadata()
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Utc(),
        bytes: LargeBinary(),
        int: Number,
        float: Float(53),
    }


LOG = book.tables(Base.metadata)


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


class SnapshotRow(Base):
    """Who was admitted to what at one moment; the members follow from the sequence numbers. Counts stay here."""

    __tablename__ = "snapshot"
    root: Mapped[str] = mapped_column(DigestText, primary_key=True)
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("dataset.name"))
    purpose: Mapped[str] = mapped_column(String(32))
    at: Mapped[datetime]
    until: Mapped[datetime | None]
    consent_seq: Mapped[int]
    member_seq: Mapped[int]
    n_subjects: Mapped[int]
    n_records: Mapped[int]


class ClearanceRow(Base):
    """A signed clearance, named by its digest."""

    __tablename__ = "clearance"
    name: Mapped[str] = mapped_column(DigestText, primary_key=True)
    campaign: Mapped[str] = mapped_column(DigestText)
    number: Mapped[int]
    snapshot: Mapped[str] = mapped_column(ForeignKey("snapshot.root"))
    envelope: Mapped[bytes]
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    __table_args__ = (Index("ix_clearance_campaign_number", "campaign", "number"),)


class PrivacyAccount(Base):
    """What a data set may cost, and the sum of the curves of all that was ever reserved."""

    __tablename__ = "privacy_account"
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("dataset.name"), primary_key=True)
    cap_epsilon: Mapped[float]
    delta: Mapped[float]
    curve: Mapped[list[int]] = mapped_column(Json)


class ReservationRow(Base):
    """Privacy set aside for one round; reserved, then settled or spent, and never given back."""

    __tablename__ = "privacy_reservation"
    campaign: Mapped[str] = mapped_column(DigestText, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(DigestText, unique=True)
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("privacy_account.dataset"), index=True)
    mechanism: Mapped[dict[str, Any]] = mapped_column(Json)
    curve: Mapped[list[int]] = mapped_column(Json)
    envelope: Mapped[bytes]
    state: Mapped[str] = mapped_column(String(16))
    expires_at: Mapped[datetime]
    begun_at: Mapped[datetime | None]
    __table_args__ = (CheckConstraint("state IN ('reserved', 'settled', 'spent')", name="state"),)


class PrivacyEntry(Base):
    """One transition of one reservation."""

    __tablename__ = "privacy_entry"
    seq: Mapped[int] = mapped_column(primary_key=True)
    campaign: Mapped[str] = mapped_column(DigestText)
    number: Mapped[int]
    dataset: Mapped[str] = mapped_column(NAME)
    state: Mapped[str] = mapped_column(String(16))
    mechanism: Mapped[dict[str, Any]] = mapped_column(Json)
    at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("campaign", "number", "state"),)


class ContributionRow(Base):
    """The signed contribution of a round, kept so that it can be sent again and is never made twice."""

    __tablename__ = "contribution"
    campaign: Mapped[str] = mapped_column(DigestText, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    kept_at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["campaign", "number"], ["privacy_reservation.campaign", "privacy_reservation.number"]),
    )


class ReceiptRow(Base):
    """The hub's signed receipt for a contribution; `number` is its place in the hub's list for this site."""

    __tablename__ = "receipt"
    contribution: Mapped[str] = mapped_column(ForeignKey("contribution.name"), primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    envelope: Mapped[bytes]
    kept_at: Mapped[datetime]


class NoticeOutbox(Base):
    """Snapshots that someone left and the hub must hear of; rows of one notice share its name."""

    __tablename__ = "notice_outbox"
    no: Mapped[int] = mapped_column(primary_key=True)
    snapshots: Mapped[list[str]] = mapped_column(Json)
    queued_at: Mapped[datetime]
    notice: Mapped[str | None] = mapped_column(String(64))
    noticed_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
