"""A whole campaign with secure aggregation is the plain one but for rounding, and nothing leaves a site in the clear."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bract.arrays import Array, read_arrays, read_layout
from bract.digest import digest_file
from bract.errors import LATE, POLICY, SITE_FAILED, STALE_CLEARANCE, BractError
from bract.plan import CampaignPlan, ServerOptimizer, SitePlan
from bract.privacy.accounting import NANO, ORDERS, epsilon_of_curve
from bract.secure.ring import error_bound, scale
from bract.secure.spec import SecureSpec
from bract.signing import parse_envelope, sign
from bract.update import Contribution
from bract.value import decode
from bract_client.trainer import train
from bract_server import secure
from bract_server.cli.main import app
from bract_server.unmask import Opened
from tests.federation import NAMES, Federation, now, small_plan
from tests.server.test_collecting import Clock, hold_back, kept

SPEC = SecureSpec(threshold=2, clip=50.0)
SITES = tuple(SitePlan(name, weight, 100) for name, weight in zip(NAMES, (1.0, 2.5, 0.5), strict=True))
PLAN = Path(__file__).parents[2] / "deploy" / "plans" / "adult.toml"
Payload = dict[str, bytes | str]


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    world = Federation(tmp_path_factory.mktemp("world"))
    for place in world.places.values():
        place.site = replace(place.site, policy=replace(place.site.policy, test_datasets=("adult",)))
    return world


@pytest.fixture
def world(enrolled: Federation) -> Iterator[Federation]:
    """One federation for all tests of this file: each runs campaigns of its own."""
    yield enrolled
    vars(enrolled.grid).pop("push_messages", None)
    vars(enrolled.grid).pop("pull_messages", None)
    for place in enrolled.places.values():
        place.tamper = None
        place.wire.sent.clear()


def seeded(name: str, spec: SecureSpec | None) -> CampaignPlan:
    """Two campaigns of this kind train the same updates, so that only the way they are added differs."""
    server = ServerOptimizer("fedavg", 1.0)
    return small_plan(name=name, rounds=1, sites=SITES, server=server, seeded_test=7, secure=spec)


def arrays(world: Federation, name: str, version: int) -> dict[str, Array]:
    campaign = world.registry.campaign(name).digest
    found = next(v for v in world.registry.versions() if (v.value.campaign, v.value.number) == (campaign, version))
    path = world.store.path(found.value.arrays)
    return dict(read_arrays(path, read_layout(path)))


def test_a_secure_campaign_equals_the_plain_one_up_to_rounding(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear, sent = list[str](), list[Contribution]()

    def trains(home: Any, job: dict[str, str]) -> dict[str, object]:
        done = train(home, job)
        clear.append(digest_file(Path(job["update"])))
        return done

    def look(reply: Payload) -> Payload:
        signed = reply.get("contribution")
        if isinstance(signed, bytes):
            sent.append(decode(Contribution, parse_envelope(signed).payload))
        return reply

    world.run(seeded("plain", None))
    monkeypatch.setattr("tests.federation.train", trains)
    for place in world.places.values():
        place.tamper = look
    world.run(seeded("secure", SPEC))
    before, plain, masked = arrays(world, "plain", 0), arrays(world, "plain", 1), arrays(world, "secure", 1)
    bound = error_bound(scale(SPEC.clip, len(SITES)), [site.weight for site in SITES])
    moved = max(float(np.abs(values - before[name]).max()) for name, values in plain.items())
    assert moved > 1e4 * bound, "the updates are far larger than what rounding moves"
    for name, values in plain.items():
        single = 4 * np.finfo(np.float32).eps * (np.abs(before[name]).max() + moved)
        assert np.abs(values.astype(np.float64) - masked[name]).max() <= bound + single
    (report,) = world.reports("secure")
    assert report.state == "committed" and report.participants == tuple(sorted(NAMES))

    numbers = sum(values.size for values in plain.values())
    assert [one.update_bytes for one in sent] == [4 * numbers] * 3, "as many bytes as in the clear, without a header"
    assert len(clear) == 3 and not {one.update for one in sent} & set(clear), "no site's update left it"
    for place in world.places.values():
        assert not list(place.home.outbox.iterdir()), "neither does it stay"


def test_a_hub_that_asks_for_the_update_itself_is_refused(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan says that updates are masked; the hub first sends the plain round's message all the same."""
    replies, real = list[Payload](), secure.collect

    def greedy(hub: Any, post: Any, campaign: Any, sealed: Any, plan: Any, receive: Any) -> Opened:
        message: Payload = {"plan": sealed.to_json(), "campaign": campaign.envelope}
        replies.extend(place.work(dict(message)) for place in world.places.values())
        return real(hub, post, campaign, sealed, plan, receive)

    monkeypatch.setattr("bract_server.secure.collect", greedy)
    world.run(small_plan(name="greedy", secure=SPEC, rounds=1))
    assert replies == [{"refused": POLICY}] * 3
    assert world.reports("greedy")[0].state == "committed"


