"""What was never begun is given back; what was begun, or expired, never is."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from bract.database import reading
from bract.digest import digest
from bract.errors import BUDGET, LOG, NO_RESERVATION, STATE, BractError
from bract.log import book
from bract.migrations import migrate, revisions
from bract.privacy.spec import Mechanism
from bract.signing import unseal
from bract.update import LedgerExport, LedgerLine, Relinquishment
from bract.value import digest_value
from bract_client.registry import MIGRATIONS, ledger
from bract_client.registry.models import LOG as TABLES
from bract_client.registry.questions import spend
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import (
    HOUR,
    PRETRAINING,
    SIGNING,
    T0,
    add_table,
    campaign,
    open_registry,
    persons,
    write_table,
)

C, OTHER = digest(b"campaign"), digest(b"another")
M = Mechanism(2.0, 0.1, 20)


@pytest.fixture
def opened(database_url: str, tmp_path: Path) -> Iterator[tuple[Engine, SiteRegistry]]:
    engine, registry = open_registry(database_url)
    add_table(registry, write_table(tmp_path / "t.parquet", persons(5)), cap=4.0)
    yield engine, registry
    registry.check()
    registry.verify_log()
    engine.dispose()


@pytest.fixture
def registry(opened: tuple[Engine, SiteRegistry]) -> SiteRegistry:
    return opened[1]


def refused(code: str) -> pytest.RaisesExc[BractError]:
    return pytest.RaisesExc(BractError, check=lambda error: error.code == code)


def fill(registry: SiteRegistry) -> int:
    """Reserve until the cap; the last round that was granted."""
    number = 0
    while True:
        try:
            registry.reserve(C, number + 1, "adult", M, T0, HOUR)
        except BractError:
            return number
        number += 1


def test_what_was_never_begun_makes_room_for_as_much_and_no_more(registry: SiteRegistry) -> None:
    most = fill(registry)
    assert most >= 2
    said = unseal(Relinquishment, registry.relinquish(C, most, T0), SIGNING.public_key())
    assert (said.site, said.campaign, said.number, said.relinquished_at) == ("ward", C, most, T0)
    assert registry.spent("adult") == (M,) * (most - 1)
    registry.reserve(OTHER, 1, "adult", M, T0, HOUR)
    with refused(BUDGET):
        registry.reserve(OTHER, 2, "adult", M, T0, HOUR)


def test_the_statement_names_its_reservation_and_is_made_once(registry: SiteRegistry) -> None:
    reservation = registry.reserve(C, 1, "adult", M, T0, HOUR)
    one = registry.relinquish(C, 1, T0)
    assert registry.relinquish(C, 1, T0 + 9 * HOUR) == one
    assert unseal(Relinquishment, one, SIGNING.public_key()).reservation == reservation.name


def test_what_was_given_back_is_never_begun_settled_or_reserved_again(registry: SiteRegistry) -> None:
    reservation = registry.reserve(C, 1, "adult", M, T0, HOUR)
    registry.reserved(reservation.name, C, 1)
    registry.relinquish(C, 1, T0)
    with refused(NO_RESERVATION):
        registry.begin_training(C, 1, T0)
    with refused(NO_RESERVATION):
        registry.reserved(reservation.name, C, 1)
    with refused(STATE):
        registry.settle(C, 1, M, T0)
    with refused(STATE):
        registry.reserve(C, 1, "adult", M, T0, HOUR)
    registry.expire_reservations(T0 + 2 * HOUR)
    assert registry.spent("adult") == ()


def test_what_was_begun_settled_or_expired_is_not_given_back(registry: SiteRegistry) -> None:
    for number in (1, 2, 3, 4):
        registry.reserve(C, number, "adult", Mechanism(4.0, 0.1, 2), T0, HOUR)
    registry.begin_training(C, 1, T0)
    registry.settle(C, 2, Mechanism(4.0, 0.1, 1), T0)
    with refused(STATE):
        registry.relinquish(C, 3, T0 + HOUR)
    registry.expire_reservations(T0 + HOUR)
    for number in (1, 2, 3, 4):  # also when the clock was put back
        with refused(STATE):
            registry.relinquish(C, number, T0)
    with refused(NO_RESERVATION):
        registry.relinquish(C, 5, T0)
    assert len(registry.spent("adult")) == 4


def test_the_statement_is_logged_and_stored_before_anybody_hears_of_it(opened: tuple[Engine, SiteRegistry]) -> None:
    engine, registry = opened
    registry.reserve(C, 1, "adult", M, T0, HOUR)
    said = registry.relinquish(C, 1, T0)
    with reading(engine).connect() as connection:
        last = list(book.entries(connection, TABLES))[-1]
    assert (last.kind, last.about) == ("privacy.relinquish", said.name)
    assert registry.relinquished() == (said,)
    registry.mark_relinquished(said.name, T0)
    registry.mark_relinquished(said.name, T0)
    assert registry.relinquished() == ()


def test_a_later_proposal_gives_back_what_the_campaigns_earlier_rounds_never_began(registry: SiteRegistry) -> None:
    cheap = Mechanism(4.0, 0.1, 2)
    for number in (1, 2, 3):
        registry.reserve(C, number, "adult", cheap, T0, HOUR)
    registry.reserve(OTHER, 1, "adult", cheap, T0, HOUR)
    registry.begin_training(C, 2, T0)
    assert registry.relinquish_before(C, 3, T0) == 1
    assert registry.relinquish_before(C, 3, T0) == 0
    states = {(line.campaign, line.number): line.state for line in exported(registry)}
    assert states == {(C, 1): "aborted", (C, 2): "reserved", (C, 3): "reserved", (OTHER, 1): "reserved"}


def test_begin_and_relinquish_exclude_each_other(registry: SiteRegistry) -> None:
    """Whichever comes first: eight rounds, each raced for by both."""
    cheap = Mechanism(4.0, 0.1, 1)
    rounds = range(1, 9)
    for number in rounds:
        registry.reserve(C, number, "adult", cheap, T0, HOUR)
    barrier = threading.Barrier(2 * len(rounds))

    def attempt(number: int, begins: bool) -> bool:
        barrier.wait()
        try:
            if begins:
                registry.begin_training(C, number, T0)
            else:
                registry.relinquish(C, number, T0)
        except BractError as error:
            assert error.code == (NO_RESERVATION if begins else STATE)
            return False
        return True

    with ThreadPoolExecutor(2 * len(rounds)) as pool:
        begun = [pool.submit(attempt, number, True) for number in rounds]
        given = [pool.submit(attempt, number, False) for number in rounds]
        assert all(one.result() != other.result() for one, other in zip(begun, given, strict=True))
    assert len(registry.spent("adult")) == sum(one.result() for one in begun)


def test_nobody_has_spent_what_was_given_back(registry: SiteRegistry) -> None:
    registry.ingest("adult", T0)
    plan = campaign()
    for number in (1, 2):
        at = T0 + number * HOUR
        registry.clearance(plan, number, registry.freeze("adult", PRETRAINING, at), HOUR, 1, at)
        registry.reserve(digest_value(plan), number, "adult", M, at, HOUR)
    registry.relinquish(digest_value(plan), 2, T0 + 2 * HOUR)
    parts = registry.parts("P-1")
    assert [part.reserved for part in parts] == [M, None]
    assert spend(parts, registry.accounts()).mechanisms == (M,)
    assert registry.accounts()[0].spent == (M,)


TAMPERED = {
    "given back without a word": "DELETE FROM relinquishment",
    "a word without giving back": "UPDATE privacy_reservation SET state = 'spent' WHERE state = 'aborted'",
    "given back after it was begun": "UPDATE privacy_reservation SET begun_at = expires_at WHERE state = 'aborted'",
    "more given back than was reserved": "UPDATE privacy_account SET curve = (SELECT curve FROM privacy_reservation "
    "WHERE state = 'aborted')",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_whatever_is_changed_about_it_is_found(opened: tuple[Engine, SiteRegistry], what: str) -> None:
    engine, registry = opened
    registry.reserve(C, 1, "adult", M, T0, HOUR)
    registry.reserve(C, 2, "adult", Mechanism(4.0, 0.1, 2), T0, HOUR)
    registry.relinquish(C, 2, T0)
    registry.check()
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("DROP TRIGGER keep_relinquishment_delete"))
        else:
            connection.execute(text("SET session_replication_role = replica"))
        assert connection.execute(text(TAMPERED[what])).rowcount == 1
        with pytest.raises(BractError) as found:
            ledger.check(Session(connection))
        assert found.value.code == LOG
        connection.rollback()


def exported(registry: SiteRegistry) -> tuple[LedgerLine, ...]:
    parts = [unseal(LedgerExport, part, SIGNING.public_key()) for part in registry.ledger_export(T0)]
    assert [(part.part, part.parts, part.site) for part in parts] == [
        (place, len(parts), "ward") for place in range(1, len(parts) + 1)
    ]
    return tuple(line for part in parts for line in part.lines)


def test_an_export_tells_every_line_and_an_empty_ledger_has_one_part(registry: SiteRegistry) -> None:
    assert exported(registry) == ()
    less = Mechanism(2.0, 0.1, 7)
    first = registry.reserve(C, 1, "adult", M, T0, HOUR)
    registry.reserve(C, 2, "adult", less, T0, HOUR)
    registry.settle(C, 1, less, T0)
    one, two = exported(registry)
    assert one == LedgerLine(C, 1, first.name, "adult", M, "settled", T0 + HOUR, less)
    assert (two.state, two.spent) == ("reserved", None)


def test_an_older_version_believes_that_all_was_spent(opened: tuple[Engine, SiteRegistry]) -> None:
    """Down and up again: what was given back is charged again, so that nobody grants twice."""
    engine, registry = opened
    most = fill(registry)
    registry.relinquish(C, most, T0)
    _, newest = revisions(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS, f"-{int(newest or 0) - 4}")
    with engine.connect() as connection:
        states = connection.scalars(text("SELECT state FROM privacy_reservation ORDER BY number")).all()
    assert states == ["reserved"] * (most - 1) + ["spent"]
    migrate(engine, MIGRATIONS)
    registry.check()
    with refused(BUDGET):
        registry.reserve(OTHER, 1, "adult", M, T0, HOUR)
