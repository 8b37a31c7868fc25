"""Tiles of the log, witnesses and what they signed."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Number, Utc
from bract.log import schema, shelf

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_tile",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "number", name=op.f("pk_log_tile")),
    )
    op.create_table(
        "log_cosignature",
        sa.Column("size", Number, autoincrement=False, nullable=False),
        sa.Column("witness", sa.String(200), nullable=False),
        sa.Column("verify_key", sa.String(64), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.Column("kept_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["size"], ["log_checkpoint.size"], name=op.f("fk_log_cosignature_size")),
        sa.PrimaryKeyConstraint("size", "witness", name=op.f("pk_log_cosignature")),
    )
    op.create_table(
        "witnessed_checkpoint",
        sa.Column("id", Number, nullable=False),
        sa.Column("origin", sa.String(200), nullable=False),
        sa.Column("verify_key", sa.String(64), nullable=False),
        sa.Column("size", Number, nullable=False),
        sa.Column("root", DigestText, nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("cosignature", sa.Text(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_witnessed_checkpoint")),
    )
    op.create_index(op.f("ix_witnessed_checkpoint_verify_key"), "witnessed_checkpoint", ["verify_key"])
    op.create_table(
        "log_fork",
        sa.Column("id", Number, nullable=False),
        sa.Column("origin", sa.String(200), nullable=False),
        sa.Column("verify_key", sa.String(64), nullable=False),
        sa.Column("size", Number, nullable=False),
        sa.Column("root", DigestText, nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
        sa.Column("cause", sa.String(200), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log_fork")),
    )
    op.create_index(op.f("ix_log_fork_origin"), "log_fork", ["origin"])
    op.create_table(
        "log_fork_acceptance",
        sa.Column("fork", Number, autoincrement=False, nullable=False),
        sa.Column("person", sa.String(200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["fork"], ["log_fork.id"], name=op.f("fk_log_fork_acceptance_fork")),
        sa.PrimaryKeyConstraint("fork", name=op.f("pk_log_fork_acceptance")),
    )
    for ddl in schema.witness_guards(op.get_bind().dialect.name):
        op.execute(ddl)
    shelf.build(op.get_bind(), schema.tables(sa.MetaData()))


def downgrade() -> None:
    for ddl in schema.witness_unguards(op.get_bind().dialect.name):
        op.execute(ddl)
    for table in reversed(schema.WITNESSING):
        op.drop_table(table)
