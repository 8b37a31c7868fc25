"""The runs of a campaign, one after another, and sites that are set apart."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import Json, Number
from bract_server.registry.models.base import Base, CodeText


class RunRow(Base):
    """One life of a campaign's process. The newest epoch of a campaign is the only one whose word counts.

    `after` is the code of why the run before it ended; `tries` counts runs in a row that failed without closing a round;
    `flower_run` is told by the process itself, once.
    """

    __tablename__ = "campaign_run"
    campaign: Mapped[str] = mapped_column(ForeignKey("campaign.digest"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    tries: Mapped[int] = mapped_column(Integer)
    after: Mapped[str | None] = mapped_column(CodeText)
    flower_run: Mapped[str | None] = mapped_column(String(20))
    opened_at: Mapped[datetime]


class QuarantineRow(Base):
    """A site that kept sending what had to be refused: it takes part in nothing until somebody lifts it."""

    __tablename__ = "site_quarantine"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), index=True)
    codes: Mapped[dict[str, Any]] = mapped_column(Json)
    began_at: Mapped[datetime]


class LiftRow(Base):
    """Who ended a quarantine, and why."""

    __tablename__ = "site_quarantine_lift"
    quarantine_id: Mapped[int] = mapped_column(ForeignKey("site_quarantine.id"), primary_key=True)
    person: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text)
    lifted_at: Mapped[datetime]
