"""Plans go out once and to whom is free; what comes late, twice or never costs the others no more than the grace."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from flwr.app import Error, Message
from sqlalchemy import select

from bract.errors import LATE, NOT_FINITE, QUARANTINED, QUORUM, UNREACHABLE, BractError
from bract_server.means import Hub
from bract_server.registry.models import ContributionRow, RoundRow
from bract_server.rounds import run_campaign
from tests.federation import NAMES, Federation, now, small_plan
from tests.server.test_rounds import nan, with_update

POLL_S = 0.4


@dataclass
class Clock:
    """The hub's own clock: waiting takes no time, and all the same it passes."""

    world: Federation
    passed: float = 0.0
    at_wait: Callable[[], None] = lambda: None

    def hub(self) -> Hub:
        whole = self.world.hub()

        def wait(seconds: float) -> bool:
            self.passed += seconds
            self.at_wait()
            return whole.wait(seconds)

        return replace(whole, now=lambda: now() + timedelta(seconds=self.passed), wait=wait)

    def run(self, name: str) -> float:
        """Seconds of waiting in a campaign that runs to its end."""
        began = self.passed
        if self.world.registry.campaign(name).state == "created":
            self.world.registry.set_state(name, "running", "", now())
        run_campaign(self.hub(), name)
        self.world.registry.set_state(name, "completed", "", now())
        return self.passed - began


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return Federation(tmp_path_factory.mktemp("federation"))


@pytest.fixture
def world(federation: Federation) -> Iterator[Federation]:
    """One federation for all tests, each with campaigns of its own; afterwards everybody is as before."""
    places = dict(federation.grid._places)
    yield federation
    federation.grid._places = places
    vars(federation.grid).pop("push_messages", None)
    vars(federation.grid).pop("pull_messages", None)
    for place in federation.places.values():
        place.up, place.tamper, place.wire.sent = True, None, []


def spent(world: Federation, site: str) -> int:
    return len(world.places[site].site.registry.spent("adult"))


