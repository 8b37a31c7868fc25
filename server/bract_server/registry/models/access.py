"""Who may read, and who read what."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Text
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Json, Number
from bract_server.registry.models.base import Base, CodeText, NameText


class PrincipalRow(Base):
    """Somebody who may read, and what they are; a name keeps its role. `site` is set for the role `site` alone."""

    __tablename__ = "principal"
    name: Mapped[str] = mapped_column(NameText, primary_key=True)
    role: Mapped[str] = mapped_column(CodeText)
    site: Mapped[str | None] = mapped_column(ForeignKey("site.name"))
    created_at: Mapped[datetime]
    __table_args__ = (
        CheckConstraint("role IN ('owner', 'operator', 'auditor', 'dpo', 'site')", name="role"),
        CheckConstraint("(role = 'site') = (site IS NOT NULL)", name="site_of_its_role"),
    )


class TokenRow(Base):
    """An access token, by the digest of its 256 random bits. `questions` narrows what the role may ask, unless empty."""

    __tablename__ = "access_token"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    principal: Mapped[str] = mapped_column(ForeignKey("principal.name"), index=True)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    questions: Mapped[list[int]] = mapped_column(Json)
    issued_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class AccessRow(Base):
    """One reading. `about_persons` says whether it was of something that one person's data gave."""

    __tablename__ = "access_log"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    at: Mapped[datetime]
    principal: Mapped[str] = mapped_column(CodeText)
    role: Mapped[str] = mapped_column(CodeText)
    asked: Mapped[str] = mapped_column(CodeText)
    arguments: Mapped[dict[str, Any]]
    purpose: Mapped[str] = mapped_column(Text)
    about_persons: Mapped[bool]
