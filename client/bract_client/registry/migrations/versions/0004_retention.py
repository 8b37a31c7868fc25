"""Retention policies, holds, disposal and its receipts."""

from alembic import op

from bract.database import metadata
from bract.disposal.tables import guards, tables, unguards

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    tables(schema := metadata())
    schema.create_all(connection, checkfirst=False)
    for ddl in guards(connection.dialect.name):
        op.execute(ddl)


def downgrade() -> None:
    connection = op.get_bind()
    for ddl in unguards(connection.dialect.name):
        op.execute(ddl)
    tables(schema := metadata())
    schema.drop_all(connection, checkfirst=False)
