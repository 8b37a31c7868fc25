from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from bract.consent import Purpose
from bract.database import open_engine
from bract.digest import digest
from bract.migrations import at_head, migrate
from bract.privacy.spec import Mechanism
from bract_client.registry import MIGRATIONS
from bract_client.registry.models import Base
from tests.client.site_world import HOUR, T0, add_table, open_registry, persons, write_table


def test_the_migrations_make_exactly_the_models(database_url: str) -> None:
    engine = open_engine(database_url)
    assert not at_head(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS)
    assert at_head(engine, MIGRATIONS)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_up_down_up_leaves_nothing_behind(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS, "base")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    migrate(engine, MIGRATIONS)
    assert at_head(engine, MIGRATIONS)
    engine.dispose()


FORBIDDEN = [
    "UPDATE consent_event SET decision = 'permit'",
    "DELETE FROM consent_event",
    "UPDATE snapshot SET n_subjects = 0",
    "DELETE FROM snapshot",
    "UPDATE privacy_entry SET state = 'settled'",
    "DELETE FROM privacy_entry",
    "UPDATE privacy_reservation SET curve = '[]'",
    "DELETE FROM privacy_reservation",
    "UPDATE privacy_account SET delta = 0.05",
    "UPDATE dataset SET retention_days = 9",
    "UPDATE log_entry SET kind = 'x.y'",
    "DELETE FROM log_entry",
    "INSERT INTO consent_event (seq, subject_no, purpose, scope, decision, valid_from, valid_to, recorded_at, source, "
    "source_ref) SELECT seq - 1, subject_no, purpose, scope, decision, valid_from, valid_to, "
    "recorded_at, source, 'again' FROM consent_event WHERE seq = 1",
    "INSERT INTO consent_event (seq, subject_no, purpose, scope, decision, valid_from, valid_to, recorded_at, source, "
    "source_ref) SELECT seq + 9, subject_no, purpose, scope, decision, valid_from, valid_to, "
    "'2001-01-01 00:00:00.000000', source, 'again' FROM consent_event WHERE seq = 1",
]


def test_history_cannot_be_changed(database_url: str, tmp_path: Path) -> None:
    engine, registry = open_registry(database_url)
    add_table(registry, write_table(tmp_path / "t.parquet", persons(3)))
    registry.ingest("adult", T0)
    registry.freeze("adult", Purpose.PRETRAINING, T0)
    registry.reserve(digest(b"c"), 1, "adult", Mechanism(1.0, 0.1, 1), T0, HOUR)
    for statement in FORBIDDEN:
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(text(statement))
    registry.check()
    engine.dispose()
