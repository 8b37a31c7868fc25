"""What the backdoor check found, round by round."""

import sqlalchemy as sa
from alembic import op

from bract.database import Json, Number, Utc, allow_changes, refuse_changes

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLE = "round_inspection"


def upgrade() -> None:
    op.create_table(
        _TABLE,
        sa.Column("id", Number, nullable=False),
        sa.Column("round_id", Number, nullable=False),
        sa.Column("scores", Json, nullable=False),
        sa.Column("flagged", Json, nullable=False),
        sa.Column("excluded", sa.Boolean(), nullable=False),
        sa.Column("inspected_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_round_inspection_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_round_inspection"),
    )
    op.create_index("ix_round_inspection_round_id", _TABLE, ["round_id"])
    for ddl in refuse_changes(op.get_bind().dialect.name, _TABLE):
        op.execute(ddl)


def downgrade() -> None:
    for ddl in allow_changes(op.get_bind().dialect.name, _TABLE):
        op.execute(ddl)
    op.drop_table(_TABLE)
