"""A story of verbs, each killed with SIGKILL at chosen statements before it is let through; what stands is looked at.

A kill is at the n-th statement (before it is sent), at `COMMIT` (every statement was sent, nothing is committed) or `AFTER`
(it is committed and nobody was told; so is a verb of fewer statements). A registry that keeps a verb's promise is then as
before it, or as after it.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, Engine, MetaData, event, select

from bract.database import open_engine, reading
from bract.errors import BractError

COMMIT, AFTER = "commit", "after"
_LOG = ("log_", "tlog_", "access_", "witness")

Site = TypeVar("Site")
State = dict[str, str]


@dataclass(frozen=True)
class Step(Generic[Site]):
    """One verb of a story; `again` is what it answers when it is said once more after it was done.

    `ready` prepares what the verb needs, which is never killed, and gives the verb itself.
    """

    name: str
    ready: Callable[[Site], Callable[[], object]]
    again: str | None = None
    killed: bool = True


@dataclass(frozen=True)
class Stage(Generic[Site]):
    """How a registry is opened, checked, and which tables tell its state; every killed verb of a story changes it."""

    open: Callable[[Engine], Site]
    check: Callable[[Site], object]
    metadata: MetaData


@contextmanager
def opened(stage: Stage[Site], url: str) -> Iterator[tuple[Engine, Site]]:
    engine = open_engine(url)
    yield engine, stage.open(engine)
    engine.dispose()


def state(stage: Stage[Site], engine: Engine) -> State:
    """What every table holds, but for the log's: its salts are random, and a repeated verb may add to it."""
    tables = [table for table in stage.metadata.sorted_tables if not table.name.startswith(_LOG)]
    found: State = {}
    with reading(engine).connect() as connection:
        for table in tables:
            told = [column for column in table.columns if not _counter(column)]
            rows = sorted("|".join(map(_text, row)) for row in connection.execute(select(*told)))
            found[table.name] = f"{len(rows)} rows {sha256(chr(10).join(rows).encode()).hexdigest()[:12]}"
    return found


def _counter(column: Column[Any]) -> bool:
    """Whether the database makes the number up, or it points to such a one: what was rolled back may leave a gap."""
    if column is column.table.autoincrement_column:
        return True
    return any(_counter(key.column) for key in column.foreign_keys)


def _text(value: object) -> str:
    """The same on both databases, whose JSON has its keys in different orders."""
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else repr(value)


def done(step: Step[Site], site: Site, arm: Callable[[], object] = lambda: None) -> None:
    """The verb, which may have been done before."""
    verb = step.ready(site)
    arm()
    try:
        verb()
    except BractError as error:
        if error.code != step.again:
            raise


def control(stage: Stage[Site], url: str, story: Iterable[Step[Site]]) -> list[State]:
    """What stands before the first verb and after each, when nothing is killed; and again when each is said twice."""
    with opened(stage, url) as (engine, site):
        states = [state(stage, engine)]
        for step in story:
            step.ready(site)()
            states.append(state(stage, engine))
            assert not step.killed or states[-1] != states[-2], f"{step.name} does nothing"
            done(step, site)
            assert state(stage, engine) == states[-1], f"{step.name}: said twice, it did more"
    return states


def killed(stage: Stage[Site], url: str, step: Step[Site], when: int | str) -> bool:
    """Whether the verb was killed; False when it wrote nothing and had fewer statements."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with opened(stage, url) as (engine, site):
                done(step, site, lambda: _arm(engine, when))
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{step.name} failed by itself")
    return os.WIFSIGNALED(status)


def _arm(engine: Engine, when: int | str) -> None:
    seen = {"statements": 0, "committed": False}

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def statement(*_: object) -> None:
        seen["statements"] += 1
        if seen["statements"] == when:
            die()

    def commit(*_: object) -> None:
        seen["committed"] = True
        if when == COMMIT:
            die()

    def back(*_: object) -> None:
        if seen["committed"]:
            die()

    event.listen(engine, "before_cursor_execute", statement)
    event.listen(engine, "commit", commit)
    event.listen(engine.pool, "checkin", back)


def told(
    stage: Stage[Site], url: str, story: Sequence[Step[Site]], expected: Sequence[State], stride: int | None
) -> Mapping[str, int]:
    """Kills every step at every `stride`-th statement (once without), and lets it through; how often each was killed.

    Raises:
        AssertionError: when what stands after a kill is neither what stood before nor what should stand after.
    """
    kills: dict[str, int] = {}
    for place, step in enumerate(story):
        before, after = expected[place], expected[place + 1]
        for when in _moments(stride, place) if step.killed else ():
            if not killed(stage, url, step, when):
                break
            kills[step.name] = kills.get(step.name, 0) + 1
            with opened(stage, url) as (engine, site):
                if stride is not None:
                    stage.check(site)
                found = state(stage, engine)
            if when == AFTER or (when != COMMIT and found == after):
                before = after  # that was after its last statement
            assert found == before, f"{step.name}, killed at {when}: {_differs(found, before)}"
            if before == after:
                break
        with opened(stage, url) as (engine, site):
            done(step, site)
            assert state(stage, engine) == after, f"{step.name}, said again: {_differs(state(stage, engine), after)}"
    with opened(stage, url) as (_, site):
        stage.check(site)
    return kills


def _moments(stride: int | None, place: int) -> Iterator[int | str]:
    if stride is None:
        yield (COMMIT, 4, AFTER)[place % 3]
        return
    yield COMMIT
    yield from range(1 + place % stride, 10_000, stride)  # what is beyond the last statement is after the commit


def _differs(found: State, wanted: State) -> dict[str, tuple[str, str]]:
    return {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}


def main(
    stage: Stage[Site], prepare: Callable[[str], object], story: Sequence[Step[Site]], argv: Sequence[str]
) -> None:
    """`CONTROL-URL URL STRIDE|sample`: plays the story without kills on the first database, then with them on the second."""
    quiet, loud, how = argv
    stride = None if how == "sample" else int(how)
    prepare(quiet)
    expected = control(stage, quiet, story)
    prepare(loud)
    sys.stdout.write(json.dumps(told(stage, loud, story, expected, stride)) + "\n")
