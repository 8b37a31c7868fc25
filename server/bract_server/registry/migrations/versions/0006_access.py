"""Who may read, and who read what; and, on PostgreSQL, rows that a site's own role can see."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_KEPT = ("principal", "access_log")
_TOKEN_FIXED = ("id", "principal", "digest", "questions", "issued_at", "expires_at")

# The role that a process takes which reads on a site's behalf. It owns nothing, and sees what the policies leave.
_ROLE = "bract_site"
_MINE = "current_setting('bract.site', true)"

# A site's own rows, by the column that names it; unset, the setting equals nothing and every table is empty.
_OWN = {
    "site": "name",
    "site_certificate": "site",
    "campaign_site": "site",
    "clearance": "site",
    "reservation": "site",
    "refusal": "site",
    "participant": "site",
    "contribution": "site",
    "receipt": "site",
    "withdrawal_notice": "site",
    "privacy_account": "site",
    "privacy_entry": "site",
}
# Rows that belong to one of those.
_THROUGH = {
    "withdrawal_snapshot": ("notice_id", "withdrawal_notice"),
    "withdrawal_impact": ("notice_id", "withdrawal_notice"),
    "clearance_revocation": ("clearance_id", "clearance"),
    "relinquishment": ("reservation_id", "reservation"),
}
# What every site is sent anyway.
_SHARED = ("campaign", "round", "round_plan", "encoder_version")


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    _tables()
    for table in _KEPT:
        for ddl in refuse_changes(dialect, table):
            op.execute(ddl)
    for ddl in refuse_changes(dialect, "access_token", _TOKEN_FIXED):
        op.execute(ddl)
    if dialect == "postgresql":
        _walls()


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        for table in (*_OWN, *_THROUGH):
            op.execute(f"DROP POLICY own_rows ON {table}")
            op.execute(f"DROP POLICY hub ON {table}")
            op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
            op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
        if _role_exists():
            for table in (*_OWN, *_THROUGH, *_SHARED):
                op.execute(f"REVOKE SELECT ON {table} FROM {_ROLE}")  # noqa: S608 - names of this file
    for table in (*_KEPT, "access_token"):
        for ddl in allow_changes(dialect, table):
            op.execute(ddl)
    for table in ("access_log", "access_token", "principal"):
        op.drop_table(table)


def _tables() -> None:
    op.create_table(
        "principal",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("site", sa.String(63), nullable=True),
        sa.Column("created_at", Utc(), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'operator', 'auditor', 'dpo', 'site')", name=op.f("ck_principal_role")),
        sa.CheckConstraint("(role = 'site') = (site IS NOT NULL)", name=op.f("ck_principal_site_of_its_role")),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_principal_site"),
        sa.PrimaryKeyConstraint("name", name="pk_principal"),
    )
    op.create_table(
        "access_token",
        sa.Column("id", Number, nullable=False),
        sa.Column("principal", sa.String(63), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("questions", Json, nullable=False),
        sa.Column("issued_at", Utc(), nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.Column("revoked_at", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["principal"], ["principal.name"], name="fk_access_token_principal"),
        sa.PrimaryKeyConstraint("id", name="pk_access_token"),
        sa.UniqueConstraint("digest", name="uq_access_token_digest"),
    )
    op.create_index("ix_access_token_principal", "access_token", ["principal"])
    op.create_table(
        "access_log",
        sa.Column("id", Number, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("asked", sa.String(64), nullable=False),
        sa.Column("arguments", Json, nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("about_persons", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_log"),
    )


def _walls() -> None:
    """Row-level security. The hub's own role, the owner of the tables, keeps seeing everything."""
    # An account that may not create roles leaves that to the administrator; until then no process can read as a site.
    op.execute(
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{_ROLE}') THEN "
        f"CREATE ROLE {_ROLE} NOLOGIN; END IF; GRANT {_ROLE} TO CURRENT_USER; "
        "EXCEPTION WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN "
        f"RAISE NOTICE 'ask the administrator for the role {_ROLE}'; END $$"
    )
    for table, column in _OWN.items():
        _wall(table, f"{column} = {_MINE}")
    for table, (column, parent) in _THROUGH.items():
        mine = f"SELECT 1 FROM {parent} AS own WHERE own.id = {table}.{column} AND own.site = {_MINE}"  # noqa: S608 - as above
        _wall(table, f"EXISTS ({mine})")
    if _role_exists():
        op.execute(f"GRANT USAGE ON SCHEMA public TO {_ROLE}")
        for table in (*_OWN, *_THROUGH, *_SHARED):
            op.execute(f"GRANT SELECT ON {table} TO {_ROLE}")


def _wall(table: str, own: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    # Without FORCE the owner would pass by all policies, and a dropped one would go unnoticed.
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY hub ON {table} TO CURRENT_USER USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY own_rows ON {table} FOR SELECT TO PUBLIC USING ({own})")


def _role_exists() -> bool:
    return op.get_bind().scalar(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": _ROLE}) is not None
