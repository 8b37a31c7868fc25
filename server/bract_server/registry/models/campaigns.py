"""Campaigns and the sites that their plans name."""

from datetime import datetime

from sqlalchemy import (
    ForeignKey,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText
from bract_server.registry.models.base import Base, CodeText, NameText


class CampaignRow(Base):
    """A campaign's signed plan, and how it stands."""

    __tablename__ = "campaign"
    digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    name: Mapped[str] = mapped_column(NameText, unique=True)
    envelope: Mapped[bytes]
    created_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(CodeText)
    reason: Mapped[str] = mapped_column(Text)


class CampaignSiteRow(Base):
    """A site that a campaign's plan names."""

    __tablename__ = "campaign_site"
    campaign: Mapped[str] = mapped_column(ForeignKey("campaign.digest"), primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), primary_key=True, index=True)
