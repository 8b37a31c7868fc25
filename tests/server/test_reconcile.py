"""A site's ledger and the hub's, side by side: every way in which they may differ is told, and agreement is silence."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from bract.database import open_engine
from bract.digest import Digest
from bract.errors import MALFORMED, UNTRUSTED, BractError
from bract.privacy.accounting import rounded_up
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, sign, unseal
from bract.update import LedgerExport, LedgerLine
from bract_client.cli.main import app as site_app
from bract_client.home import create as create_site
from bract_client.home import open_home as open_site_home
from bract_client.registry import MIGRATIONS as SITE_MIGRATIONS
from bract_client.registry.store import SiteRegistry
from bract_client.site import open_registry as open_site_registry
from bract_server.cli.main import app
from bract_server.home import create
from bract_server.hub import open_registry
from bract_server.reconcile import (
    ONLY_HUB,
    ONLY_SITE,
    OTHER_MECHANISM,
    OTHER_STATE,
    UNDERSTATED,
    Difference,
    SiteLedger,
    differences,
    read_export,
)
from tests.client.site_world import KEY, add_table, write_table
from tests.migrated import migrated
from tests.server.registry.world import AT, MECHANISM, SITES, World, campaign_plan

HOUR = timedelta(hours=1)


@dataclass
class Pair:
    """A hub with its registry, the site alder with its own, and a proposed round."""

    hub: Path
    world: World
    site: SiteRegistry
    campaign: Digest

    def reserve(self, number: int, told: bool = True, **changes: Any) -> Envelope:
        asked: Any = {"mechanism": MECHANISM, "at": AT, "ttl": HOUR} | changes
        envelope = self.site.reserve(self.campaign, number, "adult", **asked)
        if told:
            self.world.registry.reserve("alder", envelope, AT)
        return envelope

    def next_round(self) -> int:
        for report in self.world.registry.rounds(self.campaign):
            if report.state in ("planned", "running"):
                self.world.registry.abort_round(self.campaign, report.number, {}, AT)
        return self.world.registry.propose(self.campaign, AT).number

    def exported(self) -> bytes:
        return b"".join(part.to_json() + b"\n" for part in self.site.ledger_export(AT))

    def found(self, hours: float = 0.0) -> tuple[Difference, ...]:
        theirs = read_export(self.exported(), {"alder": self.world.keys["alder"].public_key()})
        return differences(self.world.registry.accounts(), theirs, AT + hours * HOUR)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    home = create(tmp_path / "hub", name="hub", at=AT)
    registry = open_registry(home)
    world = World(registry._engine, registry)
    for site in SITES:
        world.enrol(site)
    engine = open_engine(f"sqlite:///{tmp_path / 'site.db'}")
    migrated(engine, SITE_MIGRATIONS)
    mine = SiteRegistry(engine, KEY, world.keys["alder"], "alder")
    add_table(mine, write_table(tmp_path / "t.parquet", []))
    yield Pair(home.root, world, mine, world.start(campaign_plan()))
    registry.verify_log()
    mine.check()
    registry._engine.dispose()
    engine.dispose()


def kinds(found: tuple[Difference, ...]) -> list[tuple[str, int]]:
    return [(one.kind, one.number) for one in found]


def test_ledgers_that_went_through_the_same_do_not_differ(pair: Pair) -> None:
    """Reserved, committed, expired, given back: at every moment, also before either has noted an expiry."""
    assert pair.found() == ()
    number, plan = pair.next_round(), None
    pair.reserve(number)
    pair.world.registry.clear("alder", pair.world.clearance("alder", pair.campaign, number), AT)
    pair.world.answer(pair.campaign, number, "birch")
    places = pair.world.registry.answers(pair.campaign, number, AT).places
    plan = pair.world.registry.open_round(pair.world.round_plan(pair.campaign, number, places), AT)
    pair.site.begin_training(pair.campaign, number, AT)
    sent = pair.world.contribution("alder", pair.campaign, number, plan.name, spent=replace(MECHANISM, steps=3))
    pair.site.keep_contribution(pair.campaign, number, sent, AT)
    pair.world.registry.accept(sent, "alder", AT)
    pair.reserve(pair.next_round())
    pair.reserve(pair.next_round())
    pair.site.relinquish(pair.campaign, 3, AT)
    (said,) = pair.site.relinquished()
    pair.world.registry.relinquish("alder", said, AT)
    for hours in (0, 0.5, 1, 2):
        assert pair.found(hours) == ()
    pair.world.registry.expire_reservations(AT + HOUR)
    assert pair.found(1) == ()
    pair.site.expire_reservations(AT + HOUR)
    assert pair.found(1) == ()
    assert [one for one in pair.world.registry.understated() if one.site == "alder"] == []
    assert [line.state for line in read(pair).lines] == ["settled", "spent", "aborted"]


def read(pair: Pair) -> SiteLedger:
    return read_export(pair.exported(), {"alder": pair.world.keys["alder"].public_key()})


def test_what_only_one_of_them_has_is_told(pair: Pair) -> None:
    pair.reserve(pair.next_round(), told=False)
    assert kinds(pair.found()) == [(ONLY_SITE, 1)]
    pair.site.relinquish(pair.campaign, 1, AT)
    assert pair.found() == (), "what never came to the hub and was given back costs nothing anywhere"
    number = pair.next_round()
    forged = pair.world.reservation("alder", pair.campaign, number, delta=1e-6)
    pair.world.registry.reserve("alder", forged, AT)
    assert kinds(pair.found()) == [(ONLY_HUB, 2)]


def test_another_mechanism_or_state_is_told(pair: Pair) -> None:
    number = pair.next_round()
    pair.reserve(number, told=False)
    pair.world.registry.reserve("alder", pair.world.reservation("alder", pair.campaign, number, delta=1e-6), AT)
    assert kinds(pair.found()) == [(OTHER_MECHANISM, 1)], "the same mechanism under another signed reservation"
    tighter = Mechanism(3.0, 0.05, 20)
    number = pair.next_round()
    pair.reserve(number, told=False)
    other = pair.world.reservation("alder", pair.campaign, number, mechanism=tighter, delta=1e-6)
    pair.world.registry.reserve("alder", other, AT)
    assert kinds(pair.found())[1:] == [(OTHER_MECHANISM, 2)]
    pair.reserve(pair.next_round())
    pair.site.relinquish(pair.campaign, 3, AT)
    (last,) = pair.found()[2:]
    assert (last.kind, last.number, last.at_hub[:8], last.at_site[:7]) == (OTHER_STATE, 3, "reserved", "aborted")


def test_a_site_whose_ledger_was_put_back_is_found_by_its_own_words(pair: Pair, tmp_path: Path) -> None:
    pair.reserve(pair.next_round())
    engine = open_engine(f"sqlite:///{tmp_path / 'old.db'}")
    migrated(engine, SITE_MIGRATIONS)
    forgetful = SiteRegistry(engine, KEY, pair.world.keys["alder"], "alder")
    add_table(forgetful, tmp_path / "none.parquet")
    pair.site, kept = forgetful, pair.site
    pair.reserve(pair.next_round())
    (one,) = pair.world.registry.understated()
    assert (one.site, one.number) == ("alder", 2) and one.at_site < one.at_hub
    assert kinds(pair.found()) == [(ONLY_HUB, 1)]
    pair.site = kept
    engine.dispose()
    assert CliRunner().invoke(app, ["ledger", "reconcile", "--hub", str(pair.hub)]).exit_code == 1


def test_an_export_must_be_whole_and_the_sites_own(pair: Pair) -> None:
    keys = {"alder": pair.world.keys["alder"].public_key(), "birch": pair.world.keys["birch"].public_key()}
    line = LedgerLine(pair.campaign, 1, pair.campaign, "adult", MECHANISM, "reserved", AT)

    def part(number: int, of: int, site: str = "alder", key: Ed25519PrivateKey | None = None, hours: int = 0) -> bytes:
        value = LedgerExport(site, AT + hours * HOUR, number, of, (line,))
        return sign(value, key or pair.world.keys[site]).to_json() + b"\n"

    assert len(read_export(part(1, 2) + part(2, 2), keys).lines) == 2
    wrong = {
        b"": MALFORMED,
        b"{}\n": MALFORMED,
        part(1, 2): MALFORMED,
        part(2, 2) + part(1, 2): MALFORMED,
        part(1, 2) + part(2, 2, hours=1): MALFORMED,
        part(1, 2) + part(2, 2, "birch"): MALFORMED,
        part(1, 1, "cedar"): MALFORMED,
        part(1, 1, key=pair.world.keys["birch"]): UNTRUSTED,
    }
    for data, code in wrong.items():
        with pytest.raises(BractError) as refused:
            read_export(data, keys)
        assert refused.value.code == code


def test_the_commands_tell_the_same(pair: Pair, tmp_path: Path) -> None:
    export = tmp_path / "alder.ledger"
    pair.reserve(pair.next_round())
    export.write_bytes(pair.exported())
    arguments = ["ledger", "reconcile", "--hub", str(pair.hub), "--site", str(export)]
    same = CliRunner().invoke(app, arguments)
    assert (same.exit_code, "No difference" in same.stdout) == (0, True)
    pair.reserve(pair.next_round(), told=False)
    export.write_bytes(pair.exported())
    differs = CliRunner().invoke(app, [*arguments, "--json"])
    assert differs.exit_code == 1
    assert [(one["kind"], one["number"]) for one in json.loads(differs.stdout)] == [(ONLY_SITE, 2)]
    assert "the ledgers differ" in CliRunner().invoke(app, arguments).stdout
    (listed,) = json.loads(CliRunner().invoke(app, ["ledger", "list", "--hub", str(pair.hub), "--json"]).stdout)
    (mine,) = pair.world.registry.accounts()
    assert (listed["site"], listed["epsilon"]) == ("alder", rounded_up(mine.epsilon()))
    alone = {"alone": listed["epsilon"], "cumulative": listed["epsilon"], "bound": listed["epsilon_bound"]}
    assert listed["years"] == [{"year": 2026, "count": 1, **alone}]
    assert (listed["remaining"], len(listed["open"])) == (mine.remaining(), 1)
    shown = CliRunner().invoke(app, ["ledger", "list", "--hub", str(pair.hub)], env={"COLUMNS": "200"}).stdout
    assert "alder" in shown and "2026: " in shown and UNDERSTATED not in shown


def test_a_site_writes_its_own_export(tmp_path: Path) -> None:
    home = create_site(tmp_path / "clinic", name="clinic")
    registry = open_site_registry(open_site_home(tmp_path / "clinic"))
    add_table(registry, tmp_path / "none.parquet")
    registry.reserve(Digest("sha256:" + "1" * 64), 1, "adult", MECHANISM, AT, HOUR)
    out = tmp_path / "clinic.ledger"
    done = CliRunner().invoke(site_app, ["ledger", "--export", str(out), "--site", str(home.root), "--json"])
    assert json.loads(done.stdout) == {"export": str(out), "parts": 1}
    key = home.signing_key().public_key()
    theirs = read_export(out.read_bytes(), {"clinic": key})
    assert (theirs.site, [line.mechanism for line in theirs.lines]) == ("clinic", [MECHANISM])
    assert unseal(LedgerExport, registry.ledger_export(AT)[0], key).lines == theirs.lines
