"""The ServerApp process: one campaign, run from installed code. The task's token comes on standard input, never in `ps`.

python -m bract_server.app HUB < token
"""

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

from bract.errors import HUB_FAILED, BractError
from bract.flower import ServerTask
from bract.logs import start_logging
from bract_server.home import open_home
from bract_server.hub import open_registry, open_store
from bract_server.rounds import Hub, Stopped, run_campaign

log = logging.getLogger("bract.app")


def main(argv: list[str]) -> int:
    """Run the campaign that the task names; the exit status is 0 when it completed or was stopped."""
    start_logging()
    home = open_home(Path(argv[0]))
    task = ServerTask(home.settings().fleet, home.authority_file.read_bytes(), sys.stdin.readline().strip())
    registry = open_registry(home)
    name = task.config.get("campaign", "")
    hub = Hub(registry, open_store(home), task.grid, lambda: datetime.now(UTC), task.stopped.wait)
    failure: str | None = None
    try:
        run_campaign(hub, name)
        registry.set_state(name, "completed", "", hub.now())
    except (Stopped, KeyboardInterrupt):  # Flower interrupts a process whose run was stopped
        log.info("campaign %s was stopped", name)
    except BractError as error:
        failure = error.code
        log.warning("campaign %s failed: %s", name, error)
    except Exception:  # noqa: BLE001 - the run must be told that it failed, whatever the bug
        failure = HUB_FAILED
        log.error("campaign %s failed: %s", name, traceback.format_exc())
    try:
        if failure is not None and registry.campaign(name).state == "running":
            registry.set_state(name, "failed", failure, hub.now())
    finally:
        task.finish(failure)
    return 0 if failure is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
