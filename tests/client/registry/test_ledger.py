import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from bract.database import reading
from bract.digest import Digest, digest
from bract.errors import (
    BUDGET,
    DONE_BEFORE,
    LOG,
    NO_RESERVATION,
    OVERSPEND,
    REPLAY,
    STATE,
    UNKNOWN_DATASET,
    UNTRUSTED,
    BractError,
)
from bract.privacy.accounting import epsilon_of_curve, rdp_curve
from bract.privacy.budget import NOTHING, add, charge
from bract.privacy.spec import Mechanism
from bract.receipt import RoundReceipt
from bract.signing import Envelope, sign, unseal
from bract.update import Contribution, Reservation
from bract.value import plain
from bract_client.registry import ledger
from bract_client.registry.models import PrivacyAccount, ReservationRow
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import HOUR, SIGNING, T0, add_table, open_registry, persons, write_table

C = digest(b"campaign")
M = Mechanism(2.0, 0.1, 20)
FEWER = Mechanism(2.0, 0.1, 7)
CAP = 4.0


@pytest.fixture
def opened(database_url: str, tmp_path: Path) -> Iterator[tuple[Engine, SiteRegistry]]:
    engine, registry = open_registry(database_url)
    add_table(registry, write_table(tmp_path / "t.parquet", persons(40)), cap=CAP)
    yield engine, registry
    engine.dispose()


@pytest.fixture
def registry(opened: tuple[Engine, SiteRegistry]) -> SiteRegistry:
    return opened[1]


def refused(code: str) -> pytest.RaisesExc[BractError]:
    return pytest.RaisesExc(BractError, check=lambda error: error.code == code)


def affordable(mechanism: Mechanism = M) -> int:
    """How many such charges one serial ledger grants."""
    total, count = NOTHING, 0
    while True:
        total = add(total, rdp_curve(mechanism))
        if epsilon_of_curve(total, 1e-6) > CAP:
            return count
        count += 1


def contribution(reservation: Envelope, spent: Mechanism = M, key: Ed25519PrivateKey = SIGNING) -> Envelope:
    return sign(Contribution("ward", digest(b"plan"), digest(b"c"), reservation.name, spent, digest(b"u"), 10), key)


def test_reservations_stop_at_the_cap_and_are_signed_with_their_cost(registry: SiteRegistry) -> None:
    most = affordable()
    assert most >= 2
    costs = []
    for number in range(1, most + 1):
        envelope = registry.reserve(C, number, "adult", M, T0, HOUR)
        value = unseal(Reservation, envelope, SIGNING.public_key())
        costs.append(value.epsilon)
        assert (value.epsilon_cap, value.expires_at, value.mechanism) == (CAP, T0 + HOUR, M)
    assert costs == sorted(costs) and costs[-1] <= CAP
    with refused(BUDGET):
        registry.reserve(C, most + 1, "adult", M, T0, HOUR)
    assert registry.spent("adult") == (M,) * most
    registry.check()


def test_a_cap_that_the_policy_lowered_holds_from_the_next_reservation_on(registry: SiteRegistry) -> None:
    first = unseal(Reservation, registry.reserve(C, 1, "adult", M, T0, HOUR), SIGNING.public_key())
    with refused(BUDGET):
        registry.reserve(C, 2, "adult", M, T0, HOUR, cap=first.epsilon)
    lowered = unseal(Reservation, registry.reserve(C, 2, "adult", M, T0, HOUR, cap=CAP - 0.5), SIGNING.public_key())
    assert lowered.epsilon_cap == CAP - 0.5
    raised = unseal(Reservation, registry.reserve(C, 3, "adult", M, T0, HOUR, cap=CAP + 1), SIGNING.public_key())
    assert raised.epsilon_cap == CAP, "raising needs more than an edited file"


def test_the_same_round_reserves_once(registry: SiteRegistry) -> None:
    one = registry.reserve(C, 1, "adult", M, T0, HOUR)
    assert registry.reserve(C, 1, "adult", M, T0 + HOUR, HOUR) == one
    assert registry.spent("adult") == (M,)
    with refused(STATE):
        registry.reserve(C, 1, "adult", FEWER, T0, HOUR)
    with refused(UNKNOWN_DATASET):
        registry.reserve(C, 2, "other", M, T0, HOUR)