def test_a_site_whose_training_fails_is_taken_out_of_the_sum(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    coast = world.places["coast"]

    def fails(home: Any, job: dict[str, str]) -> dict[str, object]:
        if home is coast.home:
            raise BractError(SITE_FAILED)
        return train(home, job)

    monkeypatch.setattr("tests.federation.train", fails)
    world.run(small_plan(name="failing", secure=SPEC, rounds=1))
    (report,) = world.reports("failing")
    assert (report.state, report.participants) == ("committed", ("north", "south"))
    assert report.missing == {"coast": SITE_FAILED}


@pytest.mark.parametrize(("stage", "skipped"), [("advertise", 0), ("mask", 2)])
def test_what_comes_too_late_for_its_stage_is_kept_as_evidence_and_never_used(
    world: Federation, stage: str, skipped: int
) -> None:
    name = f"late-{stage}"
    world.create(small_plan(name=name, secure=SPEC, rounds=2, grace_s=4.0))
    hold_back(world, "coast", lambda: world.reports(name)[-1].number == 2, skipped)
    Clock(world).run(name)
    one, two = world.reports(name)
    assert (one.state, one.missing, two.participants) == ("committed", {"coast": LATE}, tuple(sorted(NAMES)))
    assert kept(world, name, "coast") == [(False, LATE, True), (True, None, True)]
    needed = {v.value.arrays for v in world.registry.versions()} | {v.server_state for v in world.registry.versions()}
    assert set(world.store.whole(now() + timedelta(days=1))) <= needed, "no update is left, the late one neither"


def test_a_withdrawal_from_an_opened_sum_aborts_the_round(world: Federation) -> None:
    """Nobody can be taken out of an opened sum: it is not used, and the campaign goes on with the next round."""
    north, left = world.places["north"], list[str]()
    persons = [row.strip() for row in (world.folder / "north" / "subjects.csv").read_text().splitlines()]

    def withdraws(reply: Payload) -> Payload:
        answer = reply.get("answer")
        if (
            isinstance(answer, bytes)
            and parse_envelope(answer).payload_type.endswith("unmasking+json; v=1")
            and not left
        ):
            left.append(next(one for one in persons if any(part.held for part in north.site.registry.parts(one))))
            north.site.registry.withdraw(left[0], now())
            notice = north.site.registry.take_notice(now(), timedelta(0))
            assert notice is not None
            world.registry.withdraw("north", sign(notice, north.home.signing_key()), now())
        return reply

    north.tamper = withdraws
    world.run(small_plan(name="withdrawn", secure=SPEC, rounds=1))
    first, second = world.reports("withdrawn")
    assert (first.state, first.missing["north"]) == ("aborted", STALE_CLEARANCE)
    assert second.state == "committed" and second.participants == tuple(sorted(NAMES))


def created(world: Federation, name: str, secure_table: str, *options: str) -> str:
    """What `bract campaign create` says of the shipped plan with this addition."""
    text = PLAN.read_text().replace('name = "adult-trial"', f'name = "{name}"')
    (world.folder / f"{name}.toml").write_text(text + secure_table)
    arguments = ["campaign", "create", str(world.folder / f"{name}.toml"), "--hub", str(world.hub_home.root), *options]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_an_operator_reads_what_is_proved_of_a_whole_site_and_what_is_not(world: Federation) -> None:
    bare, noisy = "\n[secure]\nthreshold = 2\nclip = 5.0\n", "[secure.noise]\nmultiplier = 20.0\n"
    assert "For a site as a whole: No DP guarantee." in created(world, "bare", bare)
    said = created(world, "noisy", bare + noisy)
    assert "(unit: a whole site; there or not)" in said and "No DP guarantee" not in said
    told = json.loads(created(world, "told", bare + noisy, "--json"))
    plan = world.registry.campaign("told").plan
    assert plan.secure is not None and plan.secure.noise is not None
    gaussian = epsilon_of_curve([math.ceil(a / 800 * plan.rounds * NANO) for a in ORDERS], plan.privacy.delta)
    assert gaussian <= told["site_epsilon"] <= 1.02 * gaussian
    assert told["epsilon"] == json.loads(created(world, "clear", "", "--json"))["epsilon"], "a subject's ε is the same"
    assert json.loads(created(world, "hidden", bare, "--json"))["site_epsilon"] is None
