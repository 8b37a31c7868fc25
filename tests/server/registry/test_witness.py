"""A hub and a site witness each other's logs: what continues is cosigned, what forks ends rounds until it is lifted."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Engine, func, select, text
from sqlalchemy.exc import DBAPIError

from bract.database import open_engine
from bract.errors import LOG_FORKED, MALFORMED, STATE, UNTRUSTED, BractError
from bract.log import book, exchange, forks
from bract.log.note import cosign, parse_note
from bract.log.witness import Word
from bract.retention import RetentionRule
from bract_client.registry import MIGRATIONS
from bract_client.registry.models import LOG as SITE_LOG
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import TableLocation
from bract_server.registry import MIGRATIONS as HUB_MIGRATIONS
from bract_server.registry.models import LOG
from bract_server.registry.store import HubRegistry
from tests.migrated import migrated
from tests.server.registry.world import AT, World, named


@dataclass
class Pair:
    """A hub on the database under test and one of its sites on a file."""

    world: World
    file: Path
    engine: Engine
    site: SiteRegistry

    @property
    def hub_key(self) -> Ed25519PublicKey:
        return self.world.registry.verify_key

    def act(self, name: str) -> None:
        """Something happens at the site, so that its log grows."""
        location = TableLocation("table", f"/{name}.parquet", "adult")
        self.site.add_dataset(
            name, location, retention=RetentionRule(), subjects_floor=1, epsilon_cap=8.0, delta=1e-6, at=AT
        )

    def poll(self) -> None:
        """What the executor does at each poll."""
        word = self.site.word(self.hub_key, AT)
        assert word is not None
        reply = self.world.registry.witness("alder", word, AT)
        if not reply.cosignature and reply.remembered != word.shown.old:
            word = self.site.word(self.hub_key, AT, reply.remembered) or word
            reply = self.world.registry.witness("alder", word, AT)
        self.site.heed(reply, self.hub_key, AT)

    def reopen(self, file: Path) -> None:
        """The site comes back from another file."""
        self.engine.dispose()
        self.file = file
        self.engine = open_engine(f"sqlite:///{file}")
        self.site = SiteRegistry(self.engine, bytes(32), self.world.keys["alder"], "alder")

    def saved(self, name: str) -> Path:
        with self.engine.connect() as connection:
            connection.connection.driver_connection.execute(f"VACUUM INTO '{self.file.with_name(name)}'")  # type: ignore[union-attr]
        return self.file.with_name(name)


@pytest.fixture
def pair(world: World, tmp_path: Path) -> Iterator[Pair]:
    file = tmp_path / "site.db"
    engine = open_engine(f"sqlite:///{file}")
    migrated(engine, MIGRATIONS)
    pair = Pair(world, file, engine, SiteRegistry(engine, bytes(32), world.keys["alder"], "alder"))
    pair.act("first")
    yield pair
    pair.engine.dispose()


def code(refused: object) -> str:
    assert callable(refused)
    with pytest.raises(BractError) as told:
        refused()
    return told.value.code


def test_each_cosigns_the_others_log_as_it_grows(pair: Pair) -> None:
    for round_ in range(3):
        pair.poll()
        pair.act(f"more-{round_}")
        pair.world.enrol(f"site-{round_}")
    pair.poll()
    pair.poll()  # the site's line on the hub's newest head travels with the next one
    ours, theirs = pair.site.head(), pair.world.registry.head()
    assert ours is not None and theirs is not None
    with pair.world.registry.seeing() as session:
        assert exchange.cosigned(session, LOG, pair.world.keys["alder"].public_key()) == theirs.size
    assert len(parse_note(pair.site.note()).signatures) == 2
    assert len(parse_note(pair.world.registry.note()).signatures) == 2
    assert pair.site.forks() == pair.world.registry.forks() == ()


def test_polls_without_news_write_nothing(pair: Pair) -> None:
    for _ in range(2):
        pair.poll()

    def counts() -> list[int]:
        found = []
        for engine, log in ((pair.engine, SITE_LOG), (pair.world.engine, LOG)):
            with engine.connect() as connection:
                tables = (log.entry, log.checkpoint, log.cosignature, log.witnessed)
                found += [connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables]
        return found

    before = counts()
    for _ in range(3):
        pair.poll()
    assert counts() == before


def test_a_reply_that_was_lost_is_made_good_at_the_next_poll(pair: Pair) -> None:
    pair.poll()
    pair.act("more")
    word = pair.site.word(pair.hub_key, AT)
    assert word is not None
    pair.world.registry.witness("alder", word, AT)  # and the reply does not arrive
    pair.act("again")
    pair.poll()
    with pair.site._read() as session:
        assert exchange.cosigned(session, SITE_LOG, pair.hub_key) == pair.site.head().size  # type: ignore[union-attr]


def test_a_site_that_comes_back_from_an_old_copy_is_found_and_stays_out_until_both_lift_it(pair: Pair) -> None:
    pair.poll()
    old = pair.saved("old.db")
    pair.act("second")
    pair.poll()
    pair.reopen(old)  # reservations made since are forgotten: privacy would be spent twice
    hub = pair.world.registry
    assert code(pair.poll) == LOG_FORKED
    pair.site.disowned(AT)
    assert code(pair.site.check_forks) == LOG_FORKED
    assert code(lambda: hub.check_fork("alder")) == LOG_FORKED
    hub.check_fork("birch")
    (fork,) = hub.forks()
    assert (fork.origin, fork.accepted_by) == ("alder", None)
    assert "and had" in fork.cause
    found = hub.entry_about(forks.FOUND, fork.root)
    assert found is not None and hub.proof(found.seq).verify(hub.verify_key)
    for _ in range(3):  # it stands, and is told once
        assert code(pair.poll) == LOG_FORKED
        pair.site.disowned(AT)
    assert len(hub.forks()) == len(pair.site.forks()) == 1
    assert code(lambda: hub.accept_fork("alder", " ", "why", AT)) == MALFORMED
    assert code(lambda: hub.accept_fork("birch", "P. Owner", "why", AT)) == STATE
    hub.accept_fork("alder", "P. Owner", "restored from the copy of Monday; ledger reconciled", AT)
    hub.check_fork("alder")
    pair.site.accept_fork("S. Teward", "restored from the copy of Monday", AT)
    pair.site.check_forks()
    pair.poll()
    pair.act("third")
    pair.poll()
    assert hub.forks()[0].accepted_by == "P. Owner"
    assert pair.site.verify_log().entries == pair.site.head().size  # type: ignore[union-attr]


def test_a_copy_that_went_its_own_way_is_found_though_it_is_as_long(pair: Pair) -> None:
    old = pair.saved("old.db")
    pair.act("second")
    pair.poll()
    pair.reopen(old)
    pair.act("another")
    assert code(pair.poll) == LOG_FORKED
    assert "two histories" in pair.world.registry.forks()[0].cause


def test_what_is_shown_tells_neither_how_many_decided_nor_when(pair: Pair) -> None:
    every = timedelta(minutes=1)
    sizes: list[int] = []
    for second in range(0, 180, 10):
        if second in (10, 20, 70, 130, 140, 150):
            pair.act(f"set-{second}")
        word = pair.site.word(pair.hub_key, AT + timedelta(seconds=second), every=every)
        assert word is not None
        sizes.append(parse_note(word.shown.note).head.size)
    assert all(size % exchange.STEP == 0 for size in sizes)
    # AT is on a whole minute: what happens within one is told at its end, in one step
    assert sizes == [32] * 6 + [64] * 6 + [96] * 6


def test_a_hub_that_tells_another_history_is_found_by_the_site(pair: Pair, tmp_path: Path) -> None:
    pair.poll()
    engine = open_engine(f"sqlite:///{tmp_path / 'other.db'}")
    migrated(engine, HUB_MIGRATIONS)
    liar = World(engine, HubRegistry(engine, pair.world.registry._key), pair.world.keys)
    size = pair.world.registry.head().size  # type: ignore[union-attr]
    for name in ("alder", *(f"x-{number}" for number in range(size - 1))):
        liar.enrol(name)
    honest, pair.world = pair.world, liar
    assert liar.registry.head().size == size  # type: ignore[union-attr]
    assert code(pair.poll) == LOG_FORKED  # the same size, another root
    assert "two histories" in pair.site.forks()[0].cause
    assert code(pair.site.check_forks) == LOG_FORKED
    liar.enrol("y")
    assert code(pair.poll) == LOG_FORKED  # larger, and no continuation
    pair.world = honest
    pair.poll()  # the old history is still the one that is remembered
    assert code(pair.site.check_forks) == LOG_FORKED  # and yet a person has to look
    engine.dispose()


def test_a_hub_that_was_cut_back_is_found_by_the_site(pair: Pair, tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'short.db'}")
    migrated(engine, HUB_MIGRATIONS)
    short = World(engine, HubRegistry(engine, pair.world.registry._key), pair.world.keys)
    short.enrol("alder")
    pair.poll()
    pair.world = short
    assert code(pair.poll) == LOG_FORKED
    engine.dispose()


def test_a_bad_cosignature_is_not_kept_and_hides_nothing(pair: Pair) -> None:
    pair.poll()
    stranger = Ed25519PrivateKey.generate()
    word = pair.site.word(pair.hub_key, AT)
    assert word is not None
    pair.world.enrol("dogwood")
    head = pair.world.registry.head()
    assert head is not None
    in_anothers_name = cosign(head, "dpa.example", pair.world.keys["alder"], 0).line
    for line in (cosign(head, "alder", stranger, 0).line, in_anothers_name):
        reply = pair.world.registry.witness("alder", Word(word.shown, head.size, line), AT)
        assert parse_note(reply.shown.note).head == head
    with pair.world.registry.seeing() as session:
        assert exchange.cosigned(session, LOG, pair.world.keys["alder"].public_key()) < head.size
    pair.act("more")
    late = pair.site.word(pair.hub_key, AT)
    assert late is not None
    reply = pair.world.registry.witness("alder", late, AT)
    forged = replace(reply, cosignature=cosign(pair.site.head(), "hub", stranger, 0).line)  # type: ignore[arg-type]
    assert code(lambda: pair.site.heed(forged, pair.hub_key, AT)) == UNTRUSTED


def test_a_site_speaks_for_its_own_log_only(pair: Pair) -> None:
    word = pair.site.word(pair.hub_key, AT)
    assert word is not None
    assert code(lambda: pair.world.registry.witness("birch", word, AT)) == UNTRUSTED


def test_a_cosignature_from_the_future_is_refused(pair: Pair) -> None:
    hub = pair.world.registry
    head, key = hub.head(), Ed25519PrivateKey.generate()
    assert head is not None
    late = cosign(head, "w", key, int((AT + timedelta(days=1)).timestamp()))
    with pytest.raises(BractError) as told, hub.writing(AT) as unit:
        exchange.keep(unit.session, LOG, late, key.public_key(), head.size, AT)
    assert told.value.code == MALFORMED


def test_what_witnesses_said_cannot_be_changed(pair: Pair) -> None:
    old = pair.saved("old.db")
    pair.act("second")
    pair.poll()
    pair.poll()
    pair.reopen(old)
    assert code(pair.poll) == LOG_FORKED
    pair.world.registry.accept_fork("alder", "P. Owner", "why", AT)
    statements = [
        "DELETE FROM log_cosignature",
        "UPDATE log_cosignature SET line = ''",
        "DELETE FROM witnessed_checkpoint",
        "UPDATE witnessed_checkpoint SET size = 1",
        "DELETE FROM log_fork",
        "UPDATE log_fork SET origin = 'birch'",
        "DELETE FROM log_fork_acceptance",
        "UPDATE log_fork_acceptance SET reason = ''",
    ]
    if pair.world.engine.dialect.name == "postgresql":
        statements += ["TRUNCATE log_fork CASCADE", "TRUNCATE witnessed_checkpoint"]
    else:
        statements += ["INSERT OR REPLACE INTO log_fork_acceptance SELECT fork, 'x', 'y', at FROM log_fork_acceptance"]
    for statement in statements:
        with pytest.raises(DBAPIError, match="keeps its rows"), pair.world.engine.begin() as connection:
            connection.execute(text(statement))


def test_an_erased_body_leaves_its_entry_and_says_who_and_why(pair: Pair) -> None:
    for registry, log in ((pair.world.registry, LOG), (pair.site, SITE_LOG)):
        entry = registry.entry_about("site.add", "alder") if registry is not pair.site else None
        seq = entry.seq if entry else 1
        if entry is not None:
            assert code(lambda seq=seq, r=registry: r.erase_body(seq, "D. Officer", "why", AT)) == STATE
            pair.world.registry.revoke_site("cedar", AT)
            seq = registry.entry_about("site.revoke", "cedar").seq  # type: ignore[union-attr]
        told = registry.erase_body(seq, "D. Officer", "Art. 17 GDPR", AT)
        engine = pair.engine if registry is pair.site else pair.world.engine
        with engine.connect() as connection:
            assert book.body(connection, log, seq) is None
            assert b"D. Officer" in (book.body(connection, log, told) or b"")
        assert registry.verify_log().entries >= told
        for again in (seq, told, told + 99):
            assert code(lambda again=again, r=registry: r.erase_body(again, "D. Officer", "why", AT)) == STATE


def test_every_entry_is_proved_and_no_other(world: World) -> None:
    world.enrol("dogwood")
    head = world.registry.head()
    assert head is not None
    for seq in range(1, head.size + 1):
        proof = world.registry.proof(seq)
        assert proof.verify(world.registry.verify_key).size == head.size
        assert proof.to_plain()["entry"]["seq"] == seq
        moved = replace(proof, entry=replace(proof.entry, actor="birch"))
        assert code(lambda moved=moved: moved.verify(world.registry.verify_key)) == "log-inconsistent"
    assert code(lambda: world.registry.proof(head.size + 1)) == STATE
    assert world.registry.entry_about("site.add", str(named("nobody"))) is None
