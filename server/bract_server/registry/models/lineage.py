"""What is registered in lineage beyond rounds and encoders, and the terms of data sets."""

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Number
from bract_server.registry.models.base import Base, CodeText, NameText


class ArtefactRow(Base):
    """An external source, weights from elsewhere, a fine-tune, a student or an evaluation, signed by the hub."""

    __tablename__ = "artefact"
    node_id: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(CodeText)
    name: Mapped[str] = mapped_column(NameText)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    content: Mapped[str] = mapped_column(DigestText, index=True)
    purpose: Mapped[str | None] = mapped_column(CodeText)
    envelope: Mapped[bytes]
    registered_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("kind", "name"),)


class TermsRow(Base):
    """The signed terms of a site's data set; the newest ones count."""

    __tablename__ = "dataset_terms"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    dataset: Mapped[str] = mapped_column(String(160), index=True)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    signer: Mapped[str] = mapped_column(DigestText)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]


class CardRow(Base):
    """A model's card; the newest one counts."""

    __tablename__ = "model_card"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), index=True)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    registered_at: Mapped[datetime]
