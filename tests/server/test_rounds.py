"""Rounds commit on quorum, open only over clearances and reservations, and let no bad update in; nobody waits for ever."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bract.arrays import read_arrays, read_layout, write_arrays
from bract.digest import digest_file
from bract.errors import (
    BAD_ARRAYS,
    BUDGET,
    FOREIGN_CODE,
    LATE,
    MALFORMED,
    NO_ADMITTED,
    NOT_FINITE,
    OVERSPEND,
    POLICY,
    QUORUM,
    SITE_FAILED,
    STALE_CLEARANCE,
    STOPPED,
    TOO_LARGE,
    UNREACHABLE,
    UNTRUSTED,
    BractError,
)
from bract.privacy.accounting import epsilon, epsilon_of_curve, rdp_curve
from bract.privacy.budget import add
from bract.privacy.spec import Mechanism
from bract.receipt import RoundReceipt
from bract.signing import parse_envelope, sign, unseal
from bract.update import Contribution
from bract.value import decode
from bract_client.trainer import train
from bract_server import campaigns
from bract_server.rounds import Stopped, run_campaign
from tests.federation import NAMES, Federation, Place, now, small_plan

Payload = dict[str, bytes | str]


@pytest.fixture
def world(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


def reworked(place: Place, change: Callable[[Contribution], Contribution]) -> Callable[[Payload], Payload]:
    """A site that signs something else than its software made."""

    def tamper(reply: Payload) -> Payload:
        sealed = reply["contribution"]
        assert isinstance(sealed, bytes)
        value = decode(Contribution, parse_envelope(sealed).payload)
        return {"contribution": sign(change(value), place.home.signing_key()).to_json()}

    return tamper


def with_update(
    world: Federation, place: Place, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    """A site that sends other arrays than its software made."""

    def swap(value: Contribution) -> Contribution:
        path = world.store.path(value.update)
        made = world.store.scratch / "forged"
        write_raw(made, change(dict(read_arrays(path, read_layout(path)))))
        size = made.stat().st_size
        return dataclasses.replace(value, update=world.store.adopt(made), update_bytes=size)

    place.tamper = reworked(place, swap)


def write_raw(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays as a hostile site would write them: whatever they hold."""
    from safetensors.numpy import save_file

    save_file(arrays, path)


def test_a_campaign_runs_to_its_end_and_every_claim_about_it_is_stored(world: Federation) -> None:
    plan = small_plan()
    world.run(plan)
    campaign = world.registry.campaign(plan.name)
    reports = world.reports()
    assert [(r.number, r.state, r.participants, r.missing) for r in reports] == [
        (1, "committed", tuple(sorted(NAMES)), {}),
        (2, "committed", tuple(sorted(NAMES)), {}),
    ]
    newest = world.registry.latest_version(campaign.digest)
    parent = world.registry.version(newest.value.parent) if newest.value.parent else None
    assert parent is not None and parent.value.number == 1 and len(newest.value.contributions) == 3
    for name, place in world.places.items():
        receipts = world.registry.receipts(name, 0)
        assert len(receipts) == 2
        receipt = unseal(RoundReceipt, parse_envelope(receipts[-1][1]), place.site.hub_key)
        assert receipt.version == newest.digest and receipt.share == pytest.approx(1 / 3)
        assert world.registry.spent(name, "adult") == place.site.registry.spent("adult")
        assert epsilon(place.site.registry.spent("adult"), 1e-6) == epsilon([plan.privacy.mechanism] * 2, 1e-6)
    assert world.registry.verify_log().verified
    kept = {path.name for path in world.store.path(newest.value.arrays).parent.glob("*.safetensors")}
    versions = {world.store.path(v.value.arrays).name for v in world.registry.versions()}
    assert newest.server_state is not None
    assert kept == versions | {world.store.path(newest.server_state).name}, "updates are deleted after use"
    assert campaign.plan == plan


def test_a_round_commits_on_quorum_and_says_who_is_missing(world: Federation) -> None:
    world.places["coast"].up = False
    world.run(small_plan(rounds=1))
    (report,) = world.reports()
    assert (report.state, report.participants, report.missing) == ("committed", ("north", "south"), {"coast": LATE})


def test_without_a_quorum_no_version_is_made_and_the_campaign_ends_by_itself(world: Federation) -> None:
    for name in ("coast", "south"):
        world.places[name].up = False
    with pytest.raises(BractError) as caught:
        world.run(small_plan(deadline_s=0.2))
    assert caught.value.code == QUORUM
    assert {r.state for r in world.reports()} == {"aborted"}
    assert [v.value.number for v in world.registry.versions()] == [0]


