"""The warm training child: loads torch once, then trains one round a line of standard input; can be killed at any time.

    python -m bract_client.trainer SITE

Reads JSON lines {"campaign", "plan", "arrays", "update"} (signed envelopes as text, file paths) and writes JSON lines
{"steps", "private"} or {"refused": code}. It opens the registry itself: records never cross a process border.
"""

import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

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


def train(home: SiteHome, job: Mapping[str, str]) -> dict[str, object]:
    """Admit, train privately, write the update's file; what it took."""
    hub_key = verify_key(home.bundle().hub_key)
    campaign = unseal(CampaignPlan, parse_envelope(job["campaign"].encode()), hub_key)
    plan = unseal(RoundPlan, parse_envelope(job["plan"].encode()), hub_key)
    settings = home.settings()
    dataset = admit(open_registry(home), campaign, plan, datetime.now(UTC), settings.policy.min_subjects)
    update = Path(job["update"])
    clipper = engine(settings.engine, tune=campaign.seeded_test is None)
    trained = pretrain(campaign, Path(job["arrays"]), dataset, update, site=settings.name, clipper=clipper)
    if trained.dropped:
        log.warning("%d gradients were not finite and counted as zero: look at the data", trained.dropped)
    return {"steps": trained.steps, "private": trained.private}


def main(argv: list[str]) -> int:
    """Serve jobs until standard input ends."""
    start_logging()
    home = open_home(Path(argv[0]))
    torch.set_num_threads(home.settings().threads)
    for line in sys.stdin:
        try:
            answer = train(home, json.loads(line))
        except BractError as error:
            log.warning("%s", error)
            answer = {"refused": error.code}
        except Exception:  # noqa: BLE001 - the executor must hear of it; the text stays in this site's own log
            log.error("%s", traceback.format_exc())
            answer = {"refused": SITE_FAILED}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
