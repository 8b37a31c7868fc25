"""The log's tables, the same at a site and at the hub. Rows are added and never changed; only a whole body may go."""

from dataclasses import dataclass

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, MetaData, String, Table, Text

from bract.database import DigestText, Number, Utc, allow_changes, refuse_changes

ENTRY, BODY, CHECKPOINT = "log_entry", "log_body", "log_checkpoint"
TILE, COSIGNATURE, WITNESSED = "log_tile", "log_cosignature", "witnessed_checkpoint"
FORK, ACCEPTANCE = "log_fork", "log_fork_acceptance"

WITNESSING = (TILE, COSIGNATURE, WITNESSED, FORK, ACCEPTANCE)
"""The tables that came with tiles and witnesses, in the order in which they may be made."""


@dataclass(frozen=True)
class LogTables:
    """The log's tables in one side's schema.

    Attributes:
        tile: full tiles of the tree, each with its own root, so that partial tiles above it can be put together.
        cosignature: what witnesses signed of our checkpoints.
        witnessed: what we remember of other logs: the newest row of a key is what its next checkpoint must continue.
        fork: checkpoints that did not.
        acceptance: who lifted a fork, and why.
    """

    entry: Table
    body: Table
    checkpoint: Table
    tile: Table
    cosignature: Table
    witnessed: Table
    fork: Table
    acceptance: Table


def tables(metadata: MetaData) -> LogTables:
    """Declare the log's tables in a schema."""
    entry = Table(
        ENTRY,
        metadata,
        Column("seq", Number, primary_key=True, autoincrement=False),
        Column("kind", String(64), nullable=False, index=True),
        Column("at", Utc(), nullable=False),
        Column("actor", String(200), nullable=False),
        Column("about", String(200), nullable=False, index=True),
        Column("commitment", DigestText, nullable=False),
    )
    body = Table(
        BODY,
        metadata,
        Column("seq", Number, ForeignKey(f"{ENTRY}.seq"), primary_key=True, autoincrement=False),
        Column("salt", LargeBinary, nullable=False),
        Column("body", LargeBinary, nullable=False),
    )
    checkpoint = Table(
        CHECKPOINT,
        metadata,
        Column("size", Number, ForeignKey(f"{ENTRY}.seq"), primary_key=True, autoincrement=False),
        Column("envelope", LargeBinary, nullable=False),
        Column("frontier", LargeBinary, nullable=False),
    )
    tile = Table(
        TILE,
        metadata,
        Column("level", Integer, primary_key=True, autoincrement=False),
        Column("number", Number, primary_key=True, autoincrement=False),
        Column("root", LargeBinary, nullable=False),
        Column("hashes", LargeBinary, nullable=False),
    )
    return LogTables(entry, body, checkpoint, tile, *_witnesses(metadata))


def _witnesses(metadata: MetaData) -> tuple[Table, Table, Table, Table]:
    cosignature = Table(
        COSIGNATURE,
        metadata,
        Column("size", Number, ForeignKey(f"{CHECKPOINT}.size"), primary_key=True, autoincrement=False),
        Column("witness", String(200), primary_key=True),
        Column("verify_key", String(64), nullable=False),
        Column("line", Text, nullable=False),
        Column("kept_at", Utc(), nullable=False),
    )
    witnessed = Table(
        WITNESSED,
        metadata,
        Column("id", Number, primary_key=True),
        Column("origin", String(200), nullable=False),
        Column("verify_key", String(64), nullable=False, index=True),
        Column("size", Number, nullable=False),
        Column("root", DigestText, nullable=False),
        Column("note", LargeBinary, nullable=False),
        Column("cosignature", Text, nullable=False),
        Column("at", Utc(), nullable=False),
    )
    fork = Table(
        FORK,
        metadata,
        Column("id", Number, primary_key=True),
        Column("origin", String(200), nullable=False, index=True),
        Column("verify_key", String(64), nullable=False),
        Column("size", Number, nullable=False),
        Column("root", DigestText, nullable=False),
        Column("note", LargeBinary, nullable=False),
        Column("cause", String(200), nullable=False),
        Column("at", Utc(), nullable=False),
    )
    acceptance = Table(
        ACCEPTANCE,
        metadata,
        Column("fork", Number, ForeignKey(f"{FORK}.id"), primary_key=True, autoincrement=False),
        Column("person", String(200), nullable=False),
        Column("reason", Text, nullable=False),
        Column("at", Utc(), nullable=False),
    )
    return cosignature, witnessed, fork, acceptance


def guards(dialect: str) -> tuple[str, ...]:
    """DDL of the triggers that keep the log; only a whole body may be deleted."""
    return (
        *refuse_changes(dialect, ENTRY),
        *refuse_changes(dialect, CHECKPOINT),
        *refuse_changes(dialect, BODY, deletes=False),
    )


def unguards(dialect: str) -> tuple[str, ...]:
    """DDL that takes `guards` back."""
    return tuple(ddl for table in (ENTRY, CHECKPOINT, BODY) for ddl in allow_changes(dialect, table))


def witness_guards(dialect: str) -> tuple[str, ...]:
    """DDL of the triggers that keep the tables of `WITNESSING`."""
    return tuple(ddl for table in WITNESSING for ddl in refuse_changes(dialect, table))


def witness_unguards(dialect: str) -> tuple[str, ...]:
    """DDL that takes `witness_guards` back."""
    return tuple(ddl for table in WITNESSING for ddl in allow_changes(dialect, table))
