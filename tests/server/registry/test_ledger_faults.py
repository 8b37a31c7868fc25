"""A site that speaks for another, replaced rows, hostile names and a full disk leave the hub's books whole."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from bract.digest import Digest
from bract.errors import DISK, UNTRUSTED, BractError
from bract.plan import CampaignPlan
from bract.signing import Envelope, sign
from bract.update import Clearance, Contribution, Refusal, Relinquishment, Reservation, WithdrawalNotice
from bract.value import decode, encode
from bract_server.door import speaking_for
from bract_server.registry.models import MUTABLE
from tests.hostile_names import HOSTILE
from tests.server.registry.world import AT, World, campaign_plan, named
from tests.small_disk import on_small_disk

Take = Callable[[str, Envelope], object]


def words(world: World, campaign: Digest, plan: Digest, signer: str, about: str) -> dict[type[Any], Envelope]:
    """What a site may say in a round, signed by one about another."""
    mine = {place.site: place for place in world.registry.answers(campaign, 1, AT).places}[about]
    return {
        Clearance: world.clearance(signer, campaign, 2, site=about),
        Reservation: world.reservation(signer, campaign, 2, site=about),
        Refusal: sign_refusal(world, signer, about, campaign),
        Relinquishment: world.relinquishment(signer, campaign, 1, mine.reservation, site=about),
        WithdrawalNotice: sign_notice(world, signer, about),
        Contribution: sign_contribution(world, signer, about, plan, mine.clearance, mine.reservation),
    }


def sign_refusal(world: World, signer: str, about: str, campaign: Digest) -> Envelope:
    return _signed(world, signer, Refusal(about, campaign, 2, DISK))


def sign_notice(world: World, signer: str, about: str) -> Envelope:
    return _signed(world, signer, WithdrawalNotice(about, "n-9", (named(f"snapshot {about}"),), AT))


def sign_contribution(
    world: World, signer: str, about: str, plan: Digest, clearance: Digest, reservation: Digest
) -> Envelope:
    mechanism = campaign_plan().privacy.mechanism
    value = Contribution(about, plan, clearance, reservation, mechanism, named("update"), 1000)
    return _signed(world, signer, value)


def _signed(world: World, signer: str, value: Any) -> Envelope:
    return sign(value, world.keys[signer])


def verbs(world: World) -> dict[type[Any], Take]:
    registry = world.registry
    return {
        Clearance: lambda site, said: registry.clear(site, said, AT),
        Reservation: lambda site, said: registry.reserve(site, said, AT),
        Refusal: lambda site, said: registry.refuse(site, said, AT),
        Relinquishment: lambda site, said: registry.relinquish(site, said, AT),
        WithdrawalNotice: lambda site, said: registry.withdraw(site, said, AT),
        Contribution: lambda site, said: registry.accept(said, site, AT),
    }


def test_no_site_speaks_for_another_at_any_verb(world: World, campaign: Digest) -> None:
    """Signed by birch about alder, or by alder and delivered as birch: nothing is taken, whoever delivers it."""
    _, plan = world.open(campaign, "alder", "birch")
    before = world.registry.verify_log().entries
    cases = [
        ("birch", "alder", "alder"),  # who signs, whom it is about, as whom it is delivered
        ("birch", "alder", "birch"),
        ("alder", "alder", "birch"),
        ("cedar", "alder", "alder"),
    ]
    for signer, about, delivered in cases:
        said = words(world, campaign, plan.name, signer, about)
        for kind, take in verbs(world).items():
            with pytest.raises(BractError) as refused:
                take(delivered, said[kind])
            assert refused.value.code == UNTRUSTED, (kind.__name__, signer, about, delivered)
    assert world.registry.verify_log().entries == before


def test_the_door_turns_away_who_speaks_for_another_before_any_verb(world: World, campaign: Digest) -> None:
    _, plan = world.open(campaign, "alder", "birch")
    for kind, said in words(world, campaign, plan.name, "alder", "alder").items():
        assert speaking_for("alder", kind, said.to_json()) == said
        with pytest.raises(BractError) as refused:
            speaking_for("birch", kind, said.to_json())
        assert refused.value.code == UNTRUSTED
        other = Refusal if kind is not Refusal else Clearance
        with pytest.raises(BractError) as refused:
            speaking_for("alder", other, said.to_json())
        assert refused.value.code == UNTRUSTED


KEPT = ("reservation", "privacy_entry", "relinquishment", "clearance", "refusal", "contribution", "log_entry")


def test_no_row_is_replaced_by_way_of_an_insert(world: World, campaign: Digest) -> None:
    """`INSERT OR REPLACE` deletes, and `ON CONFLICT DO UPDATE` updates: both ask the triggers."""
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    world.registry.abort_round(campaign, number, {}, AT)
    world.registry.propose(campaign, AT)
    reservation = world.reservation("cedar", campaign, 2)
    world.registry.reserve("cedar", reservation, AT)
    world.registry.relinquish("cedar", world.relinquishment("cedar", campaign, 2, reservation.name), AT)
    world.registry.refuse("birch", world.refusal("birch", campaign, 2, DISK), AT)
    for table in (*KEPT, "privacy_account"):
        names = [column["name"] for column in inspect(world.engine).get_columns(table)]
        key = inspect(world.engine).get_pk_constraint(table)["constrained_columns"]
        columns = ", ".join(names)
        if world.engine.dialect.name == "sqlite":
            statement = f"INSERT OR REPLACE INTO {table} ({columns}) SELECT {columns} FROM {table} LIMIT 1"  # noqa: S608
        else:
            last = next(name for name in names if name not in MUTABLE.get(table, ()))
            statement = (
                f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} LIMIT 1 "  # noqa: S608
                f"ON CONFLICT ({', '.join(key)}) DO UPDATE SET {last} = EXCLUDED.{last}"
            )
        with pytest.raises(IntegrityError, match="keeps its rows"), world.engine.begin() as connection:
            connection.execute(text(statement))


def test_a_hostile_name_is_refused_wherever_a_site_may_send_one(world: World, campaign: Digest) -> None:
    """A payload's names have one form; what is not of it is no clearance, reservation or notice at all."""
    world.registry.propose(campaign, AT)
    before = world.registry.verify_log().entries
    for name in HOSTILE:
        for take, said in (
            (world.registry.clear, world.clearance("alder", campaign, 1, dataset=name)),
            (world.registry.reserve, world.reservation("alder", campaign, 1, dataset=name)),
            (world.registry.reserve, world.reservation("alder", campaign, 1, site=name)),
            (world.registry.relinquish, world.relinquishment("alder", campaign, 1, named("r"), site=name)),
        ):
            with pytest.raises(BractError):
                take("alder", said, AT)
        with pytest.raises(BractError):
            decode(CampaignPlan, encode(campaign_plan(name)))
    assert world.registry.verify_log().entries == before
    assert world.registry.accounts() == ()
    assert inspect(world.engine).has_table("privacy_account")


