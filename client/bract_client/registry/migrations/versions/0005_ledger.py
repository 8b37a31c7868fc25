"""Reservations that were given back before anything was read."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Number, Utc, allow_changes, refuse_changes

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLE, _CHECK = "privacy_reservation", "ck_privacy_reservation_state"
_BEFORE = "state IN ('reserved', 'settled', 'spent')"
_AFTER = "state IN ('reserved', 'settled', 'spent', 'aborted')"
_FIXED = ("campaign", "number", "name", "envelope", "made_at")


def upgrade() -> None:
    op.create_table(
        "relinquishment",
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("name", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", Utc(), nullable=False),
        sa.Column("sent_at", Utc(), nullable=True),
        sa.ForeignKeyConstraint(
            ["campaign", "number"],
            ["privacy_reservation.campaign", "privacy_reservation.number"],
            name=op.f("fk_relinquishment_campaign_number"),
        ),
        sa.PrimaryKeyConstraint("campaign", "number", name=op.f("pk_relinquishment")),
        sa.UniqueConstraint("name", name=op.f("uq_relinquishment_name")),
    )
    for ddl in refuse_changes(op.get_bind().dialect.name, "relinquishment", _FIXED):
        op.execute(ddl)
    _recheck(_BEFORE, _AFTER)


def downgrade() -> None:
    _charge_again()
    _recheck(_AFTER, _BEFORE)
    for ddl in allow_changes(op.get_bind().dialect.name, "relinquishment"):
        op.execute(ddl)
    op.drop_table("relinquishment")


def _recheck(before: str, after: str) -> None:
    """Another CHECK on the same rows.

    SQLite would need a new table and loses triggers and references with the old one; the constraint says nothing about
    what is stored, so its text may be changed in place (sqlite.org/lang_altertable.html, section 7).
    """
    bind = op.get_bind()
    if bind.dialect.name == "postgresql":
        op.drop_constraint(op.f(_CHECK), _TABLE)
        op.create_check_constraint(op.f(_CHECK), _TABLE, after)
        return
    op.execute("PRAGMA writable_schema=ON")
    changed = "UPDATE sqlite_schema SET sql = replace(sql, :before, :after) WHERE type = 'table' AND name = :name"
    bind.execute(sa.text(changed), {"before": before, "after": after, "name": _TABLE})
    op.execute("PRAGMA writable_schema=RESET")


def _charge_again() -> None:
    """A version that knows no giving back must not believe that more is left than it would have left: all is spent."""
    bind = op.get_bind()
    aborted = bind.execute(sa.text("SELECT dataset, curve FROM privacy_reservation WHERE state = 'aborted'")).all()
    for dataset, unused in aborted:
        named = {"dataset": dataset}
        curve = bind.execute(sa.text("SELECT curve FROM privacy_account WHERE dataset = :dataset"), named).scalar()
        total = [one + other for one, other in zip(_numbers(curve), _numbers(unused), strict=True)]
        wanted = "UPDATE privacy_account SET curve = :curve WHERE dataset = :dataset"
        if bind.dialect.name == "postgresql":
            wanted = wanted.replace(":curve", "CAST(:curve AS JSONB)")
        bind.execute(sa.text(wanted), {**named, "curve": json.dumps(total)})
    entered = (
        "INSERT INTO privacy_entry (campaign, number, dataset, state, mechanism, at) "
        "SELECT r.campaign, r.number, r.dataset, 'spent', r.mechanism, q.made_at FROM privacy_reservation r "
        "JOIN relinquishment q ON q.campaign = r.campaign AND q.number = r.number WHERE r.state = 'aborted'"
    )
    op.execute(entered)
    op.execute("UPDATE privacy_reservation SET state = 'spent' WHERE state = 'aborted'")


def _numbers(curve: Any) -> list[int]:
    return list(json.loads(curve) if isinstance(curve, str) else curve)
