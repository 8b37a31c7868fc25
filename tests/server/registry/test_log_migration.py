"""A registry from before tiles gets those of the entries that it has."""

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from bract.database import open_engine, reading
from bract.log import shelf
from bract.log.entry import commitment, new_salt
from bract.migrations import migrate
from bract_server.registry import MIGRATIONS
from bract_server.registry.models import LOG

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def test_the_tiles_of_an_older_log_are_made(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS, "0001")
    with engine.begin() as connection:
        for seq in range(1, 601):
            salt = new_salt()
            row = {"seq": seq, "kind": "a.b", "at": AT, "actor": "hub", "about": "", "commitment": commitment(salt, {})}
            connection.execute(LOG.entry.insert(), row)
            connection.execute(LOG.body.insert(), {"seq": seq, "salt": salt, "body": b"{}"})
    migrate(engine, MIGRATIONS, "0002")
    with Session(reading(engine)) as session:
        assert session.scalar(select(func.count()).select_from(LOG.tile)) == 2
        connection = session.connection()
        leaves = shelf.leaves(connection, LOG, 0, 600)
        assert shelf.tree(connection, LOG, 600).inclusion(0)[0] == leaves[1]
    engine.dispose()
