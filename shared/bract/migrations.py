"""Schemas and their history, by Alembic; it is loaded only when there is something to migrate.

A side's `migrations/` folder holds an `env.py` and `versions/NNNN_name.py`; NNNN is the revision, and the largest is the
newest.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, MetaData, inspect, text

from bract.database import reading

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 0x6272616374  # "bract": two processes that start at once must not both migrate


def migrate(engine: Engine, script_location: Path, revision: str = "head") -> None:
    """Bring the database to a revision, in one transaction: it arrives there or stays where it was.

    `base` or `-N` go down. Nothing is loaded or locked when the newest is wanted and there.

    Raises:
        BractError: `concurrent`, `disk`, `unreachable` as `bract.database.open_engine` tells.
    """
    if revision == "head" and at_head(engine, script_location):
        return
    from alembic import command  # noqa: PLC0415 - half a second that most commands need not spend

    config = _config(script_location)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        if revision == "base" or revision.startswith("-"):
            command.downgrade(config, revision)
        else:
            command.upgrade(config, revision)


def revisions(engine: Engine, script_location: Path) -> tuple[str | None, str | None]:
    """The database's schema revision, and the newest one that this version knows."""
    newest = max((path.name.split("_")[0] for path in (script_location / "versions").glob("[0-9]*_*.py")), default=None)
    with reading(engine).connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None, newest
        return connection.scalar(text("SELECT version_num FROM alembic_version")), newest


def at_head(engine: Engine, script_location: Path) -> bool:
    """Whether the database has the newest schema that this version knows."""
    there, newest = revisions(engine, script_location)
    return there == newest


def run_migrations(context: ModuleType, target: MetaData) -> None:
    """What each side's `env.py` does: run the asked revisions on the connection that `migrate` opened.

    `context` is `alembic.context`, which exists only while Alembic runs an `env.py`.
    """
    connection: Connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=target,
        render_as_batch=True,
        transactional_ddl=False,  # `migrate` holds the one transaction
    )
    context.run_migrations()


def _config(script_location: Path) -> Config:
    from alembic.config import Config  # noqa: PLC0415 - see `migrate`

    config = Config()
    config.set_main_option("script_location", str(script_location).replace("%", "%%"))
    return config
