"""A version is made of exactly its round's contributions, with its lineage and receipts, or not at all."""

from dataclasses import replace
from datetime import timedelta

import pytest

from bract.digest import Digest
from bract.errors import BUDGET, LATE, MALFORMED, QUORUM, SITE_FAILED, STALE_CLEARANCE, STATE, BractError
from bract.receipt import RoundReceipt
from bract.signing import parse_envelope, unseal
from bract.value import digest_value
from bract_server.registry.lineage import ROUND, SNAPSHOT, VERSION, ancestors, descendants
from tests.server.registry.world import AT, SITES, World, named

LATER = AT + timedelta(seconds=90, microseconds=500_000)


def test_a_committed_round_is_told_in_full(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    for site in ("birch", "alder"):
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    digest = world.commit(campaign, number, at=LATER)
    (report,) = world.registry.rounds(campaign)
    assert (report.number, report.state, report.version) == (1, "committed", digest)
    assert (report.participants, report.missing) == (("alder", "birch"), {"cedar": LATE})
    assert (report.opened_at, report.closed_at, report.seconds, report.bytes_moved) == (AT, LATER, 90.5, 4000)
    newest = world.registry.latest_version(campaign)
    assert (newest.digest, newest.server_state) == (digest, named(f"state 1 {campaign}"))
    assert digest == digest_value(newest.value)
    assert [v.digest for v in world.registry.versions()] == [newest.value.parent, digest]


def test_each_contributor_gets_a_signed_receipt(world: World, campaign: Digest) -> None:
    versions = [world.whole_round(campaign, "alder", "birch") for _ in range(2)]
    receipts = world.registry.receipts("alder", 0)
    opened = [unseal(RoundReceipt, parse_envelope(data), world.registry.verify_key) for _, data in receipts]
    assert [(r.site, r.version, r.share) for r in opened] == [("alder", v, 0.5) for v in versions]
    assert world.registry.receipts("alder", receipts[0][0]) == receipts[1:]
    assert world.registry.receipts("alder", receipts[1][0]) == []
    assert world.registry.receipts("cedar", 0) == []


def test_lineage_leads_from_a_version_to_its_snapshots(world: World, campaign: Digest) -> None:
    first = world.whole_round(campaign, "alder", "birch")
    second = world.whole_round(campaign, "birch", "cedar")
    zero = world.registry.version(first).value.parent
    with world.registry.seeing() as session:
        assert ancestors(session, first, SNAPSHOT) == tuple(f"{s}/{named(f'snapshot {s}')}" for s in ("alder", "birch"))
        assert len(ancestors(session, second, SNAPSHOT)) == 3
        assert ancestors(session, second, VERSION) == (zero, first, second)
        assert len(ancestors(session, second, ROUND)) == 2
        assert descendants(session, SNAPSHOT, [f"cedar/{named('snapshot cedar')}"]) == (second,)
        assert descendants(session, SNAPSHOT, [f"alder/{named('snapshot alder')}"]) == (first, second)
        assert descendants(session, SNAPSHOT, [f"birch/{named('snapshot alder')}"]) == ()


def test_a_wrong_version_is_refused_and_nothing_is_kept(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, *SITES)
    for site in SITES:
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    right = world.version(campaign, number)
    shares = dict.fromkeys(SITES, 1 / 3)
    wrong = [
        (replace(right, number=2), shares, MALFORMED),
        (replace(right, parent=named("x")), shares, MALFORMED),
        (replace(right, campaign=named("x")), shares, MALFORMED),
        (replace(right, contributions=right.contributions[1:]), shares, STALE_CLEARANCE),
        (replace(right, contributions=right.contributions[::-1]), shares, STALE_CLEARANCE),
        (right, {"alder": 1.0}, STALE_CLEARANCE),
    ]
    for version, parts, code in wrong:
        with pytest.raises(BractError) as refusal:
            world.registry.commit_round(campaign, number, version, None, parts, {}, 0, AT)
        assert refusal.value.code == code
    assert len(world.registry.versions()) == 1
    assert world.registry.rounds(campaign)[0].state == "running"
    world.registry.commit_round(campaign, number, right, None, shares, {}, 0, AT)
    with pytest.raises(BractError) as refusal:
        world.registry.commit_round(campaign, number, right, None, shares, {}, 0, AT)
    assert refusal.value.code == STATE


def test_too_few_contributions_make_no_version(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    with pytest.raises(BractError) as refusal:
        world.commit(campaign, number)
    assert refusal.value.code == QUORUM


def test_an_aborted_round_says_why_and_stays_spent(world: World, campaign: Digest) -> None:
    world.registry.propose(campaign, AT)
    world.registry.refuse("birch", world.refusal("birch", campaign, 1, BUDGET), AT)
    world.answer(campaign, 1, "alder")
    world.registry.abort_round(campaign, 1, {"alder": SITE_FAILED}, LATER)
    (report,) = world.registry.rounds(campaign)
    assert (report.state, report.participants, report.version) == ("aborted", (), None)
    assert report.missing == {"alder": SITE_FAILED, "birch": BUDGET, "cedar": LATE}
    assert len(world.registry.spent("alder", "adult")) == 1


def test_who_contributed_to_an_aborted_round_is_not_told_to_have_been_late(world: World, campaign: Digest) -> None:
    number, plan = world.open(campaign, "alder", "birch")
    world.registry.accept(world.contribution("alder", campaign, number, plan.name), "alder", AT)
    world.registry.abort_round(campaign, number, {"birch": SITE_FAILED}, LATER)
    (report,) = world.registry.rounds(campaign)
    assert report.missing == {"alder": QUORUM, "birch": SITE_FAILED, "cedar": LATE}


def test_files_are_kept_as_long_as_they_are_needed(world: World, campaign: Digest) -> None:
    keeps = world.registry.keeps
    number, plan = world.open(campaign, "alder", "birch")
    for site in ("alder", "birch"):
        world.registry.accept(world.contribution(site, campaign, number, plan.name), site, AT)
    assert keeps(named("update alder 1"))
    world.commit(campaign, number)
    assert not keeps(named("update alder 1"))
    assert keeps(named("arrays 0 heart"))
    assert keeps(named(f"arrays 1 {campaign}"))
    assert keeps(named(f"state 1 {campaign}"))
    world.whole_round(campaign, "alder", "birch")
    assert not keeps(named(f"state 1 {campaign}"))
    assert keeps(named(f"state 2 {campaign}"))
    assert not keeps(named("anything else"))


def test_an_unknown_version_is_told(world: World) -> None:
    with pytest.raises(BractError) as refusal:
        world.registry.version(named("none"))
    assert refusal.value.code == MALFORMED
