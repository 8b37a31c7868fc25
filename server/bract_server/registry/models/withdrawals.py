"""Notices of withdrawal and what they touch."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Number
from bract_server.registry.models.base import Base, CodeText


class NoticeRow(Base):
    """A site's signed notice that subjects of some snapshots withdrew."""

    __tablename__ = "withdrawal_notice"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"))
    notice: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(DigestText)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("site", "notice"),)


class NoticeSnapshotRow(Base):
    """A snapshot that a notice names, by its lineage reference; the hub may never have seen it in a round."""

    __tablename__ = "withdrawal_snapshot"
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"), primary_key=True)
    ref: Mapped[str] = mapped_column(String(160), primary_key=True, index=True)


class ImpactRow(Base):
    """A version that descends from a notice's snapshots, and what is known of their influence on it."""

    __tablename__ = "withdrawal_impact"
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"), primary_key=True)
    version: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"), primary_key=True)
    effect: Mapped[str] = mapped_column(CodeText)
    bound: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime]


class RevocationRow(Base):
    """A clearance that no longer counts, because of a notice."""

    __tablename__ = "clearance_revocation"
    clearance_id: Mapped[int] = mapped_column(ForeignKey("clearance.id"), primary_key=True)
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"))
    revoked_at: Mapped[datetime]