FULL = """
import json, sys
from pathlib import Path
from bract.database import open_engine
from bract.errors import BractError
from tests.server.registry.killed_hub_verbs import C, prepare, world
from tests.server.registry.world import AT, campaign_plan

folder = Path(sys.argv[1])
url = f"sqlite:///{folder / 'h.db'}"
(folder / "junk").write_bytes(bytes(300_000))
prepare(url)
engine = open_engine(url)
made = world(engine)
codes, number, taken = [], 0, 0
while not codes and number < 2000:
    number += 1
    try:
        campaign = made.start(campaign_plan(f"c{number}"))
        made.registry.propose(campaign, AT)
        envelope = made.reservation("alder", campaign, 1, epsilon_cap=1000.0)
        made.registry.reserve("alder", envelope, AT)
        last, taken = (campaign, envelope), taken + 1
    except BractError as error:
        codes.append(error.code)
for verb in (
    lambda: made.registry.relinquish("alder", made.relinquishment("alder", last[0], 1, last[1].name), AT),
    lambda: made.registry.clear("birch", made.clearance("birch", last[0], 1), AT),
):
    try:
        verb()
    except BractError as error:
        codes.append(error.code)
engine.dispose()
(folder / "junk").unlink()
made = world(open_engine(url))
made.registry.verify_log()
(account,) = made.registry.accounts()
made.registry.relinquish("alder", made.relinquishment("alder", last[0], 1, last[1].name), AT)
(after,) = made.registry.accounts()
made.registry.verify_log()
print(json.dumps({"codes": codes, "taken": taken, "held": len(account.counted), "after": len(after.counted)}))
"""


def test_a_full_disk_takes_nothing_that_it_does_not_keep(tmp_path: Path) -> None:
    told = json.loads(on_small_disk(tmp_path / "disk", 2500, FULL))
    assert told["codes"] == [DISK] * 3
    assert told["held"] == told["taken"] > 1 and told["after"] == told["held"] - 1
