"""The migrations make exactly the schema of the models, on both databases."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, inspect, text

from bract.database import open_engine
from bract.migrations import at_head, migrate
from bract_server.registry import MIGRATIONS
from bract_server.registry.models import MUTABLE, Base


def test_the_migrated_schema_is_the_models(database_url: str) -> None:
    engine = open_engine(database_url)
    assert not at_head(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS)
    assert at_head(engine, MIGRATIONS)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        for table in Base.metadata.sorted_tables:
            found = inspect(connection).get_check_constraints(table.name)
            declared = {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
            assert {c["name"] for c in found} == declared
    engine.dispose()


def test_up_down_and_up_again(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS, "base")
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
        left = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"
        if engine.dialect.name == "postgresql":
            left = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'keep_%'"
        assert connection.scalar(text(left)) == 0
    migrate(engine, MIGRATIONS)
    assert at_head(engine, MIGRATIONS)
    engine.dispose()


def test_every_table_is_guarded(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS)
    query = "SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'"
    if engine.dialect.name == "postgresql":
        query = "SELECT DISTINCT event_object_table, trigger_name FROM information_schema.triggers"
    with engine.connect() as connection:
        guarded = {(table, name) for table, name in connection.execute(text(query))}
    for table in Base.metadata.tables:
        assert (table, f"keep_{table}_update") in guarded
        assert (table, f"keep_{table}_delete") in guarded or table == "log_body"
    assert set(MUTABLE) <= set(Base.metadata.tables)
    engine.dispose()
