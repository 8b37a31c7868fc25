"""A hub that lies, with its own true key: each lie is refused by the site, by name, before anything of a person is read.

And sites that lie together. What a site cannot see alone (another plan to another site) is what the two logs are for: each
cosigns the other's, and a fork ends the rounds (`tests/client/test_watch_logs.py`).
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.arrays import read_arrays, read_layout, write_arrays
from bract.digest import Digest, digest, digest_file
from bract.errors import (
    BAD_ARRAYS,
    BUDGET,
    CLOCK,
    DIGEST_MISMATCH,
    DONE_BEFORE,
    FOREIGN_CODE,
    LATE,
    MALFORMED,
    NO_CLEARANCE,
    NO_RESERVATION,
    POLICY,
    REPLAY,
    STATE,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import CampaignPlan, Place, Proposal, RoundPlan
from bract.signing import Envelope, parse_envelope, payload_type, sign
from bract.update import Contribution
from bract.value import decode, encode
from bract_client.trainer import train
from bract_server.rounds import run_campaign
from tests.federation import Federation, NearTask, now, small_plan
from tests.federation import Place as Site
from tests.hostile.attacks import json_bytes
from tests.hostile.oracle import sealed

NOWHERE = digest(b"nowhere")


class Stage:
    """Two sites that have answered a proposal, and the hub's own key in the test's hand."""

    def __init__(self, folder: Path) -> None:
        self.world = Federation(folder, ("north", "south"))
        plan = small_plan(name="true", sites=small_plan().sites[:2], rounds=1, deadline_s=300.0)
        self.campaign = self.world.create(plan)
        self.world.registry.set_state("true", "running", "", now())
        self.key = self.world.hub_home.signing_key()
        self.plan = self.world.registry.campaign("true").plan
        self.envelope = parse_envelope(self.world.registry.campaign("true").envelope)
        self.proposal = self.world.registry.propose(self.campaign, now())
        for place in self.world.places.values():
            place.answer_proposals()
        self.places = self.world.registry.answers(self.campaign, self.proposal.number, now()).places
        assert len(self.places) == 2
        newest = self.world.registry.latest_version(self.campaign)
        at = now()
        self.round = RoundPlan(
            self.campaign,
            self.proposal.number,
            newest.digest,
            newest.value.arrays,
            newest.value.arrays_bytes,
            self.places,
            at,
            at + timedelta(minutes=5),
        )

    @property
    def north(self) -> Site:
        return self.world.places["north"]

    def asked(self, plan: Envelope, campaign: Envelope | None = None, files: tuple[str, ...] = ()) -> str:
        """The code by which the site refuses to train this, or what it would do."""
        payload: dict[str, bytes | str] = {"plan": plan.to_json(), "campaign": (campaign or self.envelope).to_json()}
        return code(lambda: self.north.site.task(payload, files, now()))

    def own(self) -> Place:
        return next(place for place in self.places if place.site == "north")


def code(call: Callable[[], object]) -> str:
    try:
        call()
    except BractError as error:
        return error.code
    return "agreed"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    yield Stage(tmp_path_factory.mktemp("liars"))


def test_the_true_plan_is_agreed_to(stage: Stage) -> None:
    assert stage.asked(sign(stage.round, stage.key)) == "agreed"


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "a cohort of one": ({"cohort": "own"}, POLICY),
    "a cohort without the site": ({"cohort": "others"}, NO_CLEARANCE),
    "the site twice": ({"cohort": "twice"}, NO_CLEARANCE),
    "a stranger in the cohort": ({"cohort": "stranger"}, UNTRUSTED),
    "another site twice": ({"cohort": "doubled"}, UNTRUSTED),
    "a round without end": ({"deadline": now() + timedelta(days=3650)}, UNTRUSTED),
    "another site's clearance": ({"cohort": "stolen"}, NO_CLEARANCE),
    "a clearance that nobody gave": ({"cohort": "invented"}, NO_CLEARANCE),
    "a reservation that nobody made": ({"cohort": "unreserved"}, NO_RESERVATION),
    "another round's number": ({"number": 7}, NO_CLEARANCE),
    "a deadline that is past": ({"deadline": now() - timedelta(seconds=1)}, LATE),
    "a round of tomorrow": ({"opened_at": now() + timedelta(days=1), "deadline": now() + timedelta(days=2)}, CLOCK),
    "another campaign": ({"campaign": NOWHERE}, UNTRUSTED),
    "a path instead of a digest": ({"arrays": Digest("../../../../tmp/owned")}, MALFORMED),
    "a size that is none": ({"arrays_bytes": 0}, MALFORMED),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_in_a_rounds_plan_is_refused_by_name(stage: Stage, lie: str) -> None:
    changes, expected = LIES[lie]
    own, (other,) = stage.own(), [place for place in stage.places if place.site != "north"]
    cohorts = {
        "own": (own,),
        "others": (other, replace(other, site="coast")),
        "twice": (own, own),
        "stranger": (own, other, replace(other, site="coast")),
        "doubled": (own, other, other),
        "stolen": (replace(other, site="north"), other),
        "invented": (replace(own, clearance=NOWHERE), other),
        "unreserved": (replace(own, reservation=NOWHERE), other),
    }
    changes = {name: cohorts[value] if name == "cohort" else value for name, value in changes.items()}
    if changes.get("number") == 7:
        changes["cohort"] = stage.places
    assert stage.asked(sign(replace(stage.round, **changes), stage.key)) == expected
    assert stage.north.site.registry.trained(stage.campaign, stage.round.number) is None


def test_a_plan_of_another_key_or_type_is_refused(stage: Stage) -> None:
    true, stranger = encode(stage.round), Ed25519PrivateKey.generate()
    for envelope in (
        sealed(payload_type(RoundPlan), true, stranger),
        sealed(payload_type(CampaignPlan), true, stage.key),
        sealed(payload_type(Proposal), true, stage.key),
        sealed(payload_type(RoundPlan), json.dumps(json.loads(true), indent=1).encode(), stage.key),
    ):
        assert stage.asked(parse_envelope(envelope)) == UNTRUSTED


def test_code_in_the_bundle_is_refused_before_the_plan_is_looked_at(stage: Stage) -> None:
    assert stage.asked(sign(stage.round, stage.key), files=("pyproject.toml", "bract/x.py")) == FOREIGN_CODE


def imprint(plan: dict[str, Any]) -> dict[str, Any]:
    """A layer that writes each record's features into its own row of gradients [Fowl et al. 2022, 2110.13057]."""
    return {**plan, "encoder": {**plan["encoder"], "imprint": {"bins": 512}}}


