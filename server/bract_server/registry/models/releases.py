"""Releases: proposed by an author, approved by others, published through the gate, taken back."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Number
from bract_server.registry.models.base import Base, CodeText, NameText


class PolicyRow(Base):
    """What releases through a channel ask for, signed by the hub; the newest one counts."""

    __tablename__ = "release_policy"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    channel: Mapped[str] = mapped_column(CodeText)
    digest: Mapped[str] = mapped_column(DigestText)
    envelope: Mapped[bytes]
    set_at: Mapped[datetime]


class ReleaseRow(Base):
    """A release as its author proposed and signed it."""

    __tablename__ = "model_release"
    digest: Mapped[str] = mapped_column(DigestText, primary_key=True)
    name: Mapped[str] = mapped_column(NameText, unique=True)
    node_id: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), unique=True)
    target_id: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"))
    author: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"))
    envelope: Mapped[bytes]
    proposed_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("digest", "author"),)


class ApprovalRow(Base):
    """A person's signed word on a release. The schema keeps it to one a person, and to others than the author."""

    __tablename__ = "approval"
    release: Mapped[str] = mapped_column(DigestText, primary_key=True)
    person: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"), primary_key=True)
    author: Mapped[str] = mapped_column(DigestText)
    decision: Mapped[str] = mapped_column(CodeText)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(["release", "author"], ["model_release.digest", "model_release.author"]),
        CheckConstraint("person <> author", name="not_the_author"),
        CheckConstraint("decision IN ('approve', 'reject')", name="decision"),
    )


class PublicationRow(Base):
    """A published release: the gate's report as its canonical JSON, and the hub's signature."""

    __tablename__ = "release_publication"
    release: Mapped[str] = mapped_column(ForeignKey("model_release.digest"), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    report: Mapped[bytes]
    envelope: Mapped[bytes]
    published_at: Mapped[datetime]


class TakenBackRow(Base):
    """A release that somebody took back; the record of it stays."""

    __tablename__ = "release_withdrawal"
    release: Mapped[str] = mapped_column(ForeignKey("model_release.digest"), primary_key=True)
    person: Mapped[str] = mapped_column(ForeignKey("person.fingerprint"))
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    withdrawn_at: Mapped[datetime]