def test_a_site_that_returns_takes_part_again(world: Federation) -> None:
    world.places["coast"].up = False
    world.run(small_plan(name="one", rounds=1))
    world.places["coast"].up = True
    world.run(small_plan(name="two", rounds=1))
    assert world.reports("two")[0].participants == tuple(sorted(NAMES))


def test_the_budget_stops_a_site_before_it_reads_anything(tmp_path: Path) -> None:
    plan = small_plan(rounds=3)
    one = rdp_curve(plan.privacy.mechanism)
    cap = epsilon_of_curve(add(one, one), 1e-6)
    world = Federation(tmp_path, epsilon_cap=cap)
    with pytest.raises(BractError):
        world.run(plan)
    states = [r.state for r in world.reports()]
    assert states == ["committed", "committed", "aborted", "aborted", "aborted"]
    assert set(world.reports()[-1].missing.values()) == {BUDGET}
    for place in world.places.values():
        assert epsilon(place.site.registry.spent("adult"), 1e-6) <= cap


def test_a_plan_looser_than_a_sites_policy_opens_no_round_for_it(world: Federation) -> None:
    place = world.places["coast"]
    strict = dataclasses.replace(place.site.policy, min_noise_multiplier=2.0)
    place.site = dataclasses.replace(place.site, policy=strict)
    world.run(small_plan(rounds=1))
    assert world.reports()[0].missing == {"coast": POLICY}
    assert place.site.registry.spent("adult") == ()


def test_too_few_consenting_subjects_open_no_round(world: Federation) -> None:
    place = world.places["coast"]
    strict = dataclasses.replace(place.site.policy, min_subjects=10_000)
    place.site = dataclasses.replace(place.site, policy=strict)
    world.run(small_plan(rounds=1))
    assert world.reports()[0].missing == {"coast": NO_ADMITTED}


def test_a_bundle_with_code_is_refused_unread(world: Federation) -> None:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", "")
        archive.writestr("bract_client/__init__.py", "raise SystemExit('evil')")
    world.places["coast"].bundle = buffer.getvalue()
    world.run(small_plan(rounds=1))
    assert world.reports()[0].missing == {"coast": FOREIGN_CODE}


