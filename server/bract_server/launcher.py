"""The launcher process: keeps Flower's runs and nodes equal to the registry's campaigns and sites, and serves the runs.

Each run's task is given to a process of our installed ServerApp. A campaign that the registry calls running goes on by
itself, whatever was killed (`bract_server.resume`).

python -m bract_server.launcher HUB
"""

import logging
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from bract.errors import BractError
from bract.files import read_private
from bract.flower import Operator, TaskQueue, TaskType
from bract.identity import node_fingerprint
from bract.logs import start_logging
from bract.supervisor import Program, end, environment, python, spawn
from bract_server import disposal
from bract_server.campaigns import operator
from bract_server.home import HubHome, open_home
from bract_server.hub import open_registry
from bract_server.registry.store import HubRegistry
from bract_server.resume import Resumer

_POLL_S = 0.5
_LOOK_EVERY = 4

log = logging.getLogger("bract.launcher")


def main(argv: list[str]) -> int:
    """Serve until SIGTERM."""
    start_logging()
    home = open_home(Path(argv[0]))
    disposal.start_daily(home)
    ca, fleet, door = home.authority_file.read_bytes(), home.settings().near_fleet, operator(home)
    queue = TaskQueue(TaskType.SERVER_APP, fleet, ca, read_private(home.superexec_secret))
    registry = open_registry(home)
    resumer = Resumer(registry, door, lambda: datetime.now(UTC))
    served, turn = dict[int, subprocess.Popen[bytes]](), 0
    while True:
        try:
            died = reap(served)
            if turn % _LOOK_EVERY == 0 or died or resumer.changed():
                for run_id in resumer.look(served.keys()):
                    end([served.pop(run_id)], grace_s=0.0)
            if turn % _LOOK_EVERY == 0:
                reconcile(registry, door)
            while (task := queue.acquire()) is not None:
                served[task.run_id] = launch(home, task.token)
        except BractError as error:
            log.warning("%s", error)
        turn += 1
        time.sleep(_POLL_S)


def reap(served: dict[int, subprocess.Popen[bytes]]) -> bool:
    """Forget the runs whose processes have ended; whether there was one."""
    ended = {run_id: process.returncode for run_id, process in served.items() if process.poll() is not None}
    for run_id, code in ended.items():
        log.info("the ServerApp of Flower's run %d ended with %d", run_id, code)
        del served[run_id]
    return bool(ended)


def launch(home: HubHome, token: str) -> subprocess.Popen[bytes]:
    """Start a ServerApp process; its token goes through a pipe, so that it cannot be read from the process list."""
    program = Program(
        "serverapp", python("bract_server.app", str(home.root)), environment(home.root), home.logs / "serverapp.log"
    )
    process = spawn(program, stdin=subprocess.PIPE)
    if process.stdin is not None:
        process.stdin.write(token.encode() + b"\n")
        process.stdin.close()
    log.info("started a ServerApp")
    return process


def reconcile(registry: HubRegistry, door: Operator) -> None:
    """Register every approved site's node at Flower, unregister every other."""
    wanted = {site.node_fingerprint: site for site in registry.sites() if site.revoked_at is None}
    known = {node_fingerprint(public_key): node for node, public_key in door.nodes().items()}
    for fingerprint in wanted.keys() - known.keys():
        door.register(wanted[fingerprint].node_public_pem.encode(), wanted[fingerprint].name)
        log.info("registered the node of %s", wanted[fingerprint].name)
    for fingerprint in known.keys() - wanted.keys():
        door.unregister(known[fingerprint])
        log.info("unregistered a node that belongs to no approved site")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
