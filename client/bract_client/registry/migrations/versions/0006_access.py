"""Who read what about persons."""

import sqlalchemy as sa
from alembic import op

from bract.database import Number, Utc, allow_changes, refuse_changes

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "access_log",
        sa.Column("seq", Number, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("principal", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("asked", sa.String(64), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("subject_no", Number, nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_access_log")),
    )
    op.create_index("ix_access_log_subject_no", "access_log", ["subject_no"])
    for ddl in refuse_changes(op.get_bind().dialect.name, "access_log"):
        op.execute(ddl)


def downgrade() -> None:
    for ddl in allow_changes(op.get_bind().dialect.name, "access_log"):
        op.execute(ddl)
    op.drop_table("access_log")
