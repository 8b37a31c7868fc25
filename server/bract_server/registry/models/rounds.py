"""A round from its proposal to its receipts."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Json, Number
from bract_server.registry.models.base import Base, CodeText, NameText


class RoundRow(Base):
    """A round: proposed under a number that is never used again."""

    __tablename__ = "round"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    campaign: Mapped[str] = mapped_column(ForeignKey("campaign.digest"))
    number: Mapped[int] = mapped_column(Integer)
    proposal: Mapped[bytes]
    proposed_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(CodeText, index=True)
    __table_args__ = (UniqueConstraint("campaign", "number"),)


class ClearanceRow(Base):
    """A site's signed clearance for a round."""

    __tablename__ = "clearance"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"))
    site: Mapped[str] = mapped_column(ForeignKey("site.name"))
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    snapshot: Mapped[str] = mapped_column(DigestText)
    expires_at: Mapped[datetime]
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("round_id", "site"),
        UniqueConstraint("id", "round_id", "site"),
        Index(None, "site", "snapshot"),
    )


class ReservationRow(Base):
    """A site's signed reservation for a round."""

    __tablename__ = "reservation"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"))
    site: Mapped[str] = mapped_column(ForeignKey("site.name"))
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    dataset: Mapped[str] = mapped_column(NameText)
    noise_multiplier: Mapped[float]
    sampling_rate: Mapped[float]
    steps: Mapped[int] = mapped_column(Number)
    expires_at: Mapped[datetime]
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
    __table_args__ = (
        UniqueConstraint("round_id", "site"),
        UniqueConstraint("id", "round_id", "site"),
        Index(None, "site", "dataset"),
    )


class RefusalRow(Base):
    """A site's signed refusal of a round."""

    __tablename__ = "refusal"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"))
    site: Mapped[str] = mapped_column(ForeignKey("site.name"))
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    code: Mapped[str] = mapped_column(CodeText)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("round_id", "site"),)


class RoundPlanRow(Base):
    """The signed plan with which a round was opened."""

    __tablename__ = "round_plan"
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    parent: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"))
    arrays: Mapped[str] = mapped_column(DigestText)
    arrays_bytes: Mapped[int] = mapped_column(Number)
    envelope: Mapped[bytes]
    opened_at: Mapped[datetime]


class ParticipantRow(Base):
    """A site's place in an open round. The foreign keys are the gate: no clearance or no reservation, no place."""

    __tablename__ = "participant"
    round_id: Mapped[int] = mapped_column(ForeignKey("round_plan.round_id"), primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), primary_key=True)
    clearance_id: Mapped[int] = mapped_column(Number)
    reservation_id: Mapped[int] = mapped_column(Number)
    __table_args__ = (
        ForeignKeyConstraint(
            ["clearance_id", "round_id", "site"], ["clearance.id", "clearance.round_id", "clearance.site"]
        ),
        ForeignKeyConstraint(
            ["reservation_id", "round_id", "site"], ["reservation.id", "reservation.round_id", "reservation.site"]
        ),
    )


class ContributionRow(Base):
    """What a participant sent: accepted, or rejected and why. At most one a round and site is accepted."""

    __tablename__ = "contribution"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    round_id: Mapped[int] = mapped_column(Number)
    site: Mapped[str] = mapped_column(NameText)
    accepted: Mapped[bool]
    code: Mapped[str | None] = mapped_column(CodeText)
    digest: Mapped[str | None] = mapped_column(DigestText, index=True)
    update_digest: Mapped[str | None] = mapped_column(DigestText, index=True)
    envelope: Mapped[bytes | None]
    received_at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["round_id", "site"], ["participant.round_id", "participant.site"]),
        CheckConstraint("accepted = (code IS NULL)", name="code_tells_why"),
        CheckConstraint(
            "NOT accepted OR (digest IS NOT NULL AND update_digest IS NOT NULL AND envelope IS NOT NULL)",
            name="accepted_is_whole",
        ),
        Index(
            "uq_contribution_accepted",
            "round_id",
            "site",
            unique=True,
            sqlite_where=text("accepted"),
            postgresql_where=text("accepted"),
        ),
    )


class InspectionRow(Base):
    """What the backdoor check found of a round's updates; of several, the last is of those that the round was closed with."""

    __tablename__ = "round_inspection"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), index=True)
    scores: Mapped[dict[str, Any]]
    flagged: Mapped[list[str]] = mapped_column(Json)
    excluded: Mapped[bool]
    inspected_at: Mapped[datetime]


class OutcomeRow(Base):
    """How a round ended; `missing` says which sites are not in it, and why (codes)."""

    __tablename__ = "round_outcome"
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    version: Mapped[str | None] = mapped_column(ForeignKey("encoder_version.digest"), unique=True)
    missing: Mapped[dict[str, Any]]
    bytes_moved: Mapped[int] = mapped_column(Number)
    closed_at: Mapped[datetime]


class ReceiptRow(Base):
    """A signed receipt for a contribution that is in a version."""

    __tablename__ = "receipt"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), index=True)
    contribution_id: Mapped[int] = mapped_column(ForeignKey("contribution.id"), unique=True)
    version: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"), index=True)
    envelope: Mapped[bytes]
    issued_at: Mapped[datetime]
