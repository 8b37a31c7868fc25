"""What the log takes: a proof of one entry, and an auditor's offline verification of all of them."""

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

from sqlalchemy import insert
from sqlalchemy.orm import Session

from bract.digest import canonical
from bract.log import archive, shelf
from bract.log.entry import commitment, new_salt
from bract.log.verify import verify
from bract_client.registry.models import LOG
from tests.benchmarks.registry.figure import Figure
from tests.benchmarks.registry.site import opened, seconds
from tests.client.site_world import T0

_BATCH = 50_000
_PROOFS = 200


def _entries(session: Session, first: int, last: int) -> None:
    """Entries of ingests, with their bodies and tiles, as the verbs make them."""
    entries, bodies = list[dict[str, Any]](), list[dict[str, Any]]()
    for seq in range(first, last + 1):
        salt, body = new_salt(), canonical({"taken": seq, "unchanged": 0, "removed": 0, "unreadable": 0})
        fact = {"seq": seq, "kind": "dataset.ingest", "at": T0, "actor": "north", "about": "adult"}
        entries.append({**fact, "commitment": commitment(salt, body)})
        bodies.append({"seq": seq, "salt": salt, "body": body})
    connection = session.connection()
    connection.execute(insert(LOG.entry), entries)
    connection.execute(insert(LOG.body), bodies)


def _filled(url: str, size: int) -> Any:
    engine, registry = opened(url)
    for first in range(1, size + 1, _BATCH):
        with registry._write() as session:
            _entries(session, first, min(size, first + _BATCH - 1))
    with registry._write() as session:
        shelf.build(session.connection(), LOG)
    signed = seconds(lambda: registry.checkpoint(T0))
    return engine, registry, signed


def proof(url: str, size: int) -> list[Figure]:
    """Proofs of entries anywhere in the log, the slowest twentieth counts; the check of one."""
    engine, registry, signed = _filled(url, size)
    made, checked = list[float](), list[float]()
    for seq in _places(size):
        begin = perf_counter()
        one = registry.proof(seq)
        middle = perf_counter()
        one.verify(registry.verify_key)
        made.append(middle - begin)
        checked.append(perf_counter() - middle)
    whole = seconds(registry.verify_log)
    engine.dispose()
    return [
        Figure("proof of an entry, 95th percentile", quantiles(made, n=20)[-1] * 1e3, "ms", 5, size),
        Figure("check of a proof, 95th percentile", quantiles(checked, n=20)[-1] * 1e3, "ms", None, size),
        Figure("first checkpoint of the whole log", signed, "s", None, size),
        Figure("log recomputed in the database", whole, "s", None, size),
    ]


def _places(size: int) -> Iterator[int]:
    rng = random.Random(0)
    return (rng.randint(1, size) for _ in range(_PROOFS))


def offline(url: str, size: int) -> list[Figure]:
    """A bundle with every entry and body, and its verification with public keys only."""
    engine, registry, _ = _filled(url, size)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "log.zip"
        written = seconds(lambda: archive.write(bundle, registry.bundle(None, counts=True)))
        found = []
        checked = seconds(lambda: found.append(verify(bundle)))
        assert found[0].size == size and found[0].bodies == size
    engine.dispose()
    return [
        Figure("bundle written", written, "s", None, size),
        Figure("bundle verified offline", checked, "s", 10, size),
    ]
