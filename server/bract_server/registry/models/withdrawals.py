"""Notices of withdrawal and what they touch."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ForeignKey,
    ForeignKeyConstraint,
    Index,
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
    """A thing that descends from a notice's snapshots, and what is known of their influence on it.

    `batch` numbers the notice's recordings: each has one log entry with a digest over its rows. Where a thing has several
    rows, because lineage was learnt late, the newest counts. `clean` is the newest model above the thing that does not
    descend from the snapshots.
    """

    __tablename__ = "withdrawal_impact"
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"), primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), primary_key=True, index=True)
    batch: Mapped[int] = mapped_column(Number, primary_key=True)
    effect: Mapped[str] = mapped_column(CodeText)
    bound: Mapped[dict[str, Any]]
    path_length: Mapped[int] = mapped_column(Number)
    clean: Mapped[int | None] = mapped_column(ForeignKey("lineage_node.id"))
    due_at: Mapped[datetime | None]
    recorded_at: Mapped[datetime]


class DecisionRow(Base):
    """What a person decided about things that a notice touches, signed. A later one takes an earlier one's place."""

    __tablename__ = "withdrawal_decision"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"))
    person: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"))
    remedy: Mapped[str] = mapped_column(CodeText)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("id", "notice_id"),)


class DecidedRow(Base):
    """An impact that a decision is about."""

    __tablename__ = "withdrawal_decided"
    decision_id: Mapped[int] = mapped_column(Number, primary_key=True)
    notice_id: Mapped[int] = mapped_column(Number, primary_key=True)
    node_id: Mapped[int] = mapped_column(Number, primary_key=True)
    batch: Mapped[int] = mapped_column(Number)
    __table_args__ = (
        ForeignKeyConstraint(["decision_id", "notice_id"], ["withdrawal_decision.id", "withdrawal_decision.notice_id"]),
        ForeignKeyConstraint(
            ["notice_id", "node_id", "batch"],
            ["withdrawal_impact.notice_id", "withdrawal_impact.node_id", "withdrawal_impact.batch"],
        ),
        Index(None, "notice_id", "node_id"),
    )


class RevocationRow(Base):
    """A clearance that no longer counts, because of a notice."""

    __tablename__ = "clearance_revocation"
    clearance_id: Mapped[int] = mapped_column(ForeignKey("clearance.id"), primary_key=True)
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"))
    revoked_at: Mapped[datetime]
