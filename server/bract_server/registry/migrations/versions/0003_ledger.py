"""The hub's own account of what sites reserve."""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes
from bract.privacy.accounting import ORDERS, rdp_curve
from bract.privacy.spec import Mechanism
from bract.signing import parse_envelope

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = ("privacy_account", "privacy_entry", "relinquishment")
KEPT = {"privacy_account": ("site", "dataset", "unit", "delta")}


def upgrade() -> None:
    _accounts()
    _entries()
    _relinquishments()
    _carry_over()
    for table in TABLES:
        for ddl in refuse_changes(op.get_bind().dialect.name, table, KEPT.get(table, ())):
            op.execute(ddl)


def downgrade() -> None:
    for table in reversed(TABLES):
        for ddl in allow_changes(op.get_bind().dialect.name, table):
            op.execute(ddl)
        op.drop_table(table)


def _accounts() -> None:
    op.create_table(
        "privacy_account",
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("unit", sa.String(64), nullable=False),
        sa.Column("cap_epsilon", sa.Float(53), nullable=False),
        sa.Column("delta", sa.Float(53), nullable=False),
        sa.Column("curve", Json, nullable=False),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_privacy_account_site"),
        sa.PrimaryKeyConstraint("site", "dataset", "unit", name="pk_privacy_account"),
    )


def _entries() -> None:
    op.create_table(
        "privacy_entry",
        sa.Column("seq", Number, nullable=False),
        sa.Column("reservation_id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("unit", sa.String(64), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("noise_multiplier", sa.Float(53), nullable=False),
        sa.Column("sampling_rate", sa.Float(53), nullable=False),
        sa.Column("steps", Number, nullable=False),
        sa.Column("curve", Json, nullable=False),
        sa.Column("cap_epsilon", sa.Float(53), nullable=False),
        sa.Column("evidence", DigestText, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.CheckConstraint(
            "state IN ('reserved', 'committed', 'aborted', 'expired')", name=op.f("ck_privacy_entry_state")
        ),
        sa.ForeignKeyConstraint(["reservation_id"], ["reservation.id"], name="fk_privacy_entry_reservation_id"),
        sa.ForeignKeyConstraint(
            ["site", "dataset", "unit"],
            ["privacy_account.site", "privacy_account.dataset", "privacy_account.unit"],
            name="fk_privacy_entry_site_dataset_unit",
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_privacy_entry"),
        sa.UniqueConstraint("reservation_id", "state", name="uq_privacy_entry_reservation_id_state"),
    )
    ended = sa.text("state <> 'reserved'")
    op.create_index(
        "uq_privacy_entry_end",
        "privacy_entry",
        ["reservation_id"],
        unique=True,
        sqlite_where=ended,
        postgresql_where=ended,
    )
    op.create_index("ix_privacy_entry_site_dataset_unit", "privacy_entry", ["site", "dataset", "unit"])


def _relinquishments() -> None:
    op.create_table(
        "relinquishment",
        sa.Column("reservation_id", Number, nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["reservation_id"], ["reservation.id"], name="fk_relinquishment_reservation_id"),
        sa.PrimaryKeyConstraint("reservation_id", name="pk_relinquishment"),
        sa.UniqueConstraint("digest", name="uq_relinquishment_digest"),
    )


def _carry_over() -> None:
    """What was taken before there were accounts counts in them: every reservation, in the order in which it came."""
    bind = op.get_bind()
    meta = sa.MetaData()
    account, entry, reservation, contribution = (
        sa.Table(name, meta, autoload_with=bind)
        for name in ("privacy_account", "privacy_entry", "reservation", "contribution")
    )
    taken = bind.execute(sa.select(reservation).order_by(reservation.c.id)).all()
    accepted = bind.execute(sa.select(contribution).where(contribution.c.accepted)).all()
    done = {(one.round_id, one.site): one for one in accepted}
    accounts: dict[tuple[str, str, str], dict[str, Any]] = {}
    entries: list[dict[str, Any]] = []
    for row in taken:
        said = json.loads(parse_envelope(row.envelope).payload)
        key = {"site": row.site, "dataset": row.dataset, "unit": "subject"}
        mechanism = Mechanism(row.noise_multiplier, row.sampling_rate, row.steps)
        curve = rdp_curve(mechanism)
        kept = accounts.setdefault(tuple(key.values()), {**key, "delta": said["delta"], "curve": [0] * len(ORDERS)})
        kept["curve"] = [one + other for one, other in zip(kept["curve"], curve, strict=True)]
        kept["cap_epsilon"] = said["epsilon_cap"]
        common = {**key, "reservation_id": row.id, "cap_epsilon": said["epsilon_cap"]}
        entries.append(
            {**common, **_as_columns(mechanism), "state": "reserved", "curve": list(curve)}
            | {"evidence": row.digest, "at": row.received_at}
        )
        if (one := done.get((row.round_id, row.site))) is not None:
            spent = Mechanism(**json.loads(parse_envelope(one.envelope).payload)["spent"])
            entries.append(
                {**common, **_as_columns(spent), "state": "committed", "curve": [0] * len(ORDERS)}
                | {"evidence": one.digest, "at": one.received_at}
            )
    if accounts:
        bind.execute(account.insert(), list(accounts.values()))
        bind.execute(entry.insert(), entries)


def _as_columns(mechanism: Mechanism) -> dict[str, Any]:
    return {
        "noise_multiplier": mechanism.noise_multiplier,
        "sampling_rate": mechanism.sampling_rate,
        "steps": mechanism.steps,
    }
