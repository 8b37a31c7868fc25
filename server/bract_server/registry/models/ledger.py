"""The hub's own account of what sites reserve: what each account may cost, and every transition that made it."""

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from bract.database import DigestText, Json, Number
from bract_server.registry.models.base import Base, CodeText, NameText


class AccountRow(Base):
    """What one unit of a site's data set may cost, and the sum of the curves of all entries.

    The cap is what the site named in its newest reservation: it answers for its people, and every change stands in the
    entries. δ is what the first one named, for good.
    """

    __tablename__ = "privacy_account"
    site: Mapped[str] = mapped_column(ForeignKey("site.name"), primary_key=True)
    dataset: Mapped[str] = mapped_column(NameText, primary_key=True)
    unit: Mapped[str] = mapped_column(CodeText, primary_key=True)
    cap_epsilon: Mapped[float]
    delta: Mapped[float]
    curve: Mapped[list[int]] = mapped_column(Json)


class EntryRow(Base):
    """One transition of one reservation, and by how much it moved the account.

    `reserved` opens it; `committed` (its contribution was accepted), `aborted` (given back unused) or `expired` ends it,
    and only one of them. The mechanism is what was reserved, or of a committed one what was spent. `evidence` names what
    the site signed.
    """

    __tablename__ = "privacy_entry"
    seq: Mapped[int] = mapped_column(Number, primary_key=True)
    reservation_id: Mapped[int] = mapped_column(ForeignKey("reservation.id"))
    site: Mapped[str] = mapped_column(NameText)
    dataset: Mapped[str] = mapped_column(NameText)
    unit: Mapped[str] = mapped_column(CodeText)
    state: Mapped[str] = mapped_column(CodeText)
    noise_multiplier: Mapped[float]
    sampling_rate: Mapped[float]
    steps: Mapped[int] = mapped_column(Number)
    curve: Mapped[list[int]] = mapped_column(Json)
    cap_epsilon: Mapped[float]
    evidence: Mapped[str] = mapped_column(DigestText)
    at: Mapped[datetime]
    __table_args__ = (
        ForeignKeyConstraint(
            ["site", "dataset", "unit"], ["privacy_account.site", "privacy_account.dataset", "privacy_account.unit"]
        ),
        UniqueConstraint("reservation_id", "state"),
        Index(
            "uq_privacy_entry_end",
            "reservation_id",
            unique=True,
            sqlite_where=text("state <> 'reserved'"),
            postgresql_where=text("state <> 'reserved'"),
        ),
        Index(None, "site", "dataset", "unit"),
        CheckConstraint("state IN ('reserved', 'committed', 'aborted', 'expired')", name="state"),
    )


class RelinquishmentRow(Base):
    """A site's signed word that training was never begun under a reservation."""

    __tablename__ = "relinquishment"
    reservation_id: Mapped[int] = mapped_column(ForeignKey("reservation.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(DigestText, unique=True)
    envelope: Mapped[bytes]
    received_at: Mapped[datetime]
