"""The hub's own account: what a site reserved is charged once, ends once, and adds up."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select, text
from sqlalchemy.orm import Session

from bract.database import open_engine
from bract.digest import Digest
from bract.errors import (
    BUDGET,
    LATE,
    NO_RESERVATION,
    STATE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.errors import LOG as INCONSISTENT
from bract.migrations import migrate, revisions
from bract.privacy.accounting import epsilon, epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add
from bract.privacy.spec import Mechanism
from bract_server.registry import MIGRATIONS, balance
from bract_server.registry.ledger import LedgerAccount
from bract_server.registry.models import AccountRow
from bract_server.registry.store import HubRegistry
from tests.server.registry.world import AT, MECHANISM, SITES, World, campaign_plan, named

HOUR = timedelta(hours=1)


def refused(code: str) -> pytest.RaisesExc[BractError]:
    return pytest.RaisesExc(BractError, check=lambda error: error.code == code)


def account(world: World, site: str = "alder") -> LedgerAccount:
    return next(one for one in world.registry.accounts() if one.site == site)


def reserved(world: World, campaign: Digest, number: int, site: str = "alder", **changes: Any) -> Digest:
    envelope = world.reservation(site, campaign, number, **changes)
    world.registry.reserve(site, envelope, AT)
    return envelope.name


def next_round(world: World, campaign: Digest) -> int:
    for report in world.registry.rounds(campaign):
        if report.state in ("planned", "running"):
            world.registry.abort_round(campaign, report.number, {}, AT)
    return world.registry.propose(campaign, AT).number


def total(mechanisms: tuple[Mechanism, ...]) -> float:
    curve = NOTHING
    for mechanism in mechanisms:
        curve = add(curve, rdp_curve(mechanism))
    return epsilon_of_curve(curve, 1e-5)


def test_an_account_opens_with_its_first_reservation_and_adds_up(world: World, campaign: Digest) -> None:
    assert world.registry.accounts() == ()
    for _ in range(3):
        reserved(world, campaign, next_round(world, campaign))
    one = account(world)
    assert (one.site, one.dataset, one.unit, one.cap_epsilon, one.delta) == ("alder", "adult", "subject", 8.0, 1e-5)
    assert one.counted == (MECHANISM,) * 3
    assert one.bound() == total(one.counted)
    assert one.epsilon() == epsilon(one.counted, 1e-5) <= one.bound()
    assert one.remaining() == 8.0 - one.bound()
    assert [c.number for c in one.open] == [1, 2, 3]


def test_the_hub_refuses_what_its_own_account_cannot_bear_though_the_site_grants_it(
    world: World, campaign: Digest
) -> None:
    """As a site would whose ledger was put back from an old backup: it says it has spent little."""
    big = replace(MECHANISM, noise_multiplier=1.2)
    cap = total((big, big))
    for _ in range(2):
        reserved(world, campaign, next_round(world, campaign), epsilon=1.0, epsilon_cap=cap)
    before = account(world)
    with refused(BUDGET):
        reserved(world, campaign, next_round(world, campaign), epsilon=1.0, epsilon_cap=cap)
    assert account(world) == before
    reserved(world, campaign, 3, site="birch", epsilon_cap=cap)
    reserved(world, campaign, 3, epsilon_cap=total((big, big, big)))
    assert account(world).cap_epsilon > cap, "the site may raise its own cap, and every entry tells which it was"


def test_an_account_keeps_its_delta(world: World, campaign: Digest) -> None:
    reserved(world, campaign, next_round(world, campaign))
    with refused(STATE):
        reserved(world, campaign, next_round(world, campaign), delta=1e-3)


def test_an_accepted_contribution_commits_and_gives_nothing_back(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    fewer = replace(MECHANISM, steps=7)
    sent = world.contribution("alder", campaign, number, plan.name, spent=fewer)
    world.registry.accept(sent, "alder", AT)
    (charge,) = account(world).charges
    assert (charge.state, charge.mechanism, charge.spent, charge.ended_at) == ("committed", MECHANISM, fewer, AT)
    assert account(world).counted == (MECHANISM,)
    assert account(world, "birch").open


def test_what_was_never_begun_is_given_back_once_and_its_round_is_closed_to_the_site(
    world: World, campaign: Digest
) -> None:
    number = next_round(world, campaign)
    world.answer(campaign, number, "alder", "birch")
    places = world.registry.answers(campaign, number, AT).places
    name = next(place.reservation for place in places if place.site == "alder")
    said = world.relinquishment("alder", campaign, number, name)
    world.registry.relinquish("alder", said, AT)
    entries = world.registry.verify_log().entries
    world.registry.relinquish("alder", said, AT + HOUR)
    assert world.registry.verify_log().entries == entries
    with refused(STATE):
        again = world.relinquishment("alder", campaign, number, name, relinquished_at=AT + HOUR)
        world.registry.relinquish("alder", again, AT)
    assert account(world).counted == world.registry.spent("alder", "adult") == ()
    assert account(world).bound() == 0.0
    assert world.registry.answers(campaign, number, AT).refusals == {"alder": NO_RESERVATION}
    with refused(NO_RESERVATION):
        world.registry.open_round(world.round_plan(campaign, number, places), AT)


def test_what_was_given_back_makes_room_for_exactly_as_much(world: World, campaign: Digest) -> None:
    cap = total((MECHANISM, MECHANISM))
    names = [reserved(world, campaign, next_round(world, campaign), epsilon_cap=cap) for _ in range(2)]
    world.registry.relinquish("alder", world.relinquishment("alder", campaign, 2, names[1]), AT)
    reserved(world, campaign, next_round(world, campaign), epsilon_cap=cap)
    with refused(BUDGET):
        reserved(world, campaign, next_round(world, campaign), epsilon_cap=cap)
    assert [c.state for c in account(world).charges] == ["reserved", "aborted", "reserved"]


def test_nothing_is_given_back_after_anything_came(world: World, campaign: Digest) -> None:
    """Accepted, or rejected for whatever reason: an update had left."""
    number, plan = world.open(campaign, "alder", "birch")
    names = {place.site: place.reservation for place in world.registry.answers(campaign, number, AT).places}
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    world.registry.reject("birch", campaign, number, LATE, None, AT)
    for site in ("alder", "birch"):
        with refused(STATE):
            world.registry.relinquish(site, world.relinquishment(site, campaign, number, names[site]), AT)
        assert account(world, site).counted == (MECHANISM,)


def test_a_contribution_under_a_reservation_that_was_given_back_is_refused(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    places = {place.site: place.reservation for place in world.registry.answers(campaign, number, AT).places}
    sent = world.contribution("alder", campaign, number, plan.name)
    world.registry.relinquish("alder", world.relinquishment("alder", campaign, number, places["alder"]), AT)
    with refused(NO_RESERVATION):
        world.registry.accept(sent, "alder", AT)
    assert world.registry.contributions(campaign, number) == ()


def test_what_expired_is_spent_for_good(world: World, campaign: Digest) -> None:
    name = reserved(world, campaign, next_round(world, campaign))
    assert world.registry.expire_reservations(AT) == 0
    with refused(STATE):
        world.registry.relinquish("alder", world.relinquishment("alder", campaign, 1, name), AT + HOUR)
    assert world.registry.expire_reservations(AT + HOUR) == 1
    assert world.registry.expire_reservations(AT + HOUR) == 0
    with refused(STATE):  # a clock that was put back brings nothing back
        world.registry.relinquish("alder", world.relinquishment("alder", campaign, 1, name), AT)
    assert account(world).counted == (MECHANISM,)
    assert [c.state for c in account(world).charges] == ["expired"]


def test_only_the_site_itself_gives_its_reservation_back(world: World, campaign: Digest) -> None:
    name = reserved(world, campaign, next_round(world, campaign))
    wrong: list[tuple[str, Any, str]] = [
        ("alder", world.relinquishment("birch", campaign, 1, name, site="alder"), UNTRUSTED),
        ("birch", world.relinquishment("birch", campaign, 1, name), NO_RESERVATION),
        ("birch", world.relinquishment("birch", campaign, 1, name, site="alder"), UNTRUSTED),
        ("alder", world.relinquishment("alder", campaign, 2, name), NO_RESERVATION),
        ("alder", world.relinquishment("alder", campaign, 1, named("x")), NO_RESERVATION),
        ("alder", world.reservation("alder", campaign, 1), UNTRUSTED),
    ]
    for site, envelope, code in wrong:
        with refused(code):
            world.registry.relinquish(site, envelope, AT)
    world.registry.revoke_site("alder", AT)
    with refused(UNKNOWN_SITE):
        world.registry.relinquish("alder", world.relinquishment("alder", campaign, 1, name), AT)
    assert account(world).counted == (MECHANISM,)


def test_accounts_are_told_as_they_stood(world: World, campaign: Digest) -> None:
    name = reserved(world, campaign, next_round(world, campaign))
    world.registry.relinquish("alder", world.relinquishment("alder", campaign, 1, name), AT + HOUR / 2)
    (then,), (now,) = world.registry.accounts(AT), world.registry.accounts()
    assert (then.counted, now.counted) == ((MECHANISM,), ())
    assert world.registry.accounts(AT - HOUR) == ()


def test_a_clock_that_was_set_back_ends_no_account_before_it_began(world: World, campaign: Digest) -> None:
    number = world.registry.propose(campaign, AT).number
    world.answer(campaign, number, "alder", "birch", at=AT + HOUR / 2)
    places = world.registry.answers(campaign, number, AT).places
    opened = world.registry.open_round(world.round_plan(campaign, number, places), AT)
    world.registry.accept(world.contribution("alder", campaign, number, opened.name), "alder", AT)
    assert world.registry.accounts(AT + HOUR / 4) == ()
    (alder, _) = world.registry.accounts(AT + HOUR)
    assert [(one.state, one.mechanism) for one in alder.charges] == [("committed", MECHANISM)]


def test_a_year_is_told_alone_and_with_all_before_it(world: World, campaign: Digest) -> None:
    for year in (2026, 2027, 2027):
        number, at = next_round(world, campaign), datetime(year, 6, 1, tzinfo=UTC)
        world.registry.reserve("alder", world.reservation("alder", campaign, number, expires_at=at + HOUR), at)
    first, second = account(world).years()
    assert [(y.year, y.count) for y in (first, second)] == [(2026, 1), (2027, 2)]
    assert first.alone == first.cumulative == epsilon([MECHANISM], 1e-5)
    assert (second.alone, second.cumulative) == (epsilon([MECHANISM] * 2, 1e-5), epsilon([MECHANISM] * 3, 1e-5))
    assert second.cumulative < first.cumulative + second.alone


def _past_the_triggers(world: World, change: Callable[[Connection], None]) -> None:
    """Change the database as its owner could, look, and take it back."""
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
        connection.rollback()


TAMPERED = {
    "an account that says it spent nothing": "UPDATE privacy_account SET curve = :nothing",
    "another cap": "UPDATE privacy_account SET cap_epsilon = 80",
    "a charge that was never made": "DELETE FROM privacy_entry WHERE state = 'reserved' AND site = 'alder'",
    "a cheaper charge": "UPDATE privacy_entry SET curve = :nothing WHERE state = 'reserved' AND site = 'birch'",
    "more noise than was reserved": "UPDATE privacy_entry SET noise_multiplier = 9 WHERE state = 'reserved'",
    "fewer steps in the reservation": "UPDATE reservation SET steps = 1",
    "fewer steps in what was spent": "UPDATE privacy_entry SET steps = 1 WHERE state = 'committed'",
    "given back without a word": "UPDATE privacy_entry SET state = 'aborted' WHERE state = 'committed'",
    "a word that was lost": "DELETE FROM relinquishment",
    "a contribution that was lost": "DELETE FROM contribution",
    "expired before its time": "UPDATE privacy_entry SET at = :early WHERE state = 'expired'",
    "another site's entry": "UPDATE privacy_entry SET site = 'cedar' WHERE site = 'birch'",
}


def test_whatever_is_changed_in_the_books_is_found(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    name = reserved(world, campaign, next_round(world, campaign), "cedar")
    world.registry.relinquish("cedar", world.relinquishment("cedar", campaign, 2, name), AT)
    world.registry.expire_reservations(AT + HOUR)
    world.registry.verify_log()
    values = {"nothing": json.dumps(list(NOTHING)), "early": AT - HOUR}
    for what, statement in TAMPERED.items():

        def change(connection: Connection, statement: str = statement, what: str = what) -> None:
            asked = {key: value for key, value in values.items() if f":{key}" in statement}
            if connection.dialect.name == "postgresql":
                statement = statement.replace(":nothing", "CAST(:nothing AS JSONB)")
            elif "early" in asked:
                asked["early"] = str((AT - HOUR).replace(tzinfo=None))
            assert connection.execute(text(statement), asked).rowcount >= 1, what
            with pytest.raises(BractError, match="ledger") as found:
                balance.check(Session(connection))
            assert found.value.code == INCONSISTENT, what

        _past_the_triggers(world, change)
    world.registry.verify_log()


def test_two_ends_of_one_reservation_cannot_be_written(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    columns = (
        "reservation_id, site, dataset, unit, noise_multiplier, sampling_rate, steps, curve, cap_epsilon, evidence"
    )
    twice = (
        f"INSERT INTO privacy_entry (seq, state, at, {columns}) "  # noqa: S608 - our own names
        f"SELECT 99, 'aborted', at, {columns} FROM privacy_entry WHERE state = 'committed'"
    )
    with pytest.raises(Exception, match=r"(?i)unique"), world.engine.begin() as connection:
        connection.execute(text(twice))
    with world.engine.connect() as connection:
        assert connection.scalar(select(AccountRow.cap_epsilon).where(AccountRow.site == "alder")) == 8.0


def test_a_hub_of_before_gets_its_accounts_from_what_it_took(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS)
    world = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        world.enrol(site)
    campaign = world.start(campaign_plan())
    number, plan = world.open(campaign, "alder", "birch")
    sent = world.contribution("alder", campaign, number, plan.name, spent=replace(MECHANISM, steps=3))
    world.registry.accept(sent, "alder", AT)
    reserved(world, campaign, next_round(world, campaign), epsilon_cap=9.0)
    columns = "site, dataset, unit, state, noise_multiplier, sampling_rate, steps, curve, cap_epsilon, evidence, at"
    asked = (
        f"SELECT reservation_id, {columns} FROM privacy_entry ORDER BY reservation_id, state DESC",  # noqa: S608
        "SELECT site, dataset, unit, cap_epsilon, delta, curve FROM privacy_account ORDER BY site",
    )

    def books() -> list[list[Any]]:
        with engine.connect() as connection:
            return [[list(row) for row in connection.execute(text(one))] for one in asked]

    before = books()
    assert [len(rows) for rows in before] == [4, 2]
    _, newest = revisions(engine, MIGRATIONS)
    migrate(engine, MIGRATIONS, f"-{int(newest or 0) - 2}")
    migrate(engine, MIGRATIONS, "0003")
    assert books() == before
    engine.dispose()


def test_campaigns_of_one_data_set_share_its_account(world: World, campaign: Digest) -> None:
    other = world.start(campaign_plan("lung"))
    reserved(world, campaign, next_round(world, campaign))
    reserved(world, other, next_round(world, other))
    assert account(world).counted == (MECHANISM,) * 2
    assert {charge.campaign for charge in account(world).charges} == {campaign, other}