@pytest.mark.parametrize(
    "spent", [Mechanism(2.0, 0.1, 21), Mechanism(1.9, 0.1, 20), Mechanism(2.1, 0.1, 5), Mechanism(2.0, 0.05, 20)]
)
def test_more_or_other_than_reserved_is_an_overspend(registry: SiteRegistry, spent: Mechanism) -> None:
    registry.reserve(C, 1, "adult", M, T0, HOUR)
    with refused(OVERSPEND):
        registry.settle(C, 1, spent, T0)
    registry.check()


def test_settling_less_gives_nothing_back(registry: SiteRegistry) -> None:
    for number in range(1, affordable() + 1):
        registry.reserve(C, number, "adult", M, T0, HOUR)
        registry.settle(C, number, FEWER, T0)
        registry.settle(C, number, FEWER, T0)
        with refused(STATE):
            registry.settle(C, number, M, T0)
    with refused(BUDGET):
        registry.reserve(C, 99, "adult", M, T0, HOUR)
    with refused(NO_RESERVATION):
        registry.settle(C, 99, M, T0)
    registry.check()


def test_an_expired_reservation_is_spent(registry: SiteRegistry) -> None:
    registry.reserve(C, 1, "adult", M, T0, HOUR)
    with refused(NO_RESERVATION):
        registry.begin_training(C, 1, T0 + HOUR)
    with refused(STATE):
        registry.settle(C, 1, M, T0 + HOUR)
    registry.expire_reservations(T0 + HOUR)
    with refused(STATE):
        registry.settle(C, 1, M, T0)
    assert registry.spent("adult") == (M,)
    registry.check()


def test_a_round_is_trained_once_and_its_contribution_kept(registry: SiteRegistry) -> None:
    with refused(NO_RESERVATION):
        registry.begin_training(C, 1, T0)
    reservation = registry.reserve(C, 1, "adult", M, T0, HOUR)
    with refused(STATE):
        registry.keep_contribution(C, 1, contribution(reservation), T0)
    registry.begin_training(C, 1, T0)
    with refused(DONE_BEFORE):
        registry.begin_training(C, 1, T0)
    assert registry.trained(C, 1) is None
    mine = contribution(reservation)
    registry.keep_contribution(C, 1, mine, T0)
    registry.keep_contribution(C, 1, mine, T0 + 2 * HOUR)
    assert registry.trained(C, 1) == mine
    with refused(REPLAY):
        registry.keep_contribution(C, 1, contribution(reservation, FEWER), T0)
    with refused(DONE_BEFORE):
        registry.begin_training(C, 1, T0)


def test_a_foreign_or_overspent_contribution_is_not_kept(registry: SiteRegistry) -> None:
    reservation = registry.reserve(C, 1, "adult", M, T0, HOUR)
    other = registry.reserve(C, 2, "adult", FEWER, T0, HOUR)
    registry.begin_training(C, 1, T0)
    with refused(UNTRUSTED):
        registry.keep_contribution(C, 1, contribution(other), T0)
    with refused(UNTRUSTED):
        registry.keep_contribution(C, 1, contribution(reservation, key=Ed25519PrivateKey.generate()), T0)
    with refused(OVERSPEND):
        registry.keep_contribution(C, 1, contribution(reservation, Mechanism(2.0, 0.1, 21)), T0)
    assert registry.trained(C, 1) is None


def test_receipts_are_kept_once_and_only_of_the_hub(registry: SiteRegistry) -> None:
    hub = Ed25519PrivateKey.generate()
    mine = contribution(registry.reserve(C, 1, "adult", M, T0, HOUR))
    registry.begin_training(C, 1, T0)
    registry.keep_contribution(C, 1, mine, T0)

    def receipt(name: Digest, site: str = "ward", key: Ed25519PrivateKey = hub) -> Envelope:
        return sign(RoundReceipt(site, digest(b"plan"), name, digest(b"v"), 0.5, T0), key)

    assert registry.last_receipt() == 0
    registry.keep_receipt(7, receipt(mine.name), hub.public_key(), T0)
    registry.keep_receipt(7, receipt(mine.name), hub.public_key(), T0)
    assert registry.last_receipt() == 7
    for bad, code in [
        (receipt(mine.name, key=SIGNING), UNTRUSTED),
        (receipt(mine.name, "other"), UNTRUSTED),
        (receipt(digest(b"no")), STATE),
    ]:
        with refused(code):
            registry.keep_receipt(8, bad, hub.public_key(), T0)


