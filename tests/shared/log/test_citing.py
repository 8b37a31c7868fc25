"""An answer's proof reference names the newest checkpoint of its time, whatever the log's length."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.database import metadata, open_engine
from bract.errors import LOG, BractError
from bract.log import book
from bract.log.citing import cited

META = metadata()
TABLES = book.tables(META)
AT, SECOND = datetime(2026, 11, 22, 12, tzinfo=UTC), timedelta(seconds=1)
KEY = Ed25519PrivateKey.from_private_bytes(b"owner of the log of these tests.")


def test_the_newest_checkpoint_of_any_time_is_found_and_is_its_owners(database_url: str) -> None:
    engine, steps = open_engine(database_url), random.Random(4)
    META.create_all(engine)
    signed: list[tuple[datetime, int]] = []
    now = AT
    with engine.begin() as connection:
        assert cited(connection, TABLES, KEY.public_key(), "hub", AT, set())[0].size == 0
        for number in range(1, 80):
            now += steps.choice((0, 0, 1, 7)) * SECOND
            book.append(connection, TABLES, kind="thing.made", actor="hub", about=f"{number}", body={}, at=now)
            if steps.random() < 0.5:
                book.checkpoint(connection, TABLES, KEY, "hub", now)
                signed.append((now, number))
        for known in {AT - SECOND, now + SECOND, *(at + SECOND / 2 for at, _ in signed), *(at for at, _ in signed)}:
            newest = max((size for at, size in signed if at <= known), default=0)
            proof, found = cited(connection, TABLES, KEY.public_key(), "hub", known, {("thing.made", "40")})
            assert (proof.size, found) == (newest, {("thing.made", "40"): 40} if newest >= 40 else {})
        with pytest.raises(BractError) as refusal:
            cited(connection, TABLES, Ed25519PrivateKey.generate().public_key(), "hub", AT + 40 * SECOND, set())
        assert refusal.value.code == LOG
    engine.dispose()
