"""What the site signs for a round, what it gets back, and what it has still to say."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Json
from bract_client.registry.models.base import NAME, Base


class SnapshotRow(Base):
    """Who was admitted to what at one moment; the members follow from the sequence numbers. Counts stay here.

    `use` is the `UseContext` that was known then, None for none.
    """

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
    use: Mapped[dict[str, Any] | None] = mapped_column(Json)


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
