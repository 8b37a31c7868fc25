"""The site's executor process: answers proposals, takes rounds from its SuperNode, has them trained, sends the result.

    python -m bract_client.executor SITE

It runs only the code that the site installed: a bundle's bytes are looked at and never unpacked. Two threads: one answers
proposals over gRPC, the main one takes Flower's tasks. Training happens in a child (`bract_client.training`).
"""

import functools
import logging
import sys
import threading
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from bract.arrays import read_layout
from bract.errors import (
    CONCURRENT,
    DISK,
    LOG_FORKED,
    NO_RESERVATION,
    POLICY,
    SITE_FAILED,
    STATE,
    TOO_LARGE,
    TOO_OFTEN,
    UNREACHABLE,
    BractError,
)
from bract.files import read_private
from bract.flower import ClientTask, TaskQueue, TaskType, bundle_files
from bract.logs import start_logging
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, sign
from bract.update import Contribution
from bract.value import decode
from bract_client import disposal, outbox, secure
from bract_client.home import SiteHome, open_home
from bract_client.hub import HubClient, connect
from bract_client.node import remember
from bract_client.renewal import Renewal
from bract_client.site import Site, Task, open_site, runtime_address
from bract_client.training import Trainer

_POLL_S = 0.2
_PROPOSALS_WAIT_S = 15.0
_AFTER_ERROR_S = 2.0

_PASSING = frozenset({UNREACHABLE, TOO_OFTEN, CONCURRENT, DISK})
"""Trouble that may be gone in a moment: the same answer is then given again, and no refusal is signed for it."""

log = logging.getLogger("bract.executor")


def answer_proposals(site: Site, home: SiteHome, hub: HubClient) -> None:
    """Forever: wait for proposals, answer each with clearance and reservation or with a refusal; send due notices."""
    key, renewal = home.signing_key(), Renewal(home, hub)
    while True:
        try:
            renewal.look(datetime.now(UTC))
            secure.forget(home, datetime.now(UTC))
            watch_logs(site, hub)
            send_notices(site, home, hub)
            send_terms(site, hub)
            send_relinquished(site, hub)
            for offer in hub.proposals(_PROPOSALS_WAIT_S):
                try:
                    site.registry.check_forks()
                    answer = site.answer(offer.proposal, offer.campaign, datetime.now(UTC))
                    send_relinquished(site, hub)
                    hub.clear(answer.clearance)
                    hub.reserve(answer.reservation)
                except BractError as error:
                    if error.code in _PASSING:
                        raise
                    log.warning("proposal refused: %s", error)
                    hub.refuse(site.refusal(offer.proposal, error.code, key))
            for receipt in hub.receipts(site.registry.last_receipt()):
                site.registry.keep_receipt(receipt.number, receipt.envelope, site.hub_key, datetime.now(UTC))
        except BractError as error:
            log.warning("%s", error)
            time.sleep(_AFTER_ERROR_S)
        except Exception:  # noqa: BLE001 - this thread must go on; the text stays in this site's own log
            log.error("%s", traceback.format_exc())
            time.sleep(_AFTER_ERROR_S)


def watch_logs(site: Site, hub: HubClient) -> None:
    """Hub and site witness each other's logs. That it fails keeps nobody from a round; a fork that it finds does."""
    try:
        every = timedelta(seconds=site.policy.notice_interval_s)
        word = site.registry.word(site.hub_key, datetime.now(UTC), every=every)
        if word is None:
            return
        try:
            reply = hub.witness(word)
            if not reply.cosignature and reply.remembered != word.shown.old:
                word = site.registry.word(site.hub_key, datetime.now(UTC), reply.remembered, every=every) or word
                reply = hub.witness(word)
        except BractError as error:
            if error.code == LOG_FORKED:
                site.registry.disowned(datetime.now(UTC))
            raise
        site.registry.heed(reply, site.hub_key, datetime.now(UTC))
    except BractError as error:
        log.warning("logs are not witnessed: %s", error)


def send_notices(site: Site, home: SiteHome, hub: HubClient) -> None:
    """Tell the hub about withdrawals, batched so that their time singles no one out."""
    notice = site.registry.take_notice(datetime.now(UTC), timedelta(seconds=site.policy.notice_interval_s))
    if notice is not None:
        hub.withdraw(sign(notice, home.signing_key()))
        site.registry.mark_sent(notice.notice, datetime.now(UTC))


def send_terms(site: Site, hub: HubClient) -> None:
    """Tell the hub what the steward declared about data sets; before that it is told of no clearance."""
    for envelope in site.registry.untold_terms():
        hub.declare(envelope)
        site.registry.mark_told(envelope.name, datetime.now(UTC))


def send_relinquished(site: Site, hub: HubClient) -> None:
    """Tell the hub what was given back unused. It may know better: then both ledgers keep what each of them has."""
    for statement in site.registry.relinquished():
        try:
            hub.relinquish(statement)
        except BractError as error:
            if error.code not in (STATE, NO_RESERVATION):
                raise
            log.warning("the hub does not give back what this site gave back: %s", error)
        site.registry.mark_relinquished(statement.name, datetime.now(UTC))


