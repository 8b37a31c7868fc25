"""Privacy accounts, reservations and every transition of them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Json
from bract_client.registry.models.base import NAME, Base


class PrivacyAccount(Base):
    """What a data set may cost, and the sum of the curves of all that was reserved and not given back unused."""

    __tablename__ = "privacy_account"
    dataset: Mapped[str] = mapped_column(NAME, ForeignKey("dataset.name"), primary_key=True)
    cap_epsilon: Mapped[float]
    delta: Mapped[float]
    curve: Mapped[list[int]] = mapped_column(Json)


class ReservationRow(Base):
    """Privacy set aside for one round: reserved, then settled or spent, or aborted before anything was read for it."""

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
    __table_args__ = (CheckConstraint("state IN ('reserved', 'settled', 'spent', 'aborted')", name="state"),)


class RelinquishmentRow(Base):
    """The signed statement on which a reservation was given back; `sent_at` when the hub had it."""

    __tablename__ = "relinquishment"
    campaign: Mapped[str] = mapped_column(DigestText, primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    made_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    __table_args__ = (
        ForeignKeyConstraint(["campaign", "number"], ["privacy_reservation.campaign", "privacy_reservation.number"]),
    )


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
