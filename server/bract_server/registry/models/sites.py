"""Enrolled sites and their certificates."""

from datetime import datetime

from sqlalchemy import (
    ForeignKey,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Number
from bract_server.registry.models.base import Base, NameText


class SiteRow(Base):
    """An enrolled site and its public keys."""

    __tablename__ = "site"
    name: Mapped[str] = mapped_column(NameText, primary_key=True)
    verify_key: Mapped[str] = mapped_column(String(64), unique=True)
    node_fingerprint: Mapped[str] = mapped_column(DigestText, unique=True)
    node_public_pem: Mapped[str] = mapped_column(Text)
    subjects_floor: Mapped[int] = mapped_column(Number)
    registered_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    seen_at: Mapped[datetime | None]


class CertificateRow(Base):
    """A certificate that a site was given; the newest one counts."""

    __tablename__ = "site_certificate"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), index=True)
    fingerprint: Mapped[str] = mapped_column(DigestText, unique=True)
    recorded_at: Mapped[datetime]