def answer(site: Site, home: SiteHome, hub: HubClient, trainer: Trainer, task: ClientTask) -> dict[str, bytes | str]:
    """What this site answers to a message: a round's contribution, or what it says at a stage of a secure round.

    Raises:
        BractError: why this site is out of the round.
    """
    if "stage" not in task.payload:
        return {"contribution": run_round(site, home, hub, trainer, task)}
    site.registry.check_forks()
    agreed = site.task(task.payload, bundle_files(task.bundle), datetime.now(UTC))
    stage, question = (task.payload.get(name, "") for name in ("stage", "question"))
    contribute = functools.partial(run_round, site, home, hub, trainer, task)
    joined = secure.join(site, home, agreed)
    return joined.answer(_text(stage), question if isinstance(question, bytes) else b"", contribute)


def run_round(
    site: Site,
    home: SiteHome,
    hub: HubClient,
    trainer: Trainer,
    task: ClientTask,
    cover: secure.Cover | None = None,
) -> bytes:
    """One round at this site: fetch, admit and train, seal, send. The signed contribution.

    With `cover` the update is masked before it is sealed.

    Raises:
        BractError: why this site is out of the round; `policy` for an update in the clear that should be masked.
    """
    site.registry.check_forks()
    agreed = site.task(task.payload, bundle_files(task.bundle), datetime.now(UTC))
    if agreed.campaign.secure is not None and cover is None:
        raise BractError(POLICY, "with secure aggregation no update leaves in the clear")
    arrays, update = home.outbox / agreed.plan.arrays, home.outbox / f"{agreed.sealed.name}.update"
    kept = site.registry.trained(agreed.plan.campaign, agreed.plan.number)
    try:
        if kept is not None:
            return _sent(hub, update, kept)
        if agreed.plan.arrays_bytes > home.settings().max_array_bytes:
            raise BractError(TOO_LARGE, "the plan's arrays are larger than this site's settings allow")
        hub.get(agreed.plan.arrays, agreed.plan.arrays_bytes, arrays)
        site.registry.begin_training(agreed.plan.campaign, agreed.plan.number, datetime.now(UTC))
        admitted_at = datetime.now(UTC)
        job = {k: _text(task.payload[k]) for k in ("campaign", "plan")} | {"arrays": str(arrays), "update": str(update)}
        wanted = functools.partial(hub.wanted, agreed.plan.campaign, agreed.plan.number)
        spent, private = _trained(trainer.run(job, task.stopped, wanted), agreed)
        (cover or outbox.check)(update, read_layout(arrays))
        key, now = home.signing_key(), datetime.now(UTC)
        envelope = outbox.seal(site.registry, agreed, update, spent, private, key, admitted_at, now)
        return _sent(hub, update, envelope)
    finally:
        arrays.unlink(missing_ok=True)


def _sent(hub: HubClient, update: Path, envelope: Envelope) -> bytes:
    """Send the update, unless an earlier try did; it stays on disk until the hub has it."""
    if update.exists():
        hub.put(update, decode(Contribution, envelope.payload).update)
        update.unlink()
    return envelope.to_json()


def _trained(answer: dict[str, object], agreed: Task) -> tuple[Mechanism, bool]:
    privacy = agreed.campaign.privacy
    steps = answer.get("steps")
    if not isinstance(steps, int):
        raise BractError(SITE_FAILED, "the training child gave no answer")
    return Mechanism(privacy.noise_multiplier, privacy.sampling_rate, steps), answer.get("private") is True


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def take_rounds(site: Site, home: SiteHome, hub: HubClient, trainer: Trainer) -> None:
    """Forever: take tasks from the SuperNode, one at a time, and answer each with a contribution or a code."""
    runtime = runtime_address(home)
    queue = TaskQueue(TaskType.CLIENT_APP, runtime, None, read_private(home.superexec_secret))
    while True:
        try:
            taken = queue.acquire()
        except BractError:
            taken = None
        if taken is None:
            time.sleep(_POLL_S)
            continue
        try:
            task = ClientTask(runtime, taken.token)
            remember(home, task.node_id)
            try:
                reply = answer(site, home, hub, trainer, task)
            except BractError as error:
                log.warning("out of the round: %s", error)
                reply = {"refused": error.code}
            except Exception:  # noqa: BLE001 - the hub hears a code; the text stays in this site's own log
                log.error("%s", traceback.format_exc())
                reply = {"refused": SITE_FAILED}
            task.reply(reply)
        except (BractError, httpx.HTTPError, RuntimeError) as error:
            log.warning("task lost: %s", type(error).__name__)


def main(argv: list[str]) -> int:
    """Serve until killed."""
    start_logging()
    home = open_home(Path(argv[0]))
    disposal.start_daily(home)
    with connect(home, datetime.now(UTC)) as hub:
        site = open_site(home)
        site.registry.expire_reservations(datetime.now(UTC))
        trainer = Trainer(home)
        threading.Thread(target=answer_proposals, args=(site, home, hub), name="proposals", daemon=True).start()
        take_rounds(site, home, hub, trainer)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
