"""In whatever order its verbs are said, the registry lets happen what the life cycle permits, and nothing else."""

from collections.abc import Callable
from itertools import count
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from bract.database import open_engine
from bract.digest import Digest
from bract.errors import LATE, POLICY, BractError
from bract_server.lifecycle import (
    CAMPAIGN,
    MOVE_TO,
    ROUND,
    TASK,
    CampaignState,
    RoundMove,
    RoundState,
    TaskMove,
    TaskState,
)
from bract_server.registry import MIGRATIONS
from bract_server.registry.models import RoundRow
from bract_server.registry.store import HubRegistry
from bract_server.registry.tasks import task_state
from tests.migrated import migrated
from tests.server.registry.world import AT, SITES, World, campaign_plan

QUORUM = campaign_plan().quorum
ANSWERS = (TaskMove.CLEAR, TaskMove.RESERVE, TaskMove.REFUSE)


class Ordered(RuleBasedStateMachine):
    """The registry beside a model that knows the tables of `lifecycle` and nothing of the registry."""

    world: ClassVar[World]
    names: ClassVar = count()

    @initialize()
    def begin(self) -> None:
        self.name = f"campaign-{next(self.names)}"
        self.campaign: Digest = self.world.start(campaign_plan(self.name))
        self.state = CampaignState.RUNNING
        self.number = 0
        self.round: RoundState | None = None
        self.tasks: dict[str, TaskState] = {}
        self.placed: set[str] = set()
        self.given: set[tuple[str, TaskMove]] = set()

    def says(self, verb: Callable[[], object], permitted: bool) -> None:
        """The verb is done if it is permitted, and refused with a code if not."""
        try:
            verb()
            done = True
        except BractError:
            done = False
        assert done == permitted

    def may(self, move: RoundMove) -> bool:
        return self.round is not None and move in ROUND.table[self.round]

    @rule(state=st.sampled_from([*CampaignState, *[CampaignState.RUNNING] * 5]))
    def moves(self, state: CampaignState) -> None:
        permitted = state in MOVE_TO and MOVE_TO[state] in CAMPAIGN.table[self.state]
        self.says(lambda: self.world.registry.set_state(self.name, state, "", AT), permitted)
        if not permitted:
            return
        self.state = state
        if state != CampaignState.RUNNING and self.may(RoundMove.ABORT):
            self.round = RoundState.ABORTED
            self.tasks = {site: TASK.after(task, TaskMove.DROP) for site, task in self.tasks.items()}

    @rule()
    def proposes(self) -> None:
        permitted = self.state == CampaignState.RUNNING and self.round not in (RoundState.PLANNED, RoundState.RUNNING)
        self.says(lambda: self.world.registry.propose(self.campaign, AT), permitted)
        if permitted:
            self.number, self.round = self.number + 1, RoundState.PLANNED
            self.tasks, self.placed, self.given = dict.fromkeys(SITES, TaskState.PLANNED), set(), set()

    @rule(site=st.sampled_from(SITES), move=st.sampled_from(ANSWERS))
    def answers(self, site: str, move: TaskMove) -> None:
        if not self.number:
            return
        world, about = self.world, (site, self.campaign, self.number)
        verbs: dict[TaskMove, Callable[[], object]] = {
            TaskMove.CLEAR: lambda: world.registry.clear(site, world.clearance(*about), AT),
            TaskMove.RESERVE: lambda: world.registry.reserve(site, world.reservation(*about, epsilon_cap=1e6), AT),
            TaskMove.REFUSE: lambda: world.registry.refuse(site, world.refusal(*about, POLICY), AT),
        }
        again = (site, move) in self.given  # the same answer again changes nothing
        permitted = self.round == RoundState.PLANNED and move in TASK.table[self.tasks[site]]
        self.says(verbs[move], permitted or again)
        if permitted and not again:
            self.tasks[site] = TASK.after(self.tasks[site], move)
            self.given.add((site, move))

    @rule(sites=st.sets(st.sampled_from(SITES), min_size=QUORUM))
    def are_ready(self, sites: set[str]) -> None:
        for site in sorted(sites):
            self.answers(site, TaskMove.CLEAR)
            self.answers(site, TaskMove.RESERVE)
        self.opens()

    @rule()
    def all_contribute(self) -> None:
        for site in sorted(self.placed):
            self.contributes(site)

    @rule()
    def opens(self) -> None:
        if self.round is None:
            return
        ready = {site for site, task in self.tasks.items() if task == TaskState.READY}
        permitted = self.may(RoundMove.OPEN) and self.state == CampaignState.RUNNING and len(ready) >= QUORUM
        places = self.world.registry.answers(self.campaign, self.number, AT).places
        plan = self.world.round_plan(self.campaign, self.number, places)
        self.says(lambda: self.world.registry.open_round(plan, AT), permitted)
        if permitted:
            self.round, self.placed = RoundState.RUNNING, ready
            for site in SITES:
                self.tasks[site] = TASK.after(self.tasks[site], TaskMove.TAKE if site in ready else TaskMove.LEAVE)

    @rule(site=st.sampled_from(SITES))
    def contributes(self, site: str) -> None:
        if site not in self.placed:
            return
        sealed = self.world.registry.round_plan(self.campaign, self.number)
        assert sealed is not None
        contribution = self.world.contribution(site, self.campaign, self.number, sealed.name)
        permitted = self.round == RoundState.RUNNING and TaskMove.ACCEPT in TASK.table[self.tasks[site]]
        self.says(lambda: self.world.registry.accept(contribution, site, AT), permitted)
        if permitted:
            self.tasks[site] = TASK.after(self.tasks[site], TaskMove.ACCEPT)

    @rule(site=st.sampled_from(SITES))
    def is_rejected(self, site: str) -> None:
        if self.number:
            reject = self.world.registry.reject
            self.says(lambda: reject(site, self.campaign, self.number, LATE, None, AT), site in self.placed)

    @rule(commit=st.booleans())
    def ends(self, commit: bool) -> None:
        if self.round is None:
            return
        inside = {site for site, task in self.tasks.items() if task == TaskState.CONTRIBUTED}
        if commit:
            permitted = self.may(RoundMove.COMMIT) and len(inside) >= QUORUM
            self.says(lambda: self.world.commit(self.campaign, self.number), permitted)
        else:
            permitted = self.may(RoundMove.ABORT)
            self.says(lambda: self.world.registry.abort_round(self.campaign, self.number, {}, AT), permitted)
        if permitted:
            self.round = RoundState.COMMITTED if commit else RoundState.ABORTED
            for site, task in self.tasks.items():
                aggregated = commit and task == TaskState.CONTRIBUTED
                self.tasks[site] = TASK.after(task, TaskMove.AGGREGATE if aggregated else TaskMove.DROP)

    @invariant()
    def the_registry_stands_where_the_model_does(self) -> None:
        if not hasattr(self, "name"):
            return
        assert self.world.registry.campaign(self.name).state == self.state
        if self.number:
            newest = self.world.registry.rounds(self.campaign)[-1]
            assert (newest.number, newest.state) == (self.number, self.round)
            with self.world.registry.seeing() as session:
                row = session.scalars(
                    select(RoundRow).where(RoundRow.campaign == self.campaign, RoundRow.number == self.number)
                ).one()
                assert {site: task_state(session, row, site) for site in SITES} == self.tasks


def test_the_registry_is_its_life_cycle(database_url: str) -> None:
    engine = open_engine(database_url)
    migrated(engine, MIGRATIONS)
    Ordered.world = World(engine, HubRegistry(engine, Ed25519PrivateKey.generate()))
    for site in SITES:
        Ordered.world.enrol(site)
    one_whole_round()
    examples, steps = (12, 25) if engine.dialect.name == "sqlite" else (3, 20)
    run_state_machine_as_test(
        Ordered,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    Ordered.world.registry.verify_log()
    engine.dispose()


def one_whole_round() -> None:
    """The control: the machine's own rules lead a round to its end, so that the random orders have somewhere to get."""
    machine = Ordered()
    machine.begin()
    machine.proposes()
    machine.answers("cedar", TaskMove.REFUSE)
    machine.are_ready({"alder", "birch"})
    machine.all_contribute()
    machine.the_registry_stands_where_the_model_does()
    machine.ends(commit=True)
    machine.the_registry_stands_where_the_model_does()
    assert machine.round == RoundState.COMMITTED
    assert list(machine.tasks.values()) == [TaskState.AGGREGATED, TaskState.AGGREGATED, TaskState.REFUSED]
