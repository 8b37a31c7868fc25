"""What an operator does with a campaign: create it with its public initial encoder, start it, stop it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bract.arrays import write_arrays
from bract.digest import Digest
from bract.errors import NOT_RUNNING, TOO_LARGE, UNKNOWN_ENCODER, UNKNOWN_OBJECTIVE, UNREACHABLE, BractError
from bract.files import read_private
from bract.objectives.spec import CATALOGUE
from bract.plan import CampaignPlan
from bract.privacy.accounting import epsilon
from bract.receipt import EncoderVersion
from bract.secure.ring import bounded_clip, scale_of
from bract.secure.stages import largest_question
from bract.signing import MAX_ENVELOPE
from bract.value import decode, digest_value, read_toml
from bract_server.arrays import ArrayStore
from bract_server.home import HubHome
from bract_server.lifecycle import CampaignState
from bract_server.limits import MAX_BODY
from bract_server.registry.store import HubRegistry

if TYPE_CHECKING:
    from bract.flower import Operator


_FRAME = 4 << 10
"""Bytes that Flower adds to a message, or more."""


def read_plan(path: Path) -> CampaignPlan:
    """A campaign plan from a TOML file.

    Raises:
        BractError: `unknown-objective`, `unknown-encoder`; `malformed`, naming each unknown, missing or wrong field.
    """
    values = read_toml(path)
    encoders = {encoder for entry in CATALOGUE.values() for encoder in entry.encoders}
    for part, known, code in (("objective", set(CATALOGUE), UNKNOWN_OBJECTIVE), ("encoder", encoders, UNKNOWN_ENCODER)):
        kind = values[part].get("kind") if isinstance(values.get(part), dict) else None
        if isinstance(kind, str) and kind not in known:
            raise BractError(code, f"{part}: {kind}")
    return decode(CampaignPlan, values).check()


def create(registry: HubRegistry, store: ArrayStore, plan: CampaignPlan, at: datetime) -> Digest:
    """Sign the plan and store its initial encoder, a function of the plan's public seed alone.

    Raises:
        BractError: `already-exists`, `unknown-site`, `malformed`; `too-large` when a secure round of so many sites would
            have to ask what does not pass Flower's door.
    """
    if plan.secure is not None:
        check_questions([site.name for site in plan.sites], plan.secure.threshold)
    # torch is needed here and nowhere else on this path; listing and watching campaigns stay quick
    from bract.encoders.weights import arrays_of  # noqa: PLC0415
    from bract.objectives.build import build  # noqa: PLC0415

    arrays = arrays_of(build(plan.encoder, plan.objective, plan.seed))
    if plan.secure is not None and plan.secure.noise is not None:
        bounded_clip(scale_of(plan.secure, len(plan.sites)), sum(array.size for array in arrays.values()))
    with tempfile.TemporaryDirectory(dir=store.scratch) as folder:
        path = Path(folder) / "arrays"
        write_arrays(path, arrays)
        size = path.stat().st_size
        named = store.adopt(path)
    initial = EncoderVersion(digest_value(plan), 0, named, size, parent=None, contributions=())
    return registry.create_campaign(plan, initial, at)


def check_questions(sites: Sequence[str], threshold: int) -> None:
    """That every question of a secure round passes Flower's door, beside the two envelopes that go with it.

    Raises:
        BractError: `too-large`.
    """
    largest = largest_question(sites, threshold)
    if largest > MAX_BODY - 2 * MAX_ENVELOPE - _FRAME:
        raise BractError(TOO_LARGE, f"secure: {threshold} sites' agreements on {len(sites)} names have {largest} bytes")


def forecast(plan: CampaignPlan) -> float:
    """The ε that the whole campaign costs a site whose ledger is empty, at the plan's δ."""
    return epsilon([plan.privacy.mechanism] * plan.rounds, plan.privacy.delta)


def site_forecast(plan: CampaignPlan, numbers: int) -> float | None:
    """The ε of one whole site towards the hub if every round opens one sum, at the plan's δ; None where nothing is proved.

    Args:
        plan: the campaign.
        numbers: of its encoder, or more.
    """
    if plan.secure is None or plan.secure.noise is None or plan.seeded_test is not None:
        return None
    # numpy's tables are of use to no other campaign
    from bract.secure.skellam import site_epsilon  # noqa: PLC0415

    epsilon = site_epsilon(plan.secure, numbers, plan.rounds, plan.privacy.delta)
    return epsilon if math.isfinite(epsilon) else None


def operator(home: HubHome) -> Operator:
    """The operator's door to the running hub.

    Raises:
        BractError: `key-permissions`, `operator-token`.
    """
    # Flower takes seconds to load; only the verbs that talk to it pay for that
    from bract.flower import Operator  # noqa: PLC0415

    token = read_private(home.operator_token).decode().strip()
    return Operator(home.settings().near_fleet, home.authority_file.read_bytes(), token)


def start(registry: HubRegistry, door: Operator, name: str, at: datetime) -> None:
    """Let a campaign run, or go on; the running hub's launcher begins within a second (`bract_server.resume`).

    Raises:
        BractError: `unknown-campaign`, `wrong-state`, `not-running`, `operator-token`; nothing is changed then.
    """
    registry.campaign(name)
    door.runs()
    registry.set_state(name, CampaignState.RUNNING, "", at)


def stop(registry: HubRegistry, store: ArrayStore, door: Operator, name: str, at: datetime) -> None:
    """Stop a campaign: no new round opens, the open one ends without a version, and so does every site's training.

    It holds whether the hub runs or not: the registry has the word, and a hub that comes back obeys it.

    Raises:
        BractError: `unknown-campaign`, `wrong-state`, `operator-token`.
    """
    campaign = registry.campaign(name).digest
    sent = [registry.updates(campaign, one.number) for one in registry.rounds(campaign) if one.closed_at is None]
    registry.set_state(name, CampaignState.STOPPED, "by the operator", at)
    for update in {digest for digests in sent for digest in digests if not registry.keeps(digest)}:
        store.discard(update)
    try:
        for run_id, status in door.runs().items():
            if status.status != "finished" and status.campaign == name:
                door.stop(run_id)
    except BractError as error:
        if error.code not in (NOT_RUNNING, UNREACHABLE):
            raise
