"""Runs one verb of a registry again and again, each time killed with SIGKILL at its next statement; prints what stood.

Usage: killed_verbs.py URL VERB, where VERB is `reserve` or `ingest`. A line a kill: how many reservations and records
are there afterwards, and `check` has passed.
"""

import json
import os
import signal
import sys
from collections.abc import Callable

from sqlalchemy import event, text

from bract.database import open_engine, reading
from bract.digest import digest
from bract.privacy.spec import Mechanism
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import HOUR, KEY, SIGNING, T0

MECHANISM = Mechanism(1.0, 0.1, 5)


def verb(registry: SiteRegistry, name: str) -> None:
    if name == "reserve":
        registry.reserve(digest(b"c"), 1, "adult", MECHANISM, T0, HOUR)
    else:
        registry.ingest("adult", T0)


def killed_at(url: str, name: str, statement: int) -> bool:
    """Whether the child was killed; False once the verb has fewer statements and ended."""
    child = os.fork()
    if child == 0:
        engine = open_engine(url)
        seen = [0]

        def maybe_die(*_: object) -> None:
            seen[0] += 1
            if seen[0] == statement:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(engine, "after_cursor_execute", maybe_die)
        event.listen(engine, "commit", maybe_die)
        verb(SiteRegistry(engine, KEY, SIGNING, "ward"), name)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status) and os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit("the child failed by itself")
    return os.WIFSIGNALED(status)


def main(url: str, name: str, out: Callable[[str], object] = print) -> None:
    statement, alive = 0, True
    while alive:
        statement += 1
        alive = killed_at(url, name, statement)
        engine = open_engine(url)
        registry = SiteRegistry(engine, KEY, SIGNING, "ward")
        registry.check()
        with reading(engine).connect() as connection:
            records = connection.scalar(text("SELECT count(*) FROM record"))
        entries = registry.verify_log().entries
        engine.dispose()
        out(
            json.dumps(
                {
                    "killed": alive,
                    "reserved": len(registry.spent("adult")),
                    "records": records,
                    "entries": entries,
                }
            )
        )
        engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], lambda line: sys.stdout.write(line + "\n"))
