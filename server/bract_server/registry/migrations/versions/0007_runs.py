"""The runs of a campaign with their epochs, and sites in quarantine."""

import sqlalchemy as sa
from alembic import op

from bract.database import Json, Number, Utc, allow_changes, refuse_changes

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = ("campaign_run", "site_quarantine", "site_quarantine_lift")
KEPT = {"campaign_run": ("campaign", "epoch", "tries", "after", "opened_at")}

_ROLE = "bract_site"
_MINE = "current_setting('bract.site', true)"
# A site's own rows on PostgreSQL, see revision 0006.
_OWN = {
    "site_quarantine": f"site = {_MINE}",
    "site_quarantine_lift": "EXISTS (SELECT 1 FROM site_quarantine AS own "  # noqa: S608 - names of this file
    f"WHERE own.id = site_quarantine_lift.quarantine_id AND own.site = {_MINE})",
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    _runs()
    _quarantines()
    for table in TABLES:
        for ddl in refuse_changes(dialect, table, KEPT.get(table, ())):
            op.execute(ddl)
    if dialect == "postgresql":
        _walls()


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for table in reversed(TABLES):
        for ddl in allow_changes(dialect, table):
            op.execute(ddl)
        op.drop_table(table)  # and its policies and grants with it


def _runs() -> None:
    op.create_table(
        "campaign_run",
        sa.Column("campaign", sa.String(71), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("after", sa.String(64), nullable=True),
        sa.Column("flower_run", sa.String(20), nullable=True),
        sa.Column("opened_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["campaign"], ["campaign.digest"], name="fk_campaign_run_campaign"),
        sa.PrimaryKeyConstraint("campaign", "epoch", name="pk_campaign_run"),
    )


def _quarantines() -> None:
    op.create_table(
        "site_quarantine",
        sa.Column("id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("codes", Json, nullable=False),
        sa.Column("began_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_site_quarantine_site"),
        sa.PrimaryKeyConstraint("id", name="pk_site_quarantine"),
    )
    op.create_index("ix_site_quarantine_site", "site_quarantine", ["site"])
    op.create_table(
        "site_quarantine_lift",
        sa.Column("quarantine_id", Number, nullable=False),
        sa.Column("person", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("lifted_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(
            ["quarantine_id"], ["site_quarantine.id"], name="fk_site_quarantine_lift_quarantine_id"
        ),
        sa.PrimaryKeyConstraint("quarantine_id", name="pk_site_quarantine_lift"),
    )


def _walls() -> None:
    bind = op.get_bind()
    granted = bind.scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": _ROLE}) is not None
    for table, own in _OWN.items():
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY hub ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
        op.execute(f"CREATE POLICY own_rows ON {table} FOR SELECT TO PUBLIC USING ({own})")
        if granted:
            op.execute(f"GRANT SELECT ON {table} TO {_ROLE}")