def nan(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = next(iter(arrays))
    arrays[name].flat[0] = np.nan
    return arrays


def misshapen(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = next(iter(arrays))
    return arrays | {name: arrays[name].reshape(-1)[:-1].copy()}


def another_type(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = next(iter(arrays))
    return arrays | {name: arrays[name].astype(np.float64)}


def one_more(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return arrays | {"extra": np.zeros(1, np.float32)}


def huge(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array + np.float32(1e9) for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("change", "code"),
    [(nan, NOT_FINITE), (misshapen, BAD_ARRAYS), (another_type, BAD_ARRAYS), (one_more, BAD_ARRAYS), (huge, TOO_LARGE)],
)
def test_a_bad_update_is_refused_and_the_others_go_on(
    world: Federation, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], code: str
) -> None:
    with_update(world, world.places["coast"], change)
    world.run(small_plan(rounds=1))
    (report,) = world.reports()
    assert (report.state, report.participants, report.missing) == ("committed", ("north", "south"), {"coast": code})
    version = world.registry.latest_version(world.registry.campaign("small").digest)
    for _, array in read_arrays(
        world.store.path(version.value.arrays), read_layout(world.store.path(version.value.arrays))
    ):
        assert np.isfinite(array).all()


def spends_more(value: Contribution) -> Contribution:
    return dataclasses.replace(value, spent=Mechanism(value.spent.noise_multiplier, value.spent.sampling_rate, 3))


def less_noise(value: Contribution) -> Contribution:
    return dataclasses.replace(value, spent=Mechanism(0.9, value.spent.sampling_rate, value.spent.steps))


def other_plan(value: Contribution) -> Contribution:
    return dataclasses.replace(value, plan=value.clearance)


def seeded(value: Contribution) -> Contribution:
    return dataclasses.replace(value, private=False)


def never_sent(value: Contribution) -> Contribution:
    return dataclasses.replace(value, update=value.clearance)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (spends_more, OVERSPEND),
        (less_noise, OVERSPEND),
        (other_plan, UNTRUSTED),
        (seeded, POLICY),
        (never_sent, BAD_ARRAYS),
    ],
)
def test_a_false_contribution_is_refused_by_its_rule(
    world: Federation, change: Callable[[Contribution], Contribution], code: str
) -> None:
    world.places["coast"].tamper = reworked(world.places["coast"], change)
    world.run(small_plan(rounds=1))
    assert world.reports()[0].missing == {"coast": code}


def test_a_contribution_signed_by_another_site_is_refused(world: Federation) -> None:
    thief = world.places["coast"]
    thief.tamper = reworked(world.places["north"], lambda value: dataclasses.replace(value, site="coast"))
    world.run(small_plan(rounds=1))
    assert world.reports()[0].missing == {"coast": UNTRUSTED}


def test_an_old_contribution_sent_again_counts_for_nothing(world: Federation) -> None:
    coast, old = world.places["coast"], list[Payload]()
    coast.tamper = lambda reply: old.append(reply) or reply  # type: ignore[func-returns-value]
    world.run(small_plan(name="one", rounds=1))
    coast.tamper = lambda _: old[0]
    world.run(small_plan(name="two", rounds=1))
    assert world.reports("two")[0].missing == {"coast": UNTRUSTED}


@pytest.mark.parametrize(
    "reply", [{}, {"refused": "no such code"}, {"contribution": "text"}, {"contribution": b"\x00"}]
)
def test_nonsense_instead_of_an_answer_costs_the_others_nothing(world: Federation, reply: Payload) -> None:
    world.places["coast"].tamper = lambda _: reply
    world.run(small_plan(rounds=1))
    assert world.reports()[0].state == "committed"
    assert set(world.reports()[0].missing) == {"coast"}


def test_what_a_site_met_is_told_as_a_code_only(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise BractError(SITE_FAILED, "the text about P-000123 that must not leave")

    monkeypatch.setattr("tests.federation.train", fails)
    world.places["coast"].tamper = lambda reply: {k: str(v) for k, v in reply.items()}
    with pytest.raises(BractError):
        world.run(small_plan(rounds=1, deadline_s=2.0))
    assert world.reports()[0].missing == {"coast": SITE_FAILED, "north": SITE_FAILED, "south": SITE_FAILED}


def test_a_node_that_belongs_to_no_site_is_never_asked(world: Federation) -> None:
    stranger = ec.generate_private_key(ec.SECP384R1()).public_key()
    world.grid.strangers[99] = stranger.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    world.run(small_plan(rounds=1))
    assert world.reports()[0].participants == tuple(sorted(NAMES))


def test_a_site_without_a_node_is_missing_as_unreachable(world: Federation) -> None:
    world.grid._places = {n: p for n, p in world.grid._places.items() if p.name != "coast"}
    world.run(small_plan(rounds=1))
    assert world.reports()[0].missing == {"coast": UNREACHABLE}


def test_a_withdrawal_between_rounds_takes_the_subject_out_of_the_next(world: Federation) -> None:
    place = world.places["north"]
    world.run(small_plan(name="one", rounds=1))
    person = next(
        row.strip() for row in (world.folder / "north" / "subjects.csv").read_text().splitlines()
        if any(part.held for part in place.site.registry.parts(row.strip()))
    )  # fmt: skip
    assert place.site.registry.withdraw(person, now())
    world.run(small_plan(name="two", rounds=1))
    assert [part.held for part in place.site.registry.parts(person)] == [True, False]


def test_a_round_that_was_running_when_the_coordinator_died_is_taken_up_with_the_same_plan(world: Federation) -> None:
    plan = small_plan(rounds=1)
    world.create(plan)
    world.registry.set_state("small", "running", "", now())
    hub = world.hub()

    class Died(BaseException):
        """Like a SIGKILL, nothing catches it."""

    pulls = 0

    def dies_after_one(message_ids: object) -> object:
        nonlocal pulls
        pulls += 1
        if pulls == 2:
            raise Died
        return type(world.grid).pull_messages(world.grid, message_ids)  # type: ignore[arg-type]

    world.grid.pull_messages = dies_after_one  # type: ignore[assignment,method-assign]
    with pytest.raises(Died):
        run_campaign(hub, "small")
    del world.grid.pull_messages
    accepted = world.registry.contributions(world.registry.campaign("small").digest, 1)
    assert len(accepted) == 1
    run_campaign(world.hub(), "small")
    (report,) = world.reports()
    assert (report.number, report.state, len(report.participants)) == (1, "committed", 3)
    for place in world.places.values():
        assert len(place.site.registry.spent("adult")) == 1, "nobody trained twice"


def test_a_site_whose_answer_was_refused_is_not_asked_again_by_the_next_coordinator(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.create(small_plan(rounds=1))
    world.registry.set_state("small", "running", "", now())
    first = world.places[sorted(NAMES)[0]]
    asked = 0

    def forge(reply: Payload) -> Payload:
        nonlocal asked
        asked += 1
        return reply | {"contribution": b"{}"}

    first.tamper = forge
    reject = world.registry.reject

    def dies(*args: object) -> None:
        reject(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(world.registry, "reject", dies)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(world.hub(), "small")
    monkeypatch.undo()
    run_campaign(world.hub(), "small")
    (report,) = world.reports()
    assert (report.state, report.missing, asked) == ("committed", {first.name: MALFORMED}, 1)


def test_a_stop_deletes_what_was_accepted_in_the_open_round(world: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    world.create(small_plan(rounds=1))
    world.registry.set_state("small", "running", "", now())
    accept = world.registry.accept

    def dies(*args: object) -> None:
        accept(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(world.registry, "accept", dies)
    with pytest.raises(KeyboardInterrupt):
        run_campaign(world.hub(), "small")
    (update,) = world.registry.updates(world.registry.campaign("small").digest, 1)
    assert world.store.path(update).exists()

    class Door:
        def runs(self) -> dict[int, object]:
            return {}

    door: object = Door()
    campaigns.stop(world.registry, world.store, door, "small", now())  # type: ignore[arg-type]
    assert not world.store.path(update).exists()


def test_a_stopped_campaign_stops_and_can_be_taken_up_again(world: Federation) -> None:
    plan = small_plan(rounds=2)
    world.create(plan)
    world.registry.set_state("small", "running", "", now())
    hub = dataclasses.replace(world.hub(), wait=lambda _: True)
    with pytest.raises(Stopped):
        run_campaign(hub, "small")
    world.registry.set_state("small", "stopped", "by the operator", now())
    world.go("small")
    assert sum(r.state == "committed" for r in world.reports()) == 2


def test_the_initial_encoder_is_a_function_of_the_public_seed(world: Federation) -> None:
    campaigns.create(world.registry, world.store, small_plan(name="one"), now())
    campaigns.create(world.registry, world.store, small_plan(name="two"), now())
    arrays = {v.value.arrays for v in world.registry.versions()}
    assert len(arrays) == 1
    assert digest_file(world.store.path(arrays.pop())).startswith("sha256:")


def test_a_round_is_wanted_while_it_runs_and_ends_with_a_stop_even_if_the_campaign_goes_on_at_once(
    world: Federation,
) -> None:
    world.run(small_plan(name="one", rounds=1))
    done = world.registry.campaign("one").digest
    assert not world.registry.wanted(done, 1)
    world.create(small_plan(name="two", rounds=1))
    world.registry.set_state("two", "running", "", now())
    seen = list[bool]()
    running = world.registry.campaign("two").digest
    coast = world.places["coast"]

    def look(reply: Payload) -> Payload:
        seen.append(world.registry.wanted(running, 1))
        world.registry.set_state("two", "stopped", "by the operator", now())
        seen.append(world.registry.wanted(running, 1))
        world.registry.set_state("two", "running", "", now())
        coast.tamper = None
        return reply

    coast.tamper = look
    run_campaign(world.hub(), "two")
    assert seen == [True, False]
    first, second = world.registry.rounds(running)
    assert (first.state, second.state, len(second.participants)) == ("aborted", "committed", 3)
    assert set(first.missing.values()) == {STOPPED}


def test_an_update_does_not_leave_when_somebody_in_it_withdrew_while_it_was_trained(
    world: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    north = world.places["north"]
    persons = [row.strip() for row in (world.folder / "north" / "subjects.csv").read_text().splitlines()]

    def trains(home: object, job: Mapping[str, str]) -> dict[str, object]:
        done = train(home, job)  # type: ignore[arg-type]
        if home is north.home:
            person = next(one for one in persons if any(part.held for part in north.site.registry.parts(one)))
            north.site.registry.withdraw(person, now())
        return done

    monkeypatch.setattr("tests.federation.train", trains)
    world.run(small_plan(rounds=1))
    (report,) = world.reports()
    assert report.state == "committed" and report.missing == {"north": STALE_CLEARANCE}
    assert north.wire.sent == [], "nothing left the site"
    assert len(north.site.registry.spent("adult")) == 1, "what it cost stays spent"


def test_a_quorum_just_before_the_deadline_still_has_its_time_to_train(world: Federation) -> None:
    world.places["coast"].up = False
    world.run(small_plan(rounds=1, deadline_s=3.0, grace_s=2.9))
    assert world.reports()[0].state == "committed"


def test_updates_that_nobody_needs_are_deleted_when_the_next_campaign_starts(world: Federation, tmp_path: Path) -> None:
    import os

    stray = world.store.scratch / "stray"
    write_arrays(stray, {"w": np.ones((2, 2), np.float32)})
    named = world.store.adopt(stray)
    os.utime(world.store.path(named), (0, 0))
    world.run(small_plan(rounds=1))
    assert not world.store.path(named).exists()
