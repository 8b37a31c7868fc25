"""The ServerApp process: one run of one campaign, from installed code. The task's token comes on standard input, never in `ps`.

python -m bract_server.app HUB < token
"""

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import httpx

from bract.errors import CONCURRENT, DISK, HUB_FAILED, SUPERSEDED, UNREACHABLE, BractError
from bract.flower import ServerTask
from bract.logs import start_logging
from bract_server.home import HubHome, open_home
from bract_server.hub import open_registry, open_store
from bract_server.lifecycle import CampaignState
from bract_server.rounds import Hub, Stopped, run_campaign

_PASSING = frozenset({UNREACHABLE, CONCURRENT, DISK, SUPERSEDED})
"""Refusals that may be gone at the next try: the campaign stays running, and the launcher starts it again."""

log = logging.getLogger("bract.app")


def main(argv: list[str]) -> int:
    """Run the campaign that the task names; the exit status is 0 when it completed or was stopped."""
    start_logging()
    home = open_home(Path(argv[0]))
    task = ServerTask(home.settings().near_fleet, home.authority_file.read_bytes(), sys.stdin.readline().strip())
    failure = serve(home, task)
    try:
        task.finish(failure)
    except httpx.HTTPError as error:
        log.warning("Flower was not told how the run ended: %s", type(error).__name__)
    return 0 if failure is None else 1


def serve(home: HubHome, task: ServerTask) -> str | None:
    """The campaign from where it stands to its end; None when it completed or was stopped, else why not, as a code."""
    name = task.config.get("campaign", "")
    try:
        registry = open_registry(home)
        lease = registry.take_run(name, int(task.config.get("epoch") or 0), str(task.run_id), _now())
        patience = home.settings().quarantine
        hub = Hub(registry.fenced(lease), open_store(home), task.grid, _now, task.stopped.wait, patience)
        try:
            run_campaign(hub, name)
            hub.registry.set_state(name, CampaignState.COMPLETED, "", _now())
        except BractError as error:
            if error.code not in _PASSING and registry.campaign(name).state == CampaignState.RUNNING:
                hub.registry.set_state(name, CampaignState.FAILED, error.code, _now())
            raise
    except (Stopped, KeyboardInterrupt):  # Flower interrupts a process whose run was stopped
        log.info("campaign %s was stopped", name)
        return None
    except BractError as error:
        log.warning("campaign %s ended: %s", name, error)
        return error.code
    except Exception:  # noqa: BLE001 - the run must be told that it failed, whatever the bug
        log.error("campaign %s failed: %s", name, traceback.format_exc())
        return HUB_FAILED
    return None


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
