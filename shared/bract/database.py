"""One way into SQLite and PostgreSQL: engines, column types, migrations and the triggers that keep history.

Both databases give the same promise: a write transaction sees the newest committed state and nobody changes
it under its hands. SQLite takes its one write lock when the transaction begins (`BEGIN IMMEDIATE`); PostgreSQL
runs READ COMMITTED, and whoever must not be overtaken takes a lock (`lock_row`, or the log's own lock).
"""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    BigInteger,
    Connection,
    DateTime,
    Dialect,
    Engine,
    ExceptionContext,
    Integer,
    MetaData,
    QueuePool,
    Row,
    Select,
    String,
    Table,
    Text,
    column,
    create_engine,
    event,
    func,
    insert,
    literal,
    make_url,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator

from bract.errors import CONCURRENT, DISK, MALFORMED, UNREACHABLE, BractError

BUSY_S = 30.0
"""Seconds a writer waits for another one before it gives up."""

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""Every constraint has a name, the same on both databases, so that a later migration can find it."""

Json = JSON().with_variant(JSONB(), "postgresql")
"""Plain JSON data that are shown or counted; whatever is signed is kept as its bytes instead."""

_PART = 10_000
"""Rows that one statement adds at most: what it holds in memory is bounded."""

DigestText = String(71)
"""`sha256:` and 64 hexadecimal digits."""

Number = BigInteger().with_variant(Integer(), "sqlite")
"""A 64-bit integer that may be a primary key on both databases."""


class Utc(TypeDecorator[datetime]):
    """A moment: aware datetimes in, aware UTC datetimes out, to the microsecond; a naive one is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC, without its zone where the database cannot keep one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise BractError(MALFORMED, "a time without a zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def metadata() -> MetaData:
    """An empty MetaData with the naming convention."""
    return MetaData(naming_convention=NAMING)


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """An engine on a SQLite file (`sqlite:///PATH`) or a PostgreSQL database (`postgresql://…`, psycopg 3).

    Raises:
        BractError: `malformed` for any other URL. Later, from any use of the engine: `concurrent` when a lock could
            not be had, `disk` when nothing can be written, `unreachable` when the server does not answer.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise BractError(MALFORMED, "not a database URL") from error
    kind = parsed.get_backend_name()
    if kind == "sqlite" and parsed.database not in (None, "", ":memory:"):
        engine = _sqlite(Path(str(parsed.database)), read_only)
    elif kind == "postgresql":
        options = f"-c timezone=UTC -c lock_timeout={int(BUSY_S * 1000)}"
        if read_only:
            options += " -c default_transaction_read_only=on"
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",
            pool_size=20,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"options": options, "connect_timeout": 10},
            # A connection that comes back from `reading` begins READ WRITE, whatever the server's default is.
            execution_options={"postgresql_readonly": True} if read_only else {},
        )
    else:
        raise BractError(MALFORMED, "the database is neither a SQLite file nor a PostgreSQL URL")
    event.listen(engine, "handle_error", _refusal)
    return engine


def _sqlite(path: Path, read_only: bool) -> Engine:
    def connect() -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        uri = f"{path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False)

    url = URL.create("sqlite+pysqlite", database=str(path))
    engine = create_engine(url, creator=connect, poolclass=QueuePool, pool_size=20, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA busy_timeout={int(BUSY_S * 1000)}")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        # Otherwise INSERT OR REPLACE deletes a row without asking the triggers that keep history.
        connection.execute("PRAGMA recursive_triggers=ON")
        connection.execute("PRAGMA query_only=ON" if read_only else "PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reads = read_only or connection.get_execution_options().get("bract_reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def reading(engine: Engine) -> Engine:
    """The same engine for transactions that only read: one unchanging snapshot each, and no writer waits for them."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(bract_reads=True)
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


def _refusal(context: ExceptionContext) -> BaseException | None:
    """A driver's error as the refusal it means to whoever reads it; None leaves it as it is (a bug)."""
    original = context.original_exception
    if isinstance(original, BractError):  # of a column type, refusing a value
        return original
    if isinstance(original, sqlite3.Error):
        # The low byte of an extended SQLite code is its family.
        refusal = _SQLITE_REFUSALS.get(getattr(original, "sqlite_errorcode", 0) & 0xFF)
        return refusal() if refusal else None
    state = getattr(original, "sqlstate", None)
    if state in ("40001", "40P01", "55P03"):
        return _busy()
    if state is not None and state.startswith("53"):
        return _full()
    if context.is_disconnect or (context.connection is None and state is None):
        return BractError(UNREACHABLE, "the database server does not answer")
    return None


def _busy() -> BractError:
    return BractError(CONCURRENT, "the database is busy")


def _full() -> BractError:
    return BractError(DISK, "the database cannot be opened or written")


_SQLITE_REFUSALS: dict[int, Callable[[], BractError]] = {
    sqlite3.SQLITE_BUSY: _busy,
    sqlite3.SQLITE_LOCKED: _busy,
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_IOERR: _full,
    sqlite3.SQLITE_CANTOPEN: _full,
}


def lock_row(on: Connection | Session, statement: Select[Any]) -> Row[Any] | None:
    """The first row of `statement`, held until the transaction ends.

    PostgreSQL locks the row; on SQLite the transaction already holds the only write lock.
    """
    return on.execute(statement.with_for_update()).first()


def insert_many(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows that all name the same columns, at least one row.

    PostgreSQL takes them as one array a column: much faster than one statement a row, and checked and guarded alike.
    """
    if connection.dialect.name != "postgresql":
        connection.execute(insert(table), rows)
        return
    kinds = {name: table.c[name].type for name in rows[0]}
    # As plain text: a cast to VARCHAR(n) would cut what is too long, where an INSERT refuses it.
    plain = {name: Text() if isinstance(kind, String) else kind for name, kind in kinds.items()}
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        arrays = [literal([row[name] for row in part], ARRAY(kind)) for name, kind in plain.items()]
        each = func.unnest(*arrays).table_valued(*(column(name, kind) for name, kind in plain.items())).render_derived()
        connection.execute(insert(table).from_select(list(kinds), select(*each.c)))


def refuse_changes(dialect: str, table: str, columns: Sequence[str] = (), *, deletes: bool = True) -> tuple[str, ...]:
    """DDL for triggers that keep a table's history: rows are added and never changed.

    Args:
        dialect: `sqlite` or `postgresql`.
        table: the table to guard.
        columns: those that may never change; empty means all of them.
        deletes: whether deleting rows is refused too.
    """
    of = f" OF {', '.join(columns)}" if columns else ""
    verbs = [("update", f"UPDATE{of}"), *([("delete", "DELETE")] if deletes else [])]
    if dialect == "sqlite":
        return tuple(
            f"CREATE TRIGGER keep_{table}_{name} BEFORE {verb} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} keeps its rows'); END"
            for name, verb in verbs
        )
    return (
        f"CREATE FUNCTION keep_{table}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{table} keeps its rows' USING ERRCODE = 'integrity_constraint_violation'; END $$",
        *(
            f"CREATE TRIGGER keep_{table}_{name} BEFORE {verb} ON {table} FOR EACH ROW EXECUTE FUNCTION keep_{table}()"
            for name, verb in verbs
        ),
        f"CREATE TRIGGER keep_{table}_truncate BEFORE TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION keep_{table}()",
    )


def allow_changes(dialect: str, table: str) -> tuple[str, ...]:
    """DDL that takes `refuse_changes` back, for the way down of a migration."""
    names = [f"keep_{table}_{name}" for name in ("update", "delete")]
    if dialect == "sqlite":
        return tuple(f"DROP TRIGGER IF EXISTS {name}" for name in names)
    return (
        *(f"DROP TRIGGER IF EXISTS {name} ON {table}" for name in (*names, f"keep_{table}_truncate")),
        f"DROP FUNCTION IF EXISTS keep_{table}()",
    )
