"""The registry's tables. Rows are added and never changed, but for the state columns that `MUTABLE` names.

Whatever somebody signed is kept whole, as its envelope's bytes; other columns only make it findable. Two rules stand
in the schema itself: a participant needs a clearance and a reservation of that very round and site, and a lineage edge
points to an older node, so that lineage has no circles.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from bract.database import DigestText, Json, Number, Utc, metadata
from bract.log import book

NameText = String(63)
CodeText = String(64)


class Base(DeclarativeBase):
    """The hub's schema."""

    metadata = metadata()
    type_annotation_map = {datetime: Utc(), bytes: LargeBinary, float: Float(53), dict[str, Any]: Json}  # noqa: RUF012


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


class OutcomeRow(Base):
    """How a round ended; `missing` says which sites are not in it, and why (codes)."""

    __tablename__ = "round_outcome"
    round_id: Mapped[int] = mapped_column(ForeignKey("round.id"), primary_key=True)
    version: Mapped[str | None] = mapped_column(ForeignKey("encoder_version.digest"), unique=True)
    missing: Mapped[dict[str, Any]]
    bytes_moved: Mapped[int] = mapped_column(Number)
    closed_at: Mapped[datetime]


class ServerStateRow(Base):
    """The server optimizer's state after a version was made, by the digest of its file."""

    __tablename__ = "server_state"
    version: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestText)


class NodeRow(Base):
    """A node of lineage. `ref` is a version's or a round plan's digest, or `SITE/DIGEST` of a site's snapshot."""

    __tablename__ = "lineage_node"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    kind: Mapped[str] = mapped_column(CodeText)
    ref: Mapped[str] = mapped_column(String(160))
    __table_args__ = (UniqueConstraint("kind", "ref"),)


class EdgeRow(Base):
    """`src` `relation` `dst`, in the words of W3C PROV; `dst` is always the older node."""

    __tablename__ = "lineage_edge"
    src: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), primary_key=True)
    dst: Mapped[int] = mapped_column(ForeignKey("lineage_node.id"), primary_key=True, index=True)
    relation: Mapped[str] = mapped_column(CodeText, primary_key=True)
    __table_args__ = (
        CheckConstraint("src > dst", name="no_circle"),
        CheckConstraint("relation IN ('used', 'wasGeneratedBy', 'wasDerivedFrom')", name="prov"),
    )


class ReceiptRow(Base):
    """A signed receipt for a contribution that is in a version."""

    __tablename__ = "receipt"
    id: Mapped[int] = mapped_column(Number, primary_key=True)
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), index=True)
    contribution_id: Mapped[int] = mapped_column(ForeignKey("contribution.id"), unique=True)
    version: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"), index=True)
    envelope: Mapped[bytes]
    issued_at: Mapped[datetime]


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
    """A version that descends from a notice's snapshots, and what is known of their influence on it."""

    __tablename__ = "withdrawal_impact"
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"), primary_key=True)
    version: Mapped[str] = mapped_column(ForeignKey("encoder_version.digest"), primary_key=True)
    effect: Mapped[str] = mapped_column(CodeText)
    bound: Mapped[dict[str, Any]]
    recorded_at: Mapped[datetime]


class RevocationRow(Base):
    """A clearance that no longer counts, because of a notice."""

    __tablename__ = "clearance_revocation"
    clearance_id: Mapped[int] = mapped_column(ForeignKey("clearance.id"), primary_key=True)
    notice_id: Mapped[int] = mapped_column(ForeignKey("withdrawal_notice.id"))
    revoked_at: Mapped[datetime]


LOG = book.tables(Base.metadata)

MUTABLE: dict[str, frozenset[str]] = {
    "site": frozenset({"revoked_at", "seen_at"}),
    "campaign": frozenset({"state", "reason"}),
    "round": frozenset({"state"}),
}
"""The only columns whose values change; every other table and column is kept by triggers."""