def hold_back(world: Federation, site: str, until: Callable[[], bool], skipped: int = 0) -> None:
    """The first answer of the site, or the one after so many, is not told before then."""
    asked, first = list[str](), list[str]()
    node = NAMES.index(site) + 1
    push, pull = world.grid.push_messages, world.grid.pull_messages

    def push_messages(messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        ids = list(push(sent))
        asked.extend(i for i, m in zip(ids, sent, strict=True) if m.metadata.dst_node_id == node)
        first[:] = asked[skipped : skipped + 1]
        return ids

    def pull_messages(message_ids: Iterable[str]) -> Iterable[Message]:
        return pull([one for one in message_ids if one not in first or until()])

    world.grid.push_messages = push_messages  # type: ignore[method-assign]
    world.grid.pull_messages = pull_messages  # type: ignore[method-assign]


def kept(world: Federation, name: str, site: str) -> list[tuple[bool, str | None, bool]]:
    """What stands of the site's contributions to a campaign: accepted, code, whether its digest is known."""
    mine = RoundRow.campaign == world.registry.campaign(name).digest
    wanted = select(ContributionRow).join(RoundRow, RoundRow.id == ContributionRow.round_id)
    with world.registry.seeing() as session:
        rows = session.scalars(wanted.where(mine, ContributionRow.site == site).order_by(ContributionRow.id))
        return [(row.accepted, row.code, row.digest is not None) for row in rows]


def test_a_late_contribution_is_kept_as_evidence_and_never_used_and_the_site_is_back_in_the_next_round(
    world: Federation,
) -> None:
    world.create(small_plan(name="late", rounds=2, grace_s=8.0))
    pulls = 0

    def second_round_has_waited() -> bool:
        nonlocal pulls
        pulls += int(world.reports("late")[-1].number == 2)
        return pulls > 3

    hold_back(world, "coast", second_round_has_waited)
    Clock(world).run("late")
    one, two = world.reports("late")
    assert (one.participants, one.missing) == (("north", "south"), {"coast": LATE})
    assert two.participants == tuple(sorted(NAMES)), "it was sent the second plan once it was free"
    assert kept(world, "late", "coast") == [(False, LATE, True), (True, None, True)]
    assert len(world.places["coast"].wire.sent) == 2, "its update had arrived"
    needed = {v.value.arrays for v in world.registry.versions()} | {v.server_state for v in world.registry.versions()}
    assert set(world.store.whole(now() + timedelta(days=1))) <= needed, "no update is left, the late one neither"


def test_a_dead_site_costs_the_others_no_more_than_the_grace(world: Federation) -> None:
    clock, grace = Clock(world), 3.0
    for name in ("whole", "dead", "dies"):
        world.create(small_plan(name=name, rounds=1, grace_s=grace))
    unharmed = clock.run("whole")
    world.places["coast"].up = False
    assert clock.run("dead") - unharmed <= grace + 2 * POLL_S
    world.places["coast"].up = True
    hold_back(world, "coast", lambda: False)
    assert clock.run("dies") - unharmed <= grace + 2 * POLL_S
    assert [world.reports(name)[0].missing for name in ("whole", "dead", "dies")] == [
        {},
        {"coast": LATE},
        {"coast": LATE},
    ]


def test_a_round_that_cannot_reach_its_quorum_any_more_ends_at_once(world: Federation) -> None:
    world.create(small_plan(name="hopeless", rounds=1, quorum=3, deadline_s=5000.0))
    clock = Clock(world)
    world.places["coast"].tamper = lambda _: {"refused": "site-failed"}
    hold_back(world, "north", lambda: False)
    with pytest.raises(BractError) as caught:
        clock.run("hopeless")
    assert caught.value.code == QUORUM
    assert clock.passed < 60.0
    assert world.reports("hopeless")[0].missing["north"] == QUORUM


def test_a_node_that_comes_back_is_waited_for_and_one_that_does_not_only_for_a_while(world: Federation) -> None:
    clock, everywhere = Clock(world), dict(world.grid._places)
    away = {node: place for node, place in everywhere.items() if place.name != "coast"}
    world.create(small_plan(name="away", rounds=1, quorum=3, deadline_s=600.0))
    world.grid._places = away
    clock.at_wait = lambda: setattr(world.grid, "_places", everywhere if clock.passed > 20 else away)
    clock.run("away")
    assert world.reports("away")[0].participants == tuple(sorted(NAMES))
    world.create(small_plan(name="gone", rounds=1, quorum=3, deadline_s=600.0))
    clock.at_wait = lambda: setattr(world.grid, "_places", away)
    began = clock.passed
    with pytest.raises(BractError):
        clock.run("gone")
    assert {report.missing["coast"] for report in world.reports("gone")} == {UNREACHABLE}
    assert clock.passed - began < 3 * 90.0, "a minute and a little a round, not ten"


def test_a_plan_whose_answer_was_lost_is_sent_again_and_nobody_trains_twice(world: Federation) -> None:
    world.create(small_plan(name="lost", rounds=1, quorum=3))
    pull, lost, before = world.grid.pull_messages, list[str](), spent(world, "coast")

    def pull_messages(message_ids: Iterable[str]) -> Iterable[Message]:
        for answer in pull(message_ids):
            asked = world.grid._places[answer.metadata.src_node_id].name
            if asked == "coast" and not lost:
                lost.append(asked)
                yield Message(Error(code=3, reason="the node went away"), reply_to=_asked(answer))
            else:
                yield answer

    world.grid.pull_messages = pull_messages  # type: ignore[method-assign]
    Clock(world).run("lost")
    assert (lost, world.reports("lost")[0].participants) == (["coast"], tuple(sorted(NAMES)))
    assert spent(world, "coast") == before + 1
    assert len(world.places["coast"].wire.sent) == 1, "the kept contribution was answered again"


def _asked(answer: Message) -> Message:
    """A message to which one may reply, like the one that was answered."""
    message = Message(answer.content, dst_node_id=1, message_type="train")
    names = {"_run_id": 1, "_src_node_id": 1, "_message_id": answer.metadata.reply_to_message_id}
    message.metadata.__dict__.update(names)
    return message


class Died(Exception):  # noqa: N818 - a process that was killed raises nothing at all
    pass


def dies() -> None:
    raise Died


def test_a_round_that_was_only_proposed_is_taken_up_under_its_number(world: Federation) -> None:
    world.create(small_plan(name="planned", rounds=1))
    world.registry.set_state("planned", "running", "", now())
    clock = Clock(world, at_wait=dies)
    with pytest.raises(Died):
        run_campaign(clock.hub(), "planned")
    assert [(r.number, r.state) for r in world.reports("planned")] == [(1, "planned")]
    clock.at_wait = lambda: None
    clock.run("planned")
    assert [(r.number, r.state) for r in world.reports("planned")] == [(1, "committed")]


def test_what_was_received_before_a_long_outage_is_not_lost(world: Federation) -> None:
    world.create(small_plan(name="outage", rounds=1, grace_s=2.0))
    world.registry.set_state("outage", "running", "", now())
    hold_back(world, "coast", lambda: False)
    clock, campaign = Clock(world), world.registry.campaign("outage").digest

    def two_are_in() -> bool:
        (report,) = world.reports("outage")
        return report.state == "running" and len(world.registry.contributions(campaign, 1)) == 2

    clock.at_wait = lambda: dies() if two_are_in() else None
    with pytest.raises(Died):
        run_campaign(clock.hub(), "outage")
    clock.at_wait = lambda: None
    clock.passed += 7200.0
    clock.run("outage")
    (report,) = world.reports("outage")
    assert (report.number, report.state, report.participants) == (1, "committed", ("north", "south"))


def test_a_site_that_keeps_sending_what_is_refused_is_no_longer_asked(world: Federation) -> None:
    before = spent(world, "coast")
    with_update(world, world.places["coast"], nan)
    world.create(small_plan(name="nan", rounds=4))
    Clock(world).run("nan")
    assert [report.missing["coast"] for report in world.reports("nan")] == [NOT_FINITE] * 3 + [QUARANTINED]
    assert spent(world, "coast") == before + 3, "it cleared and reserved nothing more"
    world.places["coast"].tamper = None
    world.registry.lift_quarantine("coast", "Ada", "its memory was replaced", now())
    world.create(small_plan(name="mended", rounds=1))
    Clock(world).run("mended")
    assert world.reports("mended")[0].participants == tuple(sorted(NAMES))
