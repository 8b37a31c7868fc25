"""The warm training child: loads torch once, then trains one round a line of standard input; can be killed at any time.

    python -m bract_client.trainer SITE

Reads JSON lines {"campaign", "plan", "arrays", "update"} (signed envelopes as text, file paths) and writes JSON lines
{"loaded"} once, then {"steps", "private"} or {"refused": code} for each job. {"stop"} ends the job under way before its
next step: `deadline`. It opens the registry itself: records never cross a process border. What a library prints goes to
the log, not among the answers.
"""

import json
import logging
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import torch

from bract.dpsgd.clipper import engine
from bract.errors import SITE_FAILED, BractError
from bract.logs import start_logging
from bract.plan import CampaignPlan, RoundPlan
from bract.signing import parse_envelope, unseal, verify_key
from bract_client.admission import admit
from bract_client.home import SiteHome, open_home
from bract_client.pretrain import pretrain
from bract_client.site import open_registry

log = logging.getLogger("bract.trainer")


def train(home: SiteHome, job: Mapping[str, str], stop: Callable[[], bool] | None = None) -> dict[str, object]:
    """Admit, train privately, write the update's file; what it took. `stop` is asked before each step.

    Raises:
        BractError: why this site is out of the round; `deadline` when it was stopped.
    """
    hub_key = verify_key(home.bundle().hub_key)
    campaign = unseal(CampaignPlan, parse_envelope(job["campaign"].encode()), hub_key)
    plan = unseal(RoundPlan, parse_envelope(job["plan"].encode()), hub_key)
    settings = home.settings()
    dataset = admit(open_registry(home), campaign, plan, datetime.now(UTC), settings.policy.min_subjects)
    update = Path(job["update"])
    clipper = engine(settings.engine, tune=campaign.seeded_test is None)
    trained = pretrain(campaign, Path(job["arrays"]), dataset, update, site=settings.name, clipper=clipper, stop=stop)
    if trained.dropped:
        log.warning("%d gradients were not finite and counted as zero: look at the data", trained.dropped)
    return {"steps": trained.steps, "private": trained.private}


def main(argv: list[str]) -> int:
    """Serve jobs until standard input ends."""
    start_logging()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    home = open_home(Path(argv[0]))
    torch.set_num_threads(home.settings().threads)
    jobs, stop = queue.SimpleQueue[Mapping[str, str] | None](), threading.Event()
    threading.Thread(target=_listen, args=(jobs, stop), name="jobs", daemon=True).start()
    _say(answers, {"loaded": True})
    while (job := jobs.get()) is not None:
        try:
            answer = train(home, job, stop.is_set)
        except BractError as error:
            log.warning("%s", error)
            answer = {"refused": error.code}
        except Exception:  # noqa: BLE001 - the executor must hear of it; the text stays in this site's own log
            log.error("%s", traceback.format_exc())
            answer = {"refused": SITE_FAILED}
        _say(answers, answer)
    return 0


def _say(answers: TextIO, answer: Mapping[str, object]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _listen(jobs: queue.SimpleQueue[Mapping[str, str] | None], stop: threading.Event) -> None:
    """Read what the executor says, also while a job is done."""
    for line in sys.stdin:
        said = json.loads(line)
        if "stop" in said:
            stop.set()
        else:
            stop.clear()
            jobs.put(said)
    jobs.put(None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