def other_kind(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "encoder": {**plan["encoder"], "kind": "imprint"}}


def other_objective(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "objective": {**plan["objective"], "kind": "reconstruct-inputs"}}


def no_noise(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "privacy": {**plan["privacy"], "noise_multiplier": 0.01}}


def huge_clip(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "privacy": {**plan["privacy"], "clip": 1e5}}


def everybody(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "privacy": {**plan["privacy"], "sampling_rate": 1}}


def lone(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "quorum": 1}


def for_release(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "purpose": "release-public"}


def without_the_site(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "sites": [{**site, "name": f"{site['name']}x"} for site in plan["sites"]]}


def too_dear(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "privacy": {**plan["privacy"], "steps": 900_000, "noise_multiplier": 0.5, "sampling_rate": 0.5}}


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (imprint, MALFORMED),
        (other_kind, MALFORMED),
        (other_objective, MALFORMED),
        (no_noise, POLICY),
        (huge_clip, POLICY),
        (everybody, POLICY),
        (lone, POLICY),
        (for_release, POLICY),
        (without_the_site, UNKNOWN_SITE),
        (too_dear, BUDGET),
    ],
)
def test_a_campaign_that_the_site_would_not_run_is_refused_at_its_proposal_and_in_its_round(
    stage: Stage, lie: Callable[[dict[str, Any]], dict[str, Any]], expected: str
) -> None:
    payload = json_bytes(lie(json.loads(stage.envelope.payload)))
    campaign = parse_envelope(sealed(payload_type(CampaignPlan), payload, stage.key))
    proposal = sign(Proposal(campaign.name, 1, now()), stage.key)
    assert code(lambda: stage.north.site.answer(proposal, campaign, now())) == expected
    if expected != BUDGET:
        assert stage.asked(sign(replace(stage.round, campaign=campaign.name), stage.key), campaign) == expected


def test_a_campaign_other_than_the_one_that_was_proposed_is_refused(stage: Stage) -> None:
    other = sign(replace(stage.plan, name="other"), stage.key)
    assert code(lambda: stage.north.site.answer(sign(stage.proposal, stage.key), other, now())) == UNTRUSTED
    assert stage.asked(sign(stage.round, stage.key), other) == UNTRUSTED


def test_a_proposal_of_tomorrow_is_refused(stage: Stage) -> None:
    later = sign(replace(stage.proposal, opened_at=now() + timedelta(hours=1)), stage.key)
    assert code(lambda: stage.north.site.answer(later, stage.envelope, now())) == CLOCK


