"""When an edge of lineage was learnt that did not come with the thing that it is of."""

import json

import sqlalchemy as sa
from alembic import op

from bract.database import Utc, allow_changes, refuse_changes

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLE, _COLUMN = "lineage_edge", "learnt_at"


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.add_column(_TABLE, sa.Column(_COLUMN, Utc(), nullable=True))
    for ddl in allow_changes(dialect, _TABLE):
        op.execute(ddl)
    _date()
    for ddl in refuse_changes(dialect, _TABLE):
        op.execute(ddl)


def downgrade() -> None:
    op.drop_column(_TABLE, _COLUMN)


def _date() -> None:
    """What was learnt before is dated by the log, whose entries name both ends; where the body was erased it stays unknown."""
    bind = op.get_bind()
    told = bind.execute(
        sa.text(
            "SELECT e.at, e.about, b.body FROM log_entry e JOIN log_body b ON b.seq = e.seq "
            "WHERE e.kind = 'lineage.relate' ORDER BY e.seq"
        )
    )
    dated = sa.text(
        "UPDATE lineage_edge SET learnt_at = :at WHERE learnt_at IS NULL AND role = :role "
        "AND src IN (SELECT id FROM lineage_node WHERE ref = :src) AND dst IN (SELECT id FROM lineage_node WHERE ref = :dst)"
    )
    for at, about, body in told.all():
        said = json.loads(body) if body else {}
        bind.execute(dated, {"at": at, "src": about, "dst": said.get("to"), "role": said.get("role")})
