"""The log in a database keeps what happened, and tells when somebody changed it."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Engine, delete, select, text, update
from sqlalchemy.exc import DBAPIError

from bract.database import metadata, open_engine, reading
from bract.digest import digest
from bract.errors import LOG, STATE, BractError
from bract.log import book, exchange, schema, shelf
from bract.log.checkpoint import Checkpoint
from bract.log.entry import new_salt
from bract.log.merkle import Frontier, verify_inclusion
from bract.log.tiles import WIDTH
from bract.signing import sign, unseal

META = metadata()
LOG_TABLES = book.tables(META)
E, B, C, T = LOG_TABLES.entry, LOG_TABLES.body, LOG_TABLES.checkpoint, LOG_TABLES.tile
AT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    META.create_all(engine)
    yield engine
    engine.dispose()


def _append(connection: Connection, number: int) -> int:
    return book.append(
        connection, LOG_TABLES, kind="thing.made", actor="hub", about=f"thing-{number}", body={"n": number}, at=AT
    )


def _fill(engine: Engine, count: int, signed_at: tuple[int, ...]) -> None:
    for number in range(1, count + 1):
        with engine.begin() as connection:
            assert _append(connection, number) == number
            if number in signed_at:
                book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT)


def _verify(engine: Engine, known: Checkpoint | None = None) -> book.LogReport:
    with reading(engine).connect() as connection:
        return book.verify(connection, LOG_TABLES, KEY.public_key(), known)


def test_an_untouched_log_verifies(engine: Engine) -> None:
    _fill(engine, 7, (2, 3, 7))
    report = _verify(engine)
    assert (report.entries, report.checkpoint_size, report.verified) == (7, 7, True)
    with reading(engine).connect() as connection:
        edge = Frontier()
        for entry in book.entries(connection, LOG_TABLES):
            edge = edge.add(entry.leaf)
        assert f"sha256:{edge.root.hex()}" == report.root
        assert book.body(connection, LOG_TABLES, 3) == b'{"n":3}'


def test_every_transaction_takes_the_log_s_lock_anew_and_keeps_it_to_its_end(engine: Engine) -> None:
    if engine.dialect.name != "postgresql":
        return  # BEGIN IMMEDIATE is the lock
    held = text("SELECT count(*) FROM pg_locks WHERE mode = 'ExclusiveLock' AND relation = 'log_entry'::regclass")
    with engine.connect() as connection:  # one of the pool's, for all of them
        for _ in range(2):
            with connection.begin():
                book.hold(connection, LOG_TABLES)
                book.hold(connection, LOG_TABLES)
                assert connection.scalar(held) == 1
            assert connection.scalar(held) == 0
            connection.rollback()
        with connection.begin():
            with connection.begin_nested() as saved:
                book.hold(connection, LOG_TABLES)
                saved.rollback()
            assert connection.scalar(held) == 0
            book.hold(connection, LOG_TABLES)
            assert connection.scalar(held) == 1


def test_an_empty_log_verifies_and_cannot_be_signed(engine: Engine) -> None:
    assert _verify(engine).entries == 0
    with pytest.raises(BractError) as refusal, engine.begin() as connection:
        book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT)
    assert refusal.value.code == STATE


def test_a_checkpoint_of_a_size_is_signed_once(engine: Engine) -> None:
    _fill(engine, 3, (2,))
    with engine.begin() as connection:
        first = book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT)
        assert book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT.replace(year=2027)) == first
    assert unseal(Checkpoint, first, KEY.public_key()).size == 3


def test_a_rolled_back_fact_leaves_no_entry_and_no_gap(engine: Engine) -> None:
    _fill(engine, 2, ())
    with pytest.raises(RuntimeError), engine.begin() as connection:
        _append(connection, 3)
        raise RuntimeError("the fact could not be kept")
    with engine.begin() as connection:
        assert _append(connection, 4) == 3
    assert _verify(engine).entries == 3


def test_appending_at_once_leaves_no_gap(engine: Engine) -> None:
    barrier, seqs = threading.Barrier(6), list[int]()

    def work() -> None:
        barrier.wait()
        for number in range(5):
            with engine.begin() as connection:
                seqs.append(_append(connection, number))
                book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(seqs) == list(range(1, 31))
    assert _verify(engine).checkpoint_size == 30


def test_an_erased_body_is_gone_and_the_tree_stands(engine: Engine) -> None:
    _fill(engine, 4, (4,))
    before = _verify(engine)
    with engine.begin() as connection:
        assert book.erase(connection, LOG_TABLES, 2, actor="dpo", reason="Art. 17", at=AT) == 5
        assert book.body(connection, LOG_TABLES, 2) is None
    assert _verify(engine, Checkpoint("hub", 4, before.root, AT)).entries == 5
    with pytest.raises(BractError) as refusal, engine.begin() as connection:
        book.erase(connection, LOG_TABLES, 2, actor="dpo", reason="Art. 17", at=AT)
    assert refusal.value.code == STATE


def _move(connection: Connection, old: int, new: int) -> None:
    connection.execute(update(E).where(E.c.seq == old).values(seq=new))
    connection.execute(update(B).where(B.c.seq == old).values(seq=new))


def _flip(connection: Connection) -> None:
    connection.execute(update(E).where(E.c.seq == 3).values(about="thing-9"))


def _flip_body(connection: Connection) -> None:
    connection.execute(update(B).where(B.c.seq == 3).values(body=b'{"n":9}'))


def _flip_salt(connection: Connection) -> None:
    connection.execute(update(B).where(B.c.seq == 3).values(salt=new_salt()))


def _lose_body(connection: Connection) -> None:
    connection.execute(delete(B).where(B.c.seq == 3))


def _drop(connection: Connection) -> None:
    connection.execute(delete(B).where(B.c.seq == 3))
    connection.execute(delete(E).where(E.c.seq == 3))


def _drop_and_close(connection: Connection) -> None:
    _drop(connection)
    for seq in (4, 5, 6, 7):
        _move(connection, seq, seq - 1)
    _append(connection, 97)


def _reorder(connection: Connection) -> None:
    for old, new in ((3, 100), (4, 3), (100, 4)):
        _move(connection, old, new)


def _truncate(connection: Connection) -> None:
    connection.execute(delete(B).where(B.c.seq > 4))
    connection.execute(delete(E).where(E.c.seq > 4))


def _replace_tail(connection: Connection) -> None:
    _truncate(connection)
    for number in (95, 96, 97):
        _append(connection, number)


def _foreign_checkpoint(connection: Connection) -> None:
    envelope = sign(Checkpoint("hub", 7, digest(b"x"), AT), Ed25519PrivateKey.generate())
    connection.execute(update(C).where(C.c.size == 7).values(envelope=envelope.to_json()))


def _another_checkpoint(connection: Connection) -> None:
    early = connection.scalar(select(C.c.envelope).where(C.c.size == 5))
    connection.execute(update(C).where(C.c.size == 7).values(envelope=early))


CHANGES: dict[Callable[[Connection], None], str] = {
    _flip: "entries 3 to 5",
    _flip_body: "log entry 3 has another body",
    _flip_salt: "log entry 3 has another body",
    _lose_body: "log entry 3 has lost its body",
    _drop: "log entry 3 is missing",
    _drop_and_close: "entries 3 to 5",
    _reorder: "entries 3 to 5",
    _truncate: "log entry 5 is missing: 7 entries were signed",
    _replace_tail: "entries 3 to 5",
    _foreign_checkpoint: "the checkpoint of 7 entries",
    _another_checkpoint: "the checkpoint of 7 entries",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_change_is_found_and_named(database_url: str, change: Callable[[Connection], None]) -> None:
    """The one who changes has the whole database: no triggers, no foreign keys."""
    engine = open_engine(database_url)
    META.create_all(engine)
    _fill(engine, 7, (2, 5, 7))
    assert _verify(engine).entries == 7
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.connection.driver_connection.execute("PRAGMA foreign_keys=OFF")  # type: ignore[union-attr]
        else:
            connection.execute(text("SET session_replication_role = replica"))
        change(connection)
        connection.commit()
    with pytest.raises(BractError, match=CHANGES[change]) as refusal:
        _verify(engine)
    assert refusal.value.code == LOG
    engine.dispose()


def test_a_checkpoint_kept_elsewhere_finds_a_log_cut_back(engine: Engine) -> None:
    _fill(engine, 7, (5, 7))
    with engine.begin() as connection:
        kept = unseal(Checkpoint, book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT), KEY.public_key())
        connection.execute(delete(C).where(C.c.size == 7))
        connection.execute(delete(B).where(B.c.seq > 5))
        connection.execute(delete(E).where(E.c.seq > 5))
    assert _verify(engine).entries == 5
    with pytest.raises(BractError, match="log entry 6 is missing"):
        _verify(engine, kept)


def test_the_tables_keep_their_rows(engine: Engine) -> None:
    _fill(engine, 3, (3,))
    with engine.begin() as connection:
        for ddl in book.guards(engine.dialect.name):
            connection.execute(text(ddl))
    for statement in (
        update(E).values(actor="x"),
        delete(E),
        update(C).values(size=1),
        delete(C),
        update(B).values(salt=b""),
    ):
        with pytest.raises(DBAPIError, match="keeps its rows"), engine.begin() as connection:
            connection.execute(statement)
    with engine.begin() as connection:
        book.erase(connection, LOG_TABLES, 1, actor="dpo", reason="Art. 17", at=AT)
        for ddl in book.unguards(engine.dialect.name):
            connection.execute(text(ddl))
        connection.execute(update(E).values(actor="x"))


TILED = 700


@pytest.fixture
def tiled(engine: Engine) -> Engine:
    """700 entries: two full tiles, one at the edge, and a checkpoint of each hundred."""
    with engine.begin() as connection:
        for number in range(1, TILED + 1):
            _append(connection, number)
            if number % 100 == 0:
                book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT)
    return engine


def test_tiles_read_at_once_are_those_read_one_by_one(engine: Engine) -> None:
    full, size = 300, 300 * WIDTH  # a level above is full once, and at the edge
    roots = [b"%032d" % number for number in range(full)]
    rows = [{"level": 0, "number": n, "root": root, "hashes": root[::-1] * WIDTH} for n, root in enumerate(roots)]
    above = {"level": 1, "number": 0, "root": bytes(32), "hashes": b"".join(roots[:WIDTH])}
    with engine.begin() as connection:
        connection.execute(T.insert(), [*rows, above])
        for leaf in (0, 255, 256, 255 * WIDTH, 256 * WIDTH - 1, 256 * WIDTH, size - 1):
            one_by_one = shelf.tree(connection, LOG_TABLES, size).inclusion(leaf)
            assert shelf.tree(connection, LOG_TABLES, size, leaf=leaf).inclusion(leaf) == one_by_one
        connection.execute(delete(T).where(T.c.level == 0, T.c.number == 299))
        with pytest.raises(BractError, match="below tile 1 of level 1 is missing"):
            shelf.tree(connection, LOG_TABLES, size, leaf=0).inclusion(0)


def test_every_entry_is_proven_by_the_newest_checkpoint_that_has_it(tiled: Engine) -> None:
    with tiled.begin() as connection:
        _append(connection, TILED + 1)
    with reading(tiled).connect() as connection:
        for seq in (1, 255, 256, 257, 512, 513, TILED):
            proof = exchange.prove(connection, LOG_TABLES, KEY, seq)
            assert proof.entry.about == f"thing-{seq}" and proof.verify(KEY.public_key()).size == TILED
        for seq in (0, TILED + 1, TILED + 2):
            with pytest.raises(BractError, match="no signed log entry"):
                exchange.prove(connection, LOG_TABLES, KEY, seq)


def test_what_lies_beyond_the_first_page_is_verified_too(tiled: Engine) -> None:
    with tiled.begin() as connection:
        for number in range(TILED + 1, book._PAGE + 1):
            _append(connection, number)
    assert _verify(tiled).entries == book._PAGE  # a full page, and nothing behind it
    with tiled.begin() as connection:
        assert _append(connection, 0) == book._PAGE + 1
        book.checkpoint(connection, LOG_TABLES, KEY, "hub", AT)
    assert _verify(tiled).checkpoint_size == book._PAGE + 1
    with tiled.begin() as connection:
        connection.execute(update(B).where(B.c.seq == book._PAGE + 1).values(body=b"{}"))
    with pytest.raises(BractError, match=f"log entry {book._PAGE + 1} has another body"):
        _verify(tiled)


def test_full_tiles_are_kept_as_entries_come_and_prove_every_entry(tiled: Engine) -> None:
    with reading(tiled).connect() as connection:
        assert connection.execute(select(T.c.level, T.c.number)).all() == [(0, 0), (0, 1)]
        leaves = shelf.leaves(connection, LOG_TABLES, 0, TILED)
        for size in (TILED, 300):
            root = Frontier()
            for leaf in leaves[:size]:
                root = root.add(leaf)
            tree = shelf.tree(connection, LOG_TABLES, size)
            assert tree.root() == root.root
            for seq in (1, 256, 257, size // 2, size):
                verify_inclusion(leaves[seq - 1], seq - 1, size, tree.inclusion(seq - 1), root.root)
        proof = exchange.prove(connection, LOG_TABLES, KEY, 513)
        assert proof.verify(KEY.public_key()).size == TILED


def test_tiles_made_afterwards_are_those_made_on_the_way(tiled: Engine) -> None:
    """What the migration of an older registry does."""
    with tiled.begin() as connection:
        before = connection.execute(select(T).order_by(T.c.level, T.c.number)).all()
        connection.execute(delete(T))
        shelf.build(connection, LOG_TABLES)
        assert connection.execute(select(T).order_by(T.c.level, T.c.number)).all() == before
    assert _verify(tiled).entries == TILED


def _flip_tile(connection: Connection) -> None:
    connection.execute(update(T).where(T.c.number == 1).values(hashes=bytes(8192)))


def _flip_tile_root(connection: Connection) -> None:
    connection.execute(update(T).where(T.c.number == 1).values(root=bytes(32)))


def _lose_tile(connection: Connection) -> None:
    connection.execute(delete(T).where(T.c.number == 0))


def _more_tiles(connection: Connection) -> None:
    connection.execute(T.insert(), {"level": 0, "number": 2, "root": bytes(32), "hashes": bytes(8192)})


def _flip_early(connection: Connection) -> None:
    connection.execute(update(E).where(E.c.seq == 9).values(about="thing-10"))


def _flip_in_tile(connection: Connection) -> None:
    connection.execute(update(E).where(E.c.seq == 250).values(about="thing-10"))
    connection.execute(delete(C).where(C.c.size.in_([300])))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_flip_tile, "tile 1 of level 0 is missing or was changed"),
        (_flip_tile_root, "tile 1 of level 0 is missing or was changed"),
        (_lose_tile, "tile 0 of level 0 is missing or was changed"),
        (_more_tiles, "more tiles than 700 entries fill"),
        (_flip_early, "log entries 1 to 100 was changed"),
        (_flip_in_tile, "log entry 250 was changed"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_change_of_a_tile_or_under_one_is_named(
    tiled: Engine, change: Callable[[Connection], None], told: str
) -> None:
    with tiled.begin() as connection:
        change(connection)
    with pytest.raises(BractError, match=told) as refusal:
        _verify(tiled)
    assert refusal.value.code == LOG


def test_tiles_keep_their_rows(tiled: Engine) -> None:
    with tiled.begin() as connection:
        for ddl in schema.witness_guards(tiled.dialect.name):
            connection.execute(text(ddl))
    statements = ["DELETE FROM log_tile", "UPDATE log_tile SET root = hashes"]
    if tiled.dialect.name == "postgresql":
        statements.append("TRUNCATE log_tile")
    else:
        statements.append("INSERT OR REPLACE INTO log_tile SELECT level, number, hashes, root FROM log_tile")
    for statement in statements:
        with pytest.raises(DBAPIError, match="keeps its rows"), tiled.begin() as connection:
            connection.execute(text(statement))
    with tiled.begin() as connection:
        for ddl in schema.witness_unguards(tiled.dialect.name):
            connection.execute(text(ddl))
        connection.execute(delete(T))
