"""What the steward declared that a data set may be used for."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Number, Utc, allow_changes, refuse_changes

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FIXED = ("no", "dataset", "name", "envelope", "given_at")


def upgrade() -> None:
    op.create_table(
        "dataset_terms",
        sa.Column("no", Number, nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("name", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("given_at", Utc(), nullable=False),
        sa.Column("sent_at", Utc(), nullable=True),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.name"], name=op.f("fk_dataset_terms_dataset")),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_dataset_terms")),
        sa.UniqueConstraint("name", name=op.f("uq_dataset_terms_name")),
    )
    op.create_index("ix_dataset_terms_dataset", "dataset_terms", ["dataset"])
    for ddl in refuse_changes(op.get_bind().dialect.name, "dataset_terms", _FIXED):
        op.execute(ddl)


def downgrade() -> None:
    for ddl in allow_changes(op.get_bind().dialect.name, "dataset_terms"):
        op.execute(ddl)
    op.drop_table("dataset_terms")
