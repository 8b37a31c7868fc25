"""Every fact and its log entry are kept together or not at all, and a change behind the registry's back is found."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from bract.database import reading
from bract.digest import Digest
from bract.errors import LOG as INCONSISTENT
from bract.errors import STATE, BractError
from bract.log import book
from bract.log.checkpoint import Checkpoint
from bract.signing import unseal
from bract_server.registry import evidence
from bract_server.registry.models import LOG
from tests.server.registry.world import AT, World, named


def test_a_refused_verb_leaves_no_trace(world: World, campaign: Digest) -> None:
    before = world.registry.verify_log()
    with pytest.raises(BractError) as refusal:
        world.registry.clear("alder", world.clearance("alder", campaign, 1), AT)
    assert refusal.value.code == STATE
    assert world.registry.verify_log() == before


def test_every_verb_is_signed(world: World, campaign: Digest) -> None:
    world.whole_round(campaign, "alder", "birch")
    report = world.registry.verify_log()
    assert report.checkpoint_size == report.entries
    with reading(world.engine).connect() as connection:
        kinds = [entry.kind for entry in book.entries(connection, LOG)]
    assert kinds[:6] == ["site.add"] * 3 + ["campaign.create", "version.add", "campaign.move"]
    assert kinds[6:12] == ["round.propose", *["clearance.take", "reservation.take"] * 2, "round.open"]
    assert kinds[12:] == ["contribution.accept"] * 2 + ["version.add", "receipt.issue", "receipt.issue", "round.commit"]


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from bract.database import open_engine
from bract.signing import parse_envelope
from bract_server.registry import unit
from bract_server.registry.store import HubRegistry

def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)

url, key, envelope = sys.argv[1], bytes.fromhex(sys.argv[2]), bytes.fromhex(sys.argv[3])
unit.book.checkpoint = die  # the last thing before the commit: fact and entry are written, and not yet kept
registry = HubRegistry(open_engine(url), Ed25519PrivateKey.from_private_bytes(key))
registry.clear("alder", parse_envelope(envelope), datetime(2026, 11, 22, 12, 0, 1, tzinfo=UTC))
"""


def test_a_killed_verb_leaves_no_trace_and_can_be_said_again(world: World, campaign: Digest, database_url: str) -> None:
    world.registry.propose(campaign, AT)
    before = world.registry.verify_log()
    envelope = world.clearance("alder", campaign, 1)
    key = world.registry._key.private_bytes_raw().hex()
    arguments = [sys.executable, "-c", KILLED, database_url, key, envelope.to_json().hex()]
    assert subprocess.run(arguments, check=False).returncode == -9
    assert world.registry.verify_log() == before
    world.registry.clear("alder", envelope, AT)
    assert world.registry.verify_log().entries == before.entries + 1


def _unguarded(world: World, change: Callable[[Connection], None]) -> None:
    """Change the database as its owner could, past the triggers, foreign keys and constraints."""
    with world.engine.connect() as connection:
        if world.engine.dialect.name == "sqlite":
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA foreign_keys=OFF")
            for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                raw.execute(f"DROP TRIGGER {name}")
        else:
            connection.execute(text("SET session_replication_role = replica"))
        change(connection)
        connection.commit()


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM refusal", "refusal.take"),
        ("DELETE FROM clearance WHERE site = 'alder'", "clearance.take"),
        ("UPDATE clearance SET envelope = (SELECT envelope FROM reservation WHERE site = 'alder')", "clearance.take"),
        ("UPDATE encoder_version SET body = campaign_bytes", "version.add"),
        ("DELETE FROM contribution", "contribution.accept"),
        ("UPDATE log_entry SET actor = 'birch' WHERE seq = 8", "log entries 8 to 8"),
    ],
)
def test_a_change_behind_the_registrys_back_is_found(world: World, campaign: Digest, statement: str, told: str) -> None:
    world.registry.propose(campaign, AT)
    world.registry.refuse("cedar", world.refusal("cedar", campaign, 1, STATE), AT)
    world.registry.abort_round(campaign, 1, {}, AT)
    world.whole_round(campaign, "alder", "birch")
    good = world.registry.verify_log()
    blob = "x'7b7d'" if world.engine.dialect.name == "sqlite" else "'\\x7b7d'::bytea"
    kept: list[str] = []

    def change(connection: Connection) -> None:
        connection.execute(text(statement.replace("campaign_bytes", blob)))
        with pytest.raises(BractError, match=told) as refusal:
            book.verify(connection, LOG, world.registry.verify_key)
            evidence.check(Session(connection))
        kept.append(refusal.value.code)
        connection.rollback()

    _unguarded(world, change)
    assert kept == [INCONSISTENT]
    assert world.registry.verify_log() == good


def test_a_checkpoint_kept_elsewhere_is_compared(world: World, campaign: Digest) -> None:
    with world.engine.begin() as connection:
        envelope = book.checkpoint(connection, LOG, world.registry._key, "hub", AT)
    kept = unseal(Checkpoint, envelope, world.registry.verify_key)
    world.registry.propose(campaign, AT)
    assert world.registry.verify_log(kept).entries == kept.size + 1
    with pytest.raises(BractError, match="rewritten"):
        world.registry.verify_log(Checkpoint("hub", kept.size, named("another root"), AT))


def test_an_entry_that_the_hub_never_signed_is_found(world: World) -> None:
    with world.engine.connect() as connection:
        book.append(connection, LOG, kind="site.revoke", actor="hub", about="alder", body={}, at=AT)
        report = book.verify(connection, LOG, world.registry.verify_key)
        assert report.entries == report.checkpoint_size + 1
        connection.rollback()
