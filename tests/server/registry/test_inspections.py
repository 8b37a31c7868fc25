"""What a backdoor check finds is kept with its round, and the last of a round is what counts."""

from functools import partial

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from bract.digest import Digest
from bract.errors import STATE, BractError
from bract_server.registry.models import LOG, InspectionRow
from bract_server.registry.views import Inspection
from tests.server.registry.world import AT, SITES, World


def entries(world: World) -> int:
    with world.registry.seeing() as session:
        return len(session.scalars(select(LOG.entry.c.seq).where(LOG.entry.c.kind == "round.inspect")).all())


def test_an_inspection_is_kept_once_and_another_of_other_updates_counts_instead(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, *SITES)
    for site in SITES:
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    assert world.registry.rounds(campaign)[0].inspection is None
    keep = partial(world.registry.keep_inspection, campaign, number, at=AT)
    for _ in range(2):  # a hub that was killed between the check and the round's end looks again
        keep({"cedar": 0.75, "birch": 0.0, "alder": 0.015625}, ["cedar"], excluded=True)
    first = Inspection({"alder": 0.015625, "birch": 0.0, "cedar": 0.75}, ("cedar",), True)
    assert (world.registry.rounds(campaign)[0].inspection, entries(world)) == (first, 1)
    keep({"alder": 0.0, "birch": 0.25}, [], excluded=False)
    assert (world.registry.rounds(campaign)[0].inspection, entries(world)) == (
        Inspection({"alder": 0.0, "birch": 0.25}, (), False),
        2,
    )
    world.commit(campaign, number)
    with pytest.raises(BractError) as caught:
        keep({"alder": 1.0}, ["alder"], excluded=False)
    assert caught.value.code == STATE
    assert world.registry.rounds(campaign)[0].inspection == Inspection({"alder": 0.0, "birch": 0.25}, (), False)


@pytest.mark.parametrize("change", ["UPDATE round_inspection SET flagged = '[]'", "DELETE FROM round_inspection"])
def test_what_was_found_is_never_changed(world: World, campaign: Digest, change: str) -> None:
    number, _ = world.open(campaign, *SITES)
    world.registry.keep_inspection(campaign, number, {"alder": 0.9}, ["alder"], excluded=True, at=AT)
    with pytest.raises(DBAPIError), world.engine.begin() as connection:
        connection.exec_driver_sql(change)
    with world.registry.seeing() as session:
        assert session.scalars(select(InspectionRow.flagged)).one() == ["alder"]
