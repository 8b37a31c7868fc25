"""Encoder versions and lineage."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Number
from bract_server.registry.models.base import Base, CodeText


class VersionRow(Base):
    """An encoder version; `body` is the canonical JSON whose digest names it."""

    __tablename__ = "encoder_version"
    digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    campaign: Mapped[str] = mapped_column(ForeignKey("campaign.digest"))
    number: Mapped[int] = mapped_column(Integer)
    parent: Mapped[str | None] = mapped_column(ForeignKey("encoder_version.digest"))
    arrays: Mapped[str] = mapped_column(DigestText, index=True)
    body: Mapped[bytes]
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("campaign", "number"),)


class ServerStateRow(Base):
    """The server optimizer's state after a version was made, by the digest of its file."""

    __tablename__ = "server_state"
    version: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestText)


class NodeRow(Base):
    """A node of lineage; `bract.model.Node` tells what `ref` is for each kind."""

    __tablename__ = "lineage_node"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    kind: Mapped[str] = mapped_column(CodeText)
    ref: Mapped[str] = mapped_column(String(160))
    __table_args__ = (UniqueConstraint("kind", "ref"), Index(None, "ref"))


class EdgeRow(Base):
    """`src` `relation` `dst`, in the words of W3C PROV; `dst` is the older node, or the edge was checked when `late`.

    `learnt_at` is None for an edge that came with its `src`.
    """

    __tablename__ = "lineage_edge"
    src: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), primary_key=True)
    dst: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), primary_key=True, index=True)
    relation: Mapped[str] = mapped_column(CodeText, primary_key=True)
    role: Mapped[str | None] = mapped_column(CodeText)
    late: Mapped[bool] = mapped_column(server_default=false())
    learnt_at: Mapped[datetime | None]
    __table_args__ = (
        CheckConstraint("src > dst OR (late AND src <> dst)", name="no_circle"),
        CheckConstraint("relation IN ('used', 'wasGeneratedBy', 'wasDerivedFrom')", name="prov"),
    )