def with_arrays(stage: Stage, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> str:
    """What the site's training says of arrays that the hub changed, truly named by their digest."""
    path = stage.world.store.path(stage.round.arrays)
    forged = stage.north.home.outbox / "forged"
    arrays = dict(read_arrays(path, read_layout(path)))
    write_arrays(forged, change(arrays))
    plan = sign(replace(stage.round, arrays=digest_file(forged), arrays_bytes=forged.stat().st_size), stage.key)
    job = {"campaign": stage.envelope.to_json().decode(), "plan": plan.to_json().decode()}
    out = stage.north.home.outbox / "out"
    told = code(lambda: train(stage.north.home, {**job, "arrays": str(forged), "update": str(out)}))
    assert not out.exists()
    return told


def one_more(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**arrays, "imprint.weight": np.ones((512, 8), np.float32)}


def wider(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = max(arrays, key=lambda one: arrays[one].size)
    return {**arrays, name: np.concatenate([arrays[name], arrays[name]])}


def one_less(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(list(arrays.items())[1:])


@pytest.mark.parametrize("change", [one_more, wider, one_less])
def test_arrays_that_are_not_the_plans_encoder_train_nothing(stage: Stage, change: Any) -> None:
    assert with_arrays(stage, change) == BAD_ARRAYS


def test_a_hub_cannot_have_a_site_fetch_more_than_it_allows_nor_something_else(stage: Stage) -> None:
    from bract_client.executor import run_round

    north = stage.north
    wire: Any = north.wire
    asked: list[object] = []

    class Watched:
        def get(self, *one: object) -> None:
            asked.append(one)
            raise BractError(DIGEST_MISMATCH)

        put, wanted = wire.put, wire.wanted

    def run(plan: RoundPlan) -> str:
        task: Any = NearTask(
            {"plan": sign(plan, stage.key).to_json(), "campaign": stage.envelope.to_json()}, north.bundle
        )
        hub: Any = Watched()
        nobody: Any = None
        return code(lambda: run_round(north.site, north.home, hub, nobody, task))

    assert run(replace(stage.round, arrays_bytes=9 << 30)) == TOO_LARGE
    assert asked == []
    assert run(stage.round) == DIGEST_MISMATCH
    assert len(asked) == 1
    assert north.site.registry.begun(stage.campaign, stage.round.number) is None, "nothing was spent"


def test_sites_that_lie_together_gain_nothing(tmp_path: Path) -> None:
    """South sends what north signed; north sends its own twice; both then send for a round that is over."""
    world = Federation(tmp_path, ("north", "south"))
    plan = small_plan(name="one", sites=small_plan().sites[:2], rounds=1, quorum=2, deadline_s=300.0)
    campaign = world.create(plan)
    world.registry.set_state("one", "running", "", now())
    sent: dict[str, bytes] = {}

    def keeps(name: str) -> Callable[[dict[str, bytes | str]], dict[str, bytes | str]]:
        def tamper(reply: dict[str, bytes | str]) -> dict[str, bytes | str]:
            assert isinstance(reply["contribution"], bytes)
            sent[name] = reply["contribution"]
            return reply

        return tamper

    for name, place in world.places.items():
        place.tamper = keeps(name)
    told: list[str] = []
    north, south = world.places.values()

    def meddle(reply: dict[str, bytes | str]) -> dict[str, bytes | str]:
        keeps("south")(reply)
        theirs = parse_envelope(sent["north"])
        value = decode(Contribution, theirs.payload)
        accept = world.registry.accept
        told.append(code(lambda: accept(theirs, "south", now())))
        told.append(code(lambda: accept(sign(replace(value, site="south"), south.home.signing_key()), "south", now())))
        told.append(code(lambda: accept(sign(replace(value, site="south"), north.home.signing_key()), "south", now())))
        told.append(code(lambda: accept(sign(value, south.home.signing_key()), "north", now())))
        return reply

    south.tamper = meddle
    run_campaign(world.hub(), "one")
    assert told == [UNTRUSTED] * 4
    late = parse_envelope(sent["north"])
    assert code(lambda: world.registry.accept(late, "north", now())) in (REPLAY, STATE)
    assert len(world.registry.contributions(campaign, 1)) == 2
    plan_again = world.registry.round_plan(campaign, 1)
    assert plan_again is not None
    asked = {"plan": plan_again.to_json(), "campaign": world.registry.campaign("one").envelope}
    assert north.work(dict(asked))["contribution"], "a round that is asked for again is answered, not trained, again"
    assert len(north.site.registry.spent("adult")) == 1
    assert code(lambda: north.site.registry.begin_training(campaign, 1, now())) == DONE_BEFORE
