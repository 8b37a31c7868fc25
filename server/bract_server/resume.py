"""What should run, runs: Flower's runs are made to agree with the registry's campaigns, after whatever was killed.

Rules:
    1. A campaign that is running has one live run: of its newest epoch, and waiting for a process or served by one of ours.
       Flower itself believes for a minute more that a killed process lives; who started the process knows better.
    2. Every other run of it is stopped, and so is every run of a campaign that is not running.
    3. A run that ended is followed by a new one under the next epoch, on record before it is started.
    4. At once after the first failure, then after pauses that grow; after `MAX_TRIES` runs in a row that closed no round the
       campaign fails with `crash-loop`.
"""

import logging
from collections.abc import Callable, Mapping, Set
from datetime import datetime, timedelta
from typing import Protocol

from bract.errors import CRASH_LOOP, HUB_FAILED, NOT_RUNNING, UNREACHABLE, BractError
from bract.flower import RunStatus
from bract_server.lifecycle import CampaignState
from bract_server.registry.store import HubRegistry
from bract_server.registry.views import Campaign, Run

MAX_TRIES = 5
"""Runs in a row that may fail without closing a round."""

_PAUSES = (timedelta(0), timedelta(0), *(timedelta(seconds=s) for s in (2, 5, 15)))
"""From the opening of the n-th try to the opening of the next one, by n."""

_OVER = "finished"

log = logging.getLogger("bract.resume")


class Door(Protocol):
    """What is asked of Flower (`bract.flower.Operator`)."""

    def runs(self) -> dict[int, RunStatus]:
        """All runs and their states."""
        ...

    def start(self, config: Mapping[str, str]) -> int:
        """Start a run with this configuration; its id."""
        ...

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        ...


class Resumer:
    """Keeps one run alive for each running campaign. One a hub; it holds nothing that a new one could not find again."""

    def __init__(self, registry: HubRegistry, door: Door, clock: Callable[[], datetime]) -> None:
        self._registry, self._door, self._clock = registry, door, clock
        self._known: dict[str, int] = {}
        """The epoch that was seen alive here, by campaign: if it ends, it failed and was not merely left by a former hub."""
        self._running: set[str] | None = None

    def changed(self) -> bool:
        """Whether other campaigns are running than when `look` last saw them."""
        return {c.plan.name for c in self._registry.campaigns() if c.state == CampaignState.RUNNING} != self._running

    def look(self, served: Set[int]) -> frozenset[int]:
        """Compare, stop and start.

        Args:
            served: the Flower runs whose processes live.

        Returns:
            The runs among them whose processes have nothing more to do and are to be ended.

        Raises:
            BractError: `not-running`, `unreachable`, `operator-token` and what the registry raises; look again later.
        """
        runs, campaigns = self._door.runs(), self._registry.campaigns()
        states = {campaign.plan.name: campaign.state for campaign in campaigns}
        over = {run for run in served if run not in runs}
        for run_id, run in runs.items():
            state = states.get(run.campaign)
            ending = run_id in served and state in (CampaignState.COMPLETED, CampaignState.FAILED)
            if state != CampaignState.RUNNING and run.status != _OVER and not ending:
                self._stop(run_id)
        for campaign in campaigns:
            if campaign.state == CampaignState.RUNNING:
                mine = {run_id: run for run_id, run in runs.items() if run.campaign == campaign.plan.name}
                over |= self._keep(campaign, mine, served)
            else:
                self._known.pop(campaign.plan.name, None)
        self._running = {name for name, state in states.items() if state == CampaignState.RUNNING}
        return frozenset(over)

    def _keep(self, campaign: Campaign, runs: Mapping[int, RunStatus], served: Set[int]) -> Set[int]:
        """See that the campaign has its one run; the runs whose processes are to be ended."""
        name, newest = campaign.plan.name, self._registry.newest_run(campaign.digest)
        kept = surviving(runs, served, 0 if newest is None else newest.epoch)
        for run_id, run in runs.items():
            if run.status != _OVER and run_id != kept:
                self._stop(run_id)
        if kept is not None:
            self._known[name] = runs[kept].epoch
        else:
            self._go_on(name, newest)
        return {run_id for run_id in runs if run_id in served and run_id != kept}

    def _go_on(self, name: str, newest: Run | None) -> None:
        """The next run, once its pause is over, or the end of the campaign."""
        failed = newest is not None and self._known.get(name) == newest.epoch
        if newest is not None and failed and not newest.progressed:
            if newest.tries >= MAX_TRIES:
                log.error("campaign %s: %d runs in a row closed no round", name, newest.tries)
                self._registry.set_state(name, CampaignState.FAILED, CRASH_LOOP, self._clock())
                return
            if timedelta(0) <= self._clock() - newest.opened_at < _PAUSES[newest.tries]:
                return  # a run that was opened later than now was opened by a clock that has been set back since
        after = None if newest is None else HUB_FAILED if failed else NOT_RUNNING
        run = self._registry.open_run(name, after, failed=failed, at=self._clock())
        self._known[name] = run.epoch
        flower_run = self._door.start({"campaign": name, "epoch": str(run.epoch)})
        log.info("campaign %s: run %d (Flower's %d), try %d, after %s", name, run.epoch, flower_run, run.tries, after)

    def _stop(self, run_id: int) -> None:
        try:
            self._door.stop(run_id)
        except BractError as error:
            if error.code != UNREACHABLE:  # it ended by itself meanwhile
                raise
        else:
            log.info("stopped Flower's run %d: nobody serves it, or it is not wanted", run_id)


def surviving(runs: Mapping[int, RunStatus], served: Set[int], epoch: int) -> int | None:
    """The one run of a campaign that goes on, if there is one: of the newest epoch, and served or still to be taken."""
    alive = [
        run_id
        for run_id, run in runs.items()
        if run.epoch >= epoch and (run.status == "pending" or (run.status != _OVER and run_id in served))
    ]
    return max(alive, key=lambda run_id: (runs[run_id].epoch, run_id in served, run_id), default=None)
