"""What may happen to a campaign, to a round, and to a site's task in a round: every state and every move. Pure.

A task is a site's part in one round. Its state is not stored but read from what stands in the registry: a clearance, a
reservation, a refusal, a place, a contribution, a receipt (`bract_server.registry.tasks`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from bract.errors import STATE, BractError

State = TypeVar("State", bound=StrEnum)
Move = TypeVar("Move", bound=StrEnum)


@dataclass(frozen=True)
class Machine(Generic[State, Move]):
    """The states of one thing, and where each move leads from each; what is not listed may not happen."""

    noun: str
    table: Mapping[State, Mapping[Move, State]]

    def after(self, state: State, move: Move, about: object = "") -> State:
        """The state that the move leads to.

        Raises:
            BractError: `wrong-state` when the move may not be made now.
        """
        try:
            return self.table[state][move]
        except KeyError:
            words = f"{self.noun} {about}".rstrip()
            raise BractError(STATE, f"{words} is {state}; it cannot {move} now") from None


class CampaignState(StrEnum):
    """How a campaign stands."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    COMPLETED = "completed"


class CampaignMove(StrEnum):
    """What is done to a campaign."""

    RUN = "run"
    STOP = "stop"
    FAIL = "fail"
    COMPLETE = "complete"


CAMPAIGN: Machine[CampaignState, CampaignMove] = Machine(
    "campaign",
    {
        CampaignState.CREATED: {
            CampaignMove.RUN: CampaignState.RUNNING,
            CampaignMove.STOP: CampaignState.STOPPED,
        },
        CampaignState.RUNNING: {
            CampaignMove.STOP: CampaignState.STOPPED,
            CampaignMove.FAIL: CampaignState.FAILED,
            CampaignMove.COMPLETE: CampaignState.COMPLETED,
        },
        CampaignState.STOPPED: {CampaignMove.RUN: CampaignState.RUNNING},
        CampaignState.FAILED: {CampaignMove.RUN: CampaignState.RUNNING},
        CampaignState.COMPLETED: {},
    },
)

MOVE_TO: Mapping[CampaignState, CampaignMove] = {
    CampaignState.RUNNING: CampaignMove.RUN,
    CampaignState.STOPPED: CampaignMove.STOP,
    CampaignState.FAILED: CampaignMove.FAIL,
    CampaignState.COMPLETED: CampaignMove.COMPLETE,
}
"""The one move that leads to each state of a campaign; none leads back to `created`."""


class RoundState(StrEnum):
    """How a round stands."""

    PLANNED = "planned"
    RUNNING = "running"
    COMMITTED = "committed"
    ABORTED = "aborted"


class RoundMove(StrEnum):
    """What is done to a round."""

    OPEN = "open"
    COMMIT = "commit"
    ABORT = "abort"


ROUND: Machine[RoundState, RoundMove] = Machine(
    "round",
    {
        RoundState.PLANNED: {RoundMove.OPEN: RoundState.RUNNING, RoundMove.ABORT: RoundState.ABORTED},
        RoundState.RUNNING: {RoundMove.COMMIT: RoundState.COMMITTED, RoundMove.ABORT: RoundState.ABORTED},
        RoundState.COMMITTED: {},
        RoundState.ABORTED: {},
    },
)


class TaskState(StrEnum):
    """How far a site is in a round."""

    PLANNED = "planned"
    CLEARED = "cleared"
    RESERVED = "reserved"
    READY = "ready"  # cleared and reserved
    RUNNING = "running"
    CONTRIBUTED = "contributed"
    AGGREGATED = "aggregated"
    REFUSED = "refused"
    OUT = "out"


class TaskMove(StrEnum):
    """What happens to a site's task.

    `take` and `leave` are the round's opening with the site and without it; `aggregate` and `drop` its end with the site's
    contribution and without it. `reject` keeps that something came and was not used, also when it came too late.
    """

    CLEAR = "clear"
    RESERVE = "reserve"
    REFUSE = "refuse"
    TAKE = "take"
    LEAVE = "leave"
    ACCEPT = "accept"
    REJECT = "reject"
    AGGREGATE = "aggregate"
    DROP = "drop"


_T, _M = TaskState, TaskMove
_UNANSWERED = {_M.REFUSE: _T.REFUSED, _M.LEAVE: _T.OUT, _M.DROP: _T.OUT}

TASK: Machine[TaskState, TaskMove] = Machine(
    "task",
    {
        _T.PLANNED: {_M.CLEAR: _T.CLEARED, _M.RESERVE: _T.RESERVED, **_UNANSWERED},
        _T.CLEARED: {_M.RESERVE: _T.READY, **_UNANSWERED},
        _T.RESERVED: {_M.CLEAR: _T.READY, **_UNANSWERED},
        _T.READY: {_M.TAKE: _T.RUNNING, **_UNANSWERED},
        _T.RUNNING: {_M.ACCEPT: _T.CONTRIBUTED, _M.REJECT: _T.RUNNING, _M.DROP: _T.OUT},
        _T.CONTRIBUTED: {_M.REJECT: _T.CONTRIBUTED, _M.AGGREGATE: _T.AGGREGATED, _M.DROP: _T.OUT},
        _T.AGGREGATED: {_M.REJECT: _T.AGGREGATED},
        _T.REFUSED: {_M.LEAVE: _T.REFUSED, _M.DROP: _T.REFUSED},
        _T.OUT: {_M.REJECT: _T.OUT, _M.DROP: _T.OUT},
    },
)
