"""What both databases promise."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Engine, Integer, String, Table, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError

from bract.database import (
    DigestText,
    Json,
    Utc,
    allow_changes,
    insert_many,
    lock_row,
    metadata,
    open_engine,
    reading,
    refuse_changes,
)
from bract.errors import CONCURRENT, DISK, MALFORMED, UNREACHABLE, BractError
from bract.migrations import at_head, migrate

META = metadata()
MOMENT = Table("moment", META, Column("id", Integer, primary_key=True), Column("at", Utc()), Column("data", Json))
SHORT = Table("short", META, Column("id", Integer, primary_key=True), Column("word", String(5)))
PURSE = Table("purse", META, Column("id", Integer, primary_key=True), Column("left", Integer), Column("note", String))


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    META.create_all(engine)
    yield engine
    engine.dispose()


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.datetimes(timezones=ZONES).filter(lambda at: 1 < at.year < 9999))
def test_a_moment_comes_back_in_utc_to_the_microsecond(engine: Engine, at: datetime) -> None:
    with engine.begin() as connection:
        connection.execute(MOMENT.delete())
        connection.execute(insert(MOMENT).values(id=1, at=at))
        back = connection.scalar(select(MOMENT.c.at))
    assert back == at
    assert back.tzinfo is UTC


def test_moments_compare_across_zones(engine: Engine) -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    with engine.begin() as connection:
        connection.execute(insert(MOMENT), [{"id": 1, "at": noon}, {"id": 2, "at": noon + timedelta(microseconds=1)}])
        later = datetime(2026, 11, 22, 21, 0, 0, 1, tzinfo=timezone(timedelta(hours=9)))
        assert connection.scalars(select(MOMENT.c.id).where(MOMENT.c.at < later)).all() == [1]


def test_a_naive_time_is_refused(engine: Engine) -> None:
    with pytest.raises(BractError) as refusal, engine.begin() as connection:
        connection.execute(insert(MOMENT).values(id=1, at=datetime(2026, 1, 1)))  # noqa: DTZ001 (the point)
    assert refusal.value.code == MALFORMED


def test_many_rows_at_once_are_those_added_one_by_one(engine: Engine) -> None:
    noon = datetime(2026, 11, 22, 12, tzinfo=timezone(timedelta(hours=9)))
    rows = [{"at": None if n % 3 == 0 else noon + timedelta(microseconds=n), "id": n} for n in range(500)]
    words = [{"id": n, "left": None, "note": text} for n, text in enumerate(["", "a,b", "{x}", "NULL", 'q"\\', None])]
    with engine.begin() as connection:
        insert_many(connection, MOMENT, rows)
        kept = connection.execute(select(MOMENT.c.at, MOMENT.c.id).order_by(MOMENT.c.id)).all()
        assert kept == [(row["at"], row["id"]) for row in rows]
        insert_many(connection, PURSE, words)
        assert [row._asdict() for row in connection.execute(select(PURSE).order_by(PURSE.c.id))] == words
    for bad in ({"id": 0, "at": noon}, {"id": 501, "at": datetime(2026, 1, 1)}):  # noqa: DTZ001 - what must be refused
        with pytest.raises((DBAPIError, BractError)), engine.begin() as connection:
            insert_many(connection, MOMENT, [{"id": 500, "at": noon}, bad])
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(MOMENT)) == len(rows)


def test_a_text_that_is_too_long_is_never_cut(engine: Engine) -> None:
    row = {"id": 1, "word": "sevenfold"}
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            insert_many(connection, SHORT, [row])
            assert connection.execute(select(SHORT)).one()._asdict() == row
        else:
            with pytest.raises(DBAPIError):
                insert_many(connection, SHORT, [row])
            connection.rollback()


def test_json_comes_back_as_it_went_in(engine: Engine) -> None:
    data = {"missing": {"a": "deadline"}, "n": [1, 2.5, None]}
    with engine.begin() as connection:
        connection.execute(insert(MOMENT).values(id=1, data=data))
        assert connection.scalar(select(MOMENT.c.data)) == data


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://x/y", "nonsense", ""])
def test_any_other_database_is_refused(url: str) -> None:
    with pytest.raises(BractError) as refusal:
        open_engine(url)
    assert refusal.value.code == MALFORMED


@pytest.mark.parametrize("locked", [True, False])
def test_a_locked_row_is_spent_once(engine: Engine, locked: bool) -> None:
    """The control without the lock shows that the race is real on PostgreSQL; SQLite's transactions never overlap."""
    with engine.begin() as connection:
        connection.execute(insert(PURSE).values(id=1, left=3))
    barrier, granted, threads = threading.Barrier(8), list[int](), 8

    def spend() -> None:
        barrier.wait()
        with engine.begin() as connection:
            wanted = select(PURSE.c.left).where(PURSE.c.id == 1)
            row = lock_row(connection, wanted) if locked else connection.execute(wanted).first()
            assert row is not None
            connection.execute(text("SELECT 1" if engine.dialect.name == "sqlite" else "SELECT pg_sleep(0.05)"))
            if row.left > 0:
                connection.execute(update(PURSE).values(left=row.left - 1))
                granted.append(1)

    workers = [threading.Thread(target=spend) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    overlaps = engine.dialect.name == "postgresql" and not locked
    assert (len(granted) > 3) is overlaps


def test_a_reader_sees_one_state_and_blocks_nobody(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(PURSE).values(id=1, left=3))
    with reading(engine).connect() as reader:
        assert reader.scalar(select(PURSE.c.left)) == 3
        with engine.begin() as writer:
            writer.execute(update(PURSE).values(left=2))
        assert reader.scalar(select(PURSE.c.left)) == 3
    with reading(engine).connect() as reader:
        assert reader.scalar(select(PURSE.c.left)) == 2


def test_a_read_only_engine_cannot_write(engine: Engine, database_url: str) -> None:
    with engine.begin() as connection:
        connection.execute(insert(PURSE).values(id=1, left=3))
    auditor = open_engine(database_url, read_only=True)
    with auditor.begin() as connection:
        assert connection.scalar(select(PURSE.c.left)) == 3
    with pytest.raises(DBAPIError), auditor.begin() as connection:
        connection.execute(update(PURSE).values(left=0))
    auditor.dispose()


def test_a_lock_that_cannot_be_had_is_a_refusal(engine: Engine) -> None:
    sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        connection.execute(insert(PURSE).values(id=1, left=3))
    with engine.connect() as second:
        second.execute(text("PRAGMA busy_timeout=50" if sqlite else "SET lock_timeout = '50ms'"))
        second.commit()
        with engine.begin() as first:
            first.execute(update(PURSE).values(left=2))
            with pytest.raises(BractError) as refusal:
                second.execute(update(PURSE).values(left=1))
            assert refusal.value.code == CONCURRENT


def test_a_full_disk_is_a_refusal_and_nothing_is_kept(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'small.db'}")
    META.create_all(engine)
    with engine.connect() as connection:
        connection.execute(text("PRAGMA max_page_count=20"))
        connection.commit()
        with pytest.raises(BractError) as refusal, connection.begin():
            connection.execute(insert(PURSE).values(id=1, left=1, note="x" * 1_000_000))
        assert refusal.value.code == DISK
        assert connection.execute(select(PURSE)).all() == []
    engine.dispose()


def test_a_server_that_does_not_answer_is_a_refusal(tmp_path: Path) -> None:
    engine = open_engine(f"postgresql://postgres@/none?host={tmp_path}")
    with pytest.raises(BractError) as refusal:
        engine.connect()
    assert refusal.value.code == UNREACHABLE


def test_a_missing_folder_is_a_refusal(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'none' / 'registry.db'}")
    with pytest.raises(BractError) as refusal:
        engine.connect()
    assert refusal.value.code == DISK


CHANGES = {
    "update": "UPDATE purse SET note = 'x'",
    "delete": "DELETE FROM purse",
    "replace": "INSERT OR REPLACE INTO purse (id, left) VALUES (1, 9)",
    "truncate": "TRUNCATE purse",
}
ONLY = {"replace": "sqlite", "truncate": "postgresql"}


@pytest.mark.parametrize("change", CHANGES)
def test_history_is_kept(engine: Engine, change: str) -> None:
    """Each change goes through without the triggers, is refused with them, and goes through once they are gone."""
    dialect = engine.dialect.name
    statement = text(CHANGES[change].replace("left", '"left"'))
    with engine.begin() as connection:
        connection.execute(insert(PURSE).values(id=1, left=3))
    if ONLY.get(change, dialect) != dialect:
        pytest.skip(f"{dialect} has no such statement")
    with engine.begin() as connection:
        for ddl in refuse_changes(dialect, "purse"):
            connection.execute(text(ddl))
    with pytest.raises(DBAPIError, match="keeps its rows"), engine.begin() as connection:
        connection.execute(statement)
    with engine.begin() as connection:
        assert connection.scalar(select(PURSE.c.left)) == 3
        for ddl in allow_changes(dialect, "purse"):
            connection.execute(text(ddl))
        connection.execute(statement)


def test_only_the_named_columns_are_kept(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(insert(PURSE).values(id=1, left=3))
        for ddl in refuse_changes(engine.dialect.name, "purse", ["id", "note"]):
            connection.execute(text(ddl))
        connection.execute(update(PURSE).values(left=2))
    with pytest.raises(DBAPIError, match="keeps its rows"), engine.begin() as connection:
        connection.execute(update(PURSE).values(left=1, note="x"))


ENV = """
from alembic import context
from bract.database import metadata
from bract.migrations import run_migrations
run_migrations(context, metadata())
"""
FIRST = """
from alembic import op
import sqlalchemy as sa
revision = "0001"
down_revision = None
def upgrade():
    op.create_table("thing", sa.Column("id", sa.Integer, primary_key=True))
def downgrade():
    op.drop_table("thing")
"""
BROKEN = """
from alembic import op
import sqlalchemy as sa
revision = "0002"
down_revision = "0001"
def upgrade():
    op.create_table("other", sa.Column("id", sa.Integer, primary_key=True))
    raise RuntimeError("half way")
def downgrade():
    pass
"""


def test_a_migration_arrives_or_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    scripts = tmp_path / "100% scripts"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(ENV)
    (scripts / "versions" / "0001_first.py").write_text(FIRST)
    assert not at_head(engine, scripts)
    migrate(engine, scripts)
    migrate(engine, scripts)
    assert at_head(engine, scripts)
    (scripts / "versions" / "0002_broken.py").write_text(BROKEN)
    assert not at_head(engine, scripts)
    with pytest.raises(RuntimeError, match="half way"):
        migrate(engine, scripts)
    with engine.begin() as connection:
        assert not engine.dialect.has_table(connection, "other")
        assert engine.dialect.has_table(connection, "thing")
    migrate(engine, scripts, "base")
    with engine.begin() as connection:
        assert not engine.dialect.has_table(connection, "thing")


def test_a_digest_fits_its_column() -> None:
    assert DigestText.length == len("sha256:") + 64
