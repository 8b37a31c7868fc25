"""Words to the hub's registry: changed in their fields, signed by their true site, by another one or by a stranger."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import strategies as st

from bract.consent import RULE_DIGEST
from bract.database import open_engine
from bract.signing import Envelope, parse_envelope
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.hostile.attacks import _bend, held, json_bytes, seen, strike
from tests.hostile.oracle import RULES, sealed
from tests.migrated import migrated
from tests.server.registry.world import AT, MECHANISM, SITES, World, campaign_plan

SEEDS = st.integers(0, 2**64 - 1)


class Bench:
    """A registry with a round for `alder` to speak of; another one is begun when something was accepted."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        migrated(self.engine, MIGRATIONS)
        self.world = World(self.engine, HubRegistry(self.engine, Ed25519PrivateKey.generate()))
        for site in SITES:
            self.world.enrol(site)
        self.campaign = self.world.start(campaign_plan())
        self.number = 0
        self.keys = {**self.world.keys, "stranger": Ed25519PrivateKey.generate()}

    def proposed(self) -> None:
        """A round that waits for answers, in place of the one before."""
        if self.number:
            self.world.registry.abort_round(self.campaign, self.number, {}, AT)
        self.number = self.world.registry.propose(self.campaign, AT).number

    def opened(self) -> None:
        """A round that waits for contributions."""
        if self.number:
            self.world.registry.abort_round(self.campaign, self.number, {}, AT)
        self.number, envelope = self.world.open(self.campaign, *SITES)
        self.plan = envelope.name


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    one = Bench(f"sqlite:///{tmp_path / 'registry.db'}")
    yield one
    one.world.registry.verify_log()
    one.engine.dispose()


def attack(
    bench: Bench,
    valid: Callable[[], Envelope],
    take: Callable[[str, Envelope, datetime], Any],
    renew: Callable[[], None],
) -> Callable[[int], tuple[str, dict[str, Any]]]:
    """Reads a seed: bends the valid word, has it signed by somebody, and gives it to the registry."""
    renew()

    def read(seed: int) -> tuple[str, dict[str, Any]]:
        random, word = Random(seed), valid()
        data = _bend(json.loads(word.payload), random) if random.random() < 0.9 else json.loads(word.payload)
        signer = random.choice(("alder", "alder", "alder", "birch", "stranger"))
        envelope = parse_envelope(sealed(word.payload_type, json_bytes(data), bench.keys[signer]))
        take("alder", envelope, AT)
        told = {**data, "of": (bench.campaign, bench.number)}
        renew()
        return signer, told

    return read


def test_a_contribution_counts_only_from_its_site_for_its_place_within_its_reservation(bench: Bench) -> None:
    def valid() -> Envelope:
        return bench.world.contribution("alder", bench.campaign, bench.number, bench.plan)

    true: dict[str, Any] = {}

    def renew() -> None:
        bench.opened()
        true.update(json.loads(valid().payload))

    def right(_: int, said: tuple[str, dict[str, Any]]) -> bool:
        signer, told = said
        spent = told["spent"]
        return (
            signer == told["site"] == "alder"
            and RULES["Contribution"](told)
            and spent["noise_multiplier"] >= MECHANISM.noise_multiplier
            and spent["sampling_rate"] <= MECHANISM.sampling_rate
            and spent["steps"] <= MECHANISM.steps
        )

    read = attack(bench, valid, lambda site, envelope, at: bench.world.registry.accept(envelope, site, at), renew)
    held(strike("contributions to the registry", SEEDS, read, right, count=250))

    def unsigned(seed: int) -> tuple[str, dict[str, Any]]:
        return "stranger", true

    seen(strike("control", SEEDS, unsigned, right, count=10, record=False))


def test_a_clearance_holds_only_for_its_round_by_the_rule_and_for_a_day(bench: Bench) -> None:
    def right(_: int, said: tuple[str, dict[str, Any]]) -> bool:
        signer, told = said
        expires = datetime.fromisoformat(told["expires_at"])
        return (
            signer == told["site"] == "alder"
            and (told["campaign"], told["number"]) == told["of"]
            and (told["dataset"], told["purpose"], told["rule"]) == ("adult", "ssl-pretraining", RULE_DIGEST)
            and AT < expires <= AT + timedelta(hours=24)
        )

    valid = lambda: bench.world.clearance("alder", bench.campaign, bench.number)  # noqa: E731 - of the round of the moment
    read = attack(bench, valid, bench.world.registry.clear, bench.proposed)
    held(strike("clearances to the registry", SEEDS, read, right, count=300))


def test_a_reservation_holds_only_within_cap_and_plan(bench: Bench) -> None:
    def right(_: int, said: tuple[str, dict[str, Any]]) -> bool:
        signer, told = said
        mechanism = told["mechanism"]
        return (
            signer == told["site"] == "alder"
            and (told["campaign"], told["number"]) == told["of"]
            and told["dataset"] == "adult"
            and 0 <= told["epsilon"] <= told["epsilon_cap"]
            and mechanism["noise_multiplier"] >= MECHANISM.noise_multiplier
            and mechanism["sampling_rate"] <= MECHANISM.sampling_rate
            and mechanism["steps"] <= MECHANISM.steps
            and datetime.fromisoformat(told["expires_at"]) > AT
        )

    valid = lambda: bench.world.reservation("alder", bench.campaign, bench.number)  # noqa: E731 - as above
    read = attack(bench, valid, bench.world.registry.reserve, bench.proposed)
    held(strike("reservations to the registry", SEEDS, read, right, count=300))