def race(count: int, reserve: Callable[[int], object]) -> int:
    """How many of `count` reservations that start together are granted."""
    barrier = threading.Barrier(count)

    def one(number: int) -> bool:
        barrier.wait()
        try:
            reserve(number)
        except BractError as error:
            if error.code != BUDGET:
                raise
            return False
        return True

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(one, range(1, count + 1)))


BIG = Mechanism(2.0, 0.1, 60)


def test_reservations_that_race_grant_what_one_after_the_other_would(registry: SiteRegistry) -> None:
    most = affordable(BIG)
    assert 1 <= most <= 6
    assert race(10, lambda number: registry.reserve(C, number, "adult", BIG, T0, HOUR)) == most
    assert len(registry.spent("adult")) == most
    registry.check()


def test_the_race_catches_a_ledger_that_reads_before_it_locks(opened: tuple[Engine, SiteRegistry]) -> None:
    engine, registry = opened
    read = threading.Barrier(10)

    def broken(number: int) -> None:
        account = PrivacyAccount
        with Session(reading(engine)) as session:
            curve = session.scalars(select(account.curve).where(account.dataset == "adult")).one()
        total = charge(tuple(curve), BIG, CAP, 1e-6)
        read.wait()
        with Session(engine) as session, session.begin():
            session.execute(update(account).where(account.dataset == "adult").values(curve=list(total)))
            values = {"campaign": C, "number": number, "name": digest(b"%d" % number), "dataset": "adult"}
            values |= {"mechanism": plain(BIG), "curve": list(rdp_curve(BIG)), "envelope": b"", "state": "reserved"}
            session.execute(insert(ReservationRow), {**values, "expires_at": T0 + HOUR})

    assert race(10, broken) == 10 > affordable(BIG)
    with refused(LOG):
        registry.check()


def test_one_round_that_races_reserves_once(registry: SiteRegistry) -> None:
    barrier = threading.Barrier(8)

    def one(_: int) -> Envelope:
        barrier.wait()
        return registry.reserve(C, 1, "adult", M, T0, HOUR)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert registry.spent("adult") == (M,)


def test_one_training_of_a_round_starts_whatever_races(registry: SiteRegistry) -> None:
    registry.reserve(C, 1, "adult", M, T0, HOUR)
    barrier = threading.Barrier(6)

    def one(_: int) -> bool:
        barrier.wait()
        try:
            registry.begin_training(C, 1, T0)
        except BractError as error:
            return error.code != DONE_BEFORE
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(one, range(6))) == 1


STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "settle", "expire", "begin"]), st.integers(1, 4), st.integers(1, 40)),
    max_size=12,
)


@settings(max_examples=25, deadline=None)
@given(steps=STEPS)
def test_no_order_of_verbs_ever_under_counts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    engine, registry = open_registry(f"sqlite:///{folder / 'r.db'}")
    add_table(registry, folder / "none.parquet", cap=CAP)
    reserved: dict[int, Mechanism] = {}
    for place, (verb, number, count) in enumerate(steps):
        at, mechanism = T0 + place * HOUR, Mechanism(2.0, 0.1, count)
        try:
            if verb == "reserve":
                registry.reserve(C, number, "adult", mechanism, at, 3 * HOUR)
                reserved.setdefault(number, mechanism)
            elif verb == "settle":
                registry.settle(C, number, mechanism, at)
            elif verb == "expire":
                registry.expire_reservations(at)
            else:
                registry.begin_training(C, number, at)
        except BractError:
            pass
        assert registry.spent("adult") == tuple(reserved[one] for one in sorted(reserved))
        with Session(reading(engine)) as session:
            curve = session.scalars(select(PrivacyAccount.curve)).one()
            ledger.check(session)
        assert epsilon_of_curve(curve, 1e-6) <= CAP or not reserved
    engine.dispose()
