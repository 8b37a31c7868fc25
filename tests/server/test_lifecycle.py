"""The life cycle, written down a second time: every state, every move, and where it leads or that it may not happen."""

from enum import StrEnum
from itertools import product
from typing import Any

import pytest

from bract.errors import STATE, BractError
from bract_server.lifecycle import CAMPAIGN, MOVE_TO, ROUND, TASK, CampaignMove, Machine, RoundMove, TaskMove

# One line a state, one column a move, in the order of the enumerations; `-` may not happen.
TRUTH: list[tuple[Machine[Any, Any], type[StrEnum], str]] = [
    (
        CAMPAIGN,
        CampaignMove,
        """              run      stop     fail    complete
            created   running  stopped  -       -
            running   -        stopped  failed  completed
            stopped   running  -        -       -
            failed    running  -        -       -
            completed -        -        -       -
        """,
    ),
    (
        ROUND,
        RoundMove,
        """              open     commit     abort
            planned   running  -          aborted
            running   -        committed  aborted
            committed -        -          -
            aborted   -        -          -
        """,
    ),
    (
        TASK,
        TaskMove,
        """               clear   reserve  refuse  take    leave   accept      reject      aggregate  drop
            planned    cleared reserved refused -       out     -           -           -          out
            cleared    -       ready    refused -       out     -           -           -          out
            reserved   ready   -        refused -       out     -           -           -          out
            ready      -       -        refused running out     -           -           -          out
            running    -       -        -       -       -       contributed running     -          out
            contributed -      -        -       -       -       -           contributed aggregated out
            aggregated -       -        -       -       -       -           aggregated  -          -
            refused    -       -        -       -       refused -           -           -          refused
            out        -       -        -       -       -       -           out         -          out
        """,
    ),
]


@pytest.mark.parametrize(("machine", "moves", "table"), TRUTH, ids=["campaign", "round", "task"])
def test_every_move_leads_where_it_should_or_is_refused(
    machine: Machine[Any, Any], moves: type[StrEnum], table: str
) -> None:
    head, *lines = [line.split() for line in table.splitlines() if line.strip()]
    assert head == [str(move) for move in moves]
    assert [line[0] for line in lines] == [str(state) for state in machine.table]
    for (state, *after), (column, move) in product(lines, enumerate(moves)):
        known = {str(one): one for one in machine.table}
        if after[column] != "-":
            assert machine.after(known[state], move) == after[column], (state, move)
        else:
            with pytest.raises(BractError) as refusal:
                machine.after(known[state], move, 7)
            assert refusal.value.code == STATE
            assert f"{machine.noun} 7 is {state}" in refusal.value.detail


def test_every_state_of_a_campaign_is_reached_by_one_move() -> None:
    for moves in CAMPAIGN.table.values():
        assert all(MOVE_TO[state] == move for move, state in moves.items())
    assert set(MOVE_TO) == {state for moves in CAMPAIGN.table.values() for state in moves.values()}
