"""A site's bundle verifies anywhere and says nothing about a person."""

import json
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from bract.consent import Decision, Purpose
from bract.digest import digest
from bract.errors import LOG, BractError
from bract.log import archive, verify
from bract.privacy.spec import Mechanism
from bract.receipt import RoundReceipt
from bract.signing import key_id, sign
from bract.update import Contribution
from bract.value import digest_value
from bract_client.handles import handle
from bract_client.registry.bundle import COUNTS, harmless
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import HOUR, KEY, SIGNING, T0, add_table, campaign, open_registry, persons, write_table

HUB = Ed25519PrivateKey.from_private_bytes(b"h" * 32)
PEOPLE = 12


def journey(registry: SiteRegistry, folder: Path) -> None:
    """A data set, decisions, a round with its receipt, a withdrawal."""
    add_table(registry, write_table(folder / "Table of Ward 7.parquet", persons(PEOPLE)))
    registry.ingest("adult", T0)
    plan, number = campaign(), 1
    name = digest_value(plan)
    snapshot = registry.freeze("adult", Purpose.PRETRAINING, T0)
    clearance = registry.clearance(plan, number, snapshot, HOUR, 1, T0)
    spent = Mechanism(1.0, 0.1, 10)
    reservation = registry.reserve(name, number, "adult", spent, T0, HOUR)
    registry.begin_training(name, number, T0)
    value = Contribution("ward", digest(b"plan"), clearance.name, reservation.name, spent, digest(b"update"), 10)
    contribution = sign(value, SIGNING)
    registry.keep_contribution(name, number, contribution, T0)
    receipt = RoundReceipt("ward", value.plan, contribution.name, digest(b"version"), 0.5, T0)
    registry.keep_receipt(1, sign(receipt, HUB), HUB.public_key(), T0)
    registry.decide("P-3", Purpose.PRETRAINING, Decision.DENY, T0 + HOUR)
    registry.withdraw("P-4", T0 + HOUR)
    notice = registry.take_notice(T0 + 2 * HOUR, timedelta(minutes=1))
    assert notice is not None
    registry.checkpoint(T0 + 2 * HOUR)


def identifiers() -> list[bytes]:
    """Everything by which somebody could find one person: identifiers, handles in any spelling, record names."""
    found: list[bytes] = []
    for number in range(PEOPLE):
        key = handle(KEY, f"P-{number}")
        found += [f'"P-{number}"'.encode(), f'"r{number}"'.encode(), key, key.hex().encode()]
    return found


@pytest.mark.parametrize("counts", [False, True])
def test_a_sites_bundle_verifies_and_names_nobody(database_url: str, tmp_path: Path, counts: bool) -> None:
    engine, registry = open_registry(database_url)
    journey(registry, tmp_path)
    archive.write(tmp_path / "site.zip", registry.bundle(HUB.public_key(), counts=counts))
    done = verify.verify(tmp_path / "site.zip", fingerprint=key_id(SIGNING.public_key()))
    assert (done.side, done.origin, done.pinned) == ("site", "ward", True)
    assert done.signed == 4
    assert done.withheld >= 1
    data = (tmp_path / "site.zip").read_bytes()
    assert [one for one in identifiers() if one in data] == []
    assert b"Ward 7" not in data
    with zipfile.ZipFile(tmp_path / "site.zip") as read:
        withheld = set(json.loads(read.read("manifest.json"))["withheld"])
    assert "dataset.add" in withheld
    assert bool(withheld & COUNTS) is not counts
    assert (b'"records":12,"subjects":12' in data) is counts
    engine.dispose()


def test_the_detector_of_identifiers_finds_one(tmp_path: Path) -> None:
    archive.write(tmp_path / "bad.zip", [("log/bodies/000.p/1", b'{"body":{"who":"P-3"}}\n')])
    assert [one for one in identifiers() if one in (tmp_path / "bad.zip").read_bytes()] == [b'"P-3"']


def test_a_receipt_of_another_hub_is_found(database_url: str, tmp_path: Path) -> None:
    engine, registry = open_registry(database_url)
    journey(registry, tmp_path)
    archive.write(tmp_path / "site.zip", registry.bundle(Ed25519PrivateKey.generate().public_key()))
    with pytest.raises(BractError, match=r"\(receipt\.keep\): signed by another key") as refusal:
        verify.verify(tmp_path / "site.zip")
    assert refusal.value.code == LOG
    engine.dispose()


def test_only_names_digests_times_and_numbers_are_harmless() -> None:
    assert harmless(
        {"campaign": digest(b"x"), "number": 3, "at": "2026-03-01T00:00:00Z", "sites": ["north"], "no": None}
    )
    for bad in ("Jane Doe", "/data/a.csv", "ÄÖ", "P-3", "a" * 64, {"Jane": 1}, ["x", {"y": "1 of 3"}]):
        assert not harmless(bad)


@given(st.text(max_size=80))
def test_whatever_is_harmless_is_short_and_plain(text: str) -> None:
    if harmless(text):
        assert text == "" or (text.isascii() and " " not in text and len(text) <= 71)
