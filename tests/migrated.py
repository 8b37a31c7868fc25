"""An empty database brought to the newest schema as `bract.migrations.migrate` does, without Alembic's second each time."""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from bract.migrations import migrate, revisions

_STATEMENTS: dict[tuple[str, Path], list[tuple[str, Any, bool]]] = {}
_UNSAID = re.compile(r"\s*(SELECT|BEGIN|PRAGMA [^=]*$)", re.IGNORECASE)
"""What is only asked of the database, or said by the connection itself."""


def migrated(engine: Engine, scripts: Path) -> None:
    """The first time in a process the migrations run; their statements are then run again on each other empty database."""
    key = (engine.dialect.name, scripts)
    if revisions(engine, scripts)[0] is not None:
        migrate(engine, scripts)
    elif key in _STATEMENTS:
        _again(engine, _STATEMENTS[key])
    else:
        _STATEMENTS[key] = _recorded(engine, scripts)


def _recorded(engine: Engine, scripts: Path) -> list[tuple[str, Any, bool]]:
    statements: list[tuple[str, Any, bool]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not _UNSAID.match(statement):
            statements.append((statement, parameters, many))

    event.listen(engine, "before_cursor_execute", note)
    try:
        migrate(engine, scripts)
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return statements


def _again(engine: Engine, statements: list[tuple[str, Any, bool]]) -> None:
    with engine.begin() as connection:
        cursor = connection.connection.cursor()
        for statement, parameters, many in statements:
            run = engine.dialect.do_executemany if many else engine.dialect.do_execute
            run(cursor, statement, parameters)
