"""What persons lay down about retention: two of them for a hold, one for a conflict, and nothing is ever changed."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError

from bract.consent import Decision, Purpose
from bract.digest import digest
from bract.errors import ALREADY_EXISTS, MALFORMED, SAME_PERSON, STATE, UNKNOWN_SUBJECT, BractError
from bract.privacy.spec import Mechanism
from bract.retention import (
    Action,
    LegalHold,
    ObjectKind,
    Obstacle,
    RetentionPolicy,
    RetentionRule,
    Selector,
    State,
    Trigger,
    Way,
    parse_period,
)
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import HOUR, T0, Person, add_table, open_registry, persons, write_table

DAY = timedelta(days=1)
LATER = T0 + 60 * DAY
OLD = "2025-04-01T00:00:00+00:00"
HOLD = LegalHold("case-1", Selector(scopes=("adult",)), "inquiry", "Ana", "Ben", T0)


def policy(
    name: str,
    *,
    floor: str | None = None,
    ceiling: str | None = None,
    version: int = 1,
    trigger: Trigger = Trigger.COLLECTION,
) -> RetentionPolicy:
    least, most = (None if one is None else parse_period(one) for one in (floor, ceiling))
    return RetentionPolicy(name, version, ObjectKind.RECORD, "law", trigger, least, most, Action.DELETE, "Ana")


@pytest.fixture
def store(database_url: str, tmp_path: Path) -> Iterator[tuple[Engine, SiteRegistry]]:
    yield from _store(database_url, tmp_path)


@pytest.fixture
def registry(store: tuple[Engine, SiteRegistry]) -> SiteRegistry:
    return store[1]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "registry.db"
    engine, _ = open_registry(f"sqlite:///{path}")
    engine.dispose()
    return path


@pytest.fixture
def here(migrated: Path, tmp_path: Path) -> Iterator[SiteRegistry]:
    """For rules of the verbs alone, which need one database."""
    shutil.copyfile(migrated, tmp_path / "registry.db")
    for _, registry in _store(f"sqlite:///{tmp_path}/registry.db", tmp_path):
        yield registry


def _store(url: str, folder: Path) -> Iterator[tuple[Engine, SiteRegistry]]:
    engine, registry = open_registry(url)
    add_table(registry, write_table(folder / "t.parquet", [Person("r0", "P-0", collected_at=OLD), *persons(3)[1:]]))
    registry.ingest("adult", T0)
    yield engine, registry
    registry.verify_log()
    registry.check()
    engine.dispose()


def bound(registry: SiteRegistry, *policies: RetentionPolicy, scope: str = "adult") -> None:
    for one in policies:
        registry.add_policy(one, T0)
        registry.bind_policy(one.name, scope, "Ana", T0)


def refused(call: object, *arguments: object, **named: object) -> str:
    with pytest.raises(BractError) as caught:
        call(*arguments, **named)  # type: ignore[operator]  # any verb
    return caught.value.code


def test_versions_of_a_policy_follow_each_other(here: SiteRegistry) -> None:
    bound(here, policy("keep", ceiling="P1Y"))
    assert [one.object for one in here.due(LATER, LATER)] == ["1"]
    assert refused(here.add_policy, policy("keep", ceiling="P2Y"), T0) == STATE
    assert refused(here.add_policy, policy("keep", ceiling="P2Y", version=3), T0) == STATE
    here.add_policy(policy("keep", ceiling="P2Y", version=2), LATER)
    assert here.due(LATER, LATER) == ()
    assert [one.object for one in here.due(LATER, LATER - DAY)] == ["1"]  # as it stood before
    assert len(here.retention_policies()) == 2


def test_a_binding_is_made_and_ended(here: SiteRegistry) -> None:
    assert refused(here.bind_policy, "keep", "adult", "Ana", T0) == MALFORMED
    bound(here, policy("keep", ceiling="P1Y"))
    assert refused(here.bind_policy, "keep", "adult", "Ana", T0) == ALREADY_EXISTS
    here.unbind_policy("keep", "adult", "Ben", LATER)
    assert here.due(LATER, LATER) == ()
    assert refused(here.unbind_policy, "keep", "adult", "Ben", LATER) == STATE
    here.bind_policy("keep", "1", "Ana", LATER)  # one record, by its number
    assert [one.object for one in here.due(LATER, LATER)] == ["1"]


def test_a_due_list_names_numbers_and_says_what_blocks(registry: SiteRegistry) -> None:
    bound(registry, policy("keep", ceiling="P1Y"))
    registry.reserve(digest(b"c"), 1, "adult", Mechanism(1.0, 0.1, 1), T0, 90 * DAY)
    registry.begin_training(digest(b"c"), 1, T0)
    registry.place_hold(HOLD, lambda: T0)
    (line,) = registry.due(LATER, LATER)
    assert (line.kind, line.object, line.scopes, line.state) == (ObjectKind.RECORD, "1", ("adult",), State.BLOCKED)
    assert {one.kind for one in line.blockers} == {Obstacle.HOLD, Obstacle.ROUND}
    soon = registry.due(T0 + 3650 * DAY, T0)
    assert [one.object for one in soon] == ["1", "2", "3"]
    assert {one.state for one in soon} == {State.KEPT}
    assert not any(word in repr(soon) for word in ("P-0", "r0", "r1"))


def test_a_hold_takes_two_persons_and_so_does_its_end(here: SiteRegistry) -> None:
    alone = LegalHold("case-2", Selector(), "inquiry", "Ana", "ANA", T0)
    assert refused(here.place_hold, alone, lambda: T0) == SAME_PERSON
    here.place_hold(HOLD, lambda: T0)
    assert refused(here.place_hold, HOLD, lambda: T0) == ALREADY_EXISTS
    assert refused(here.lift_hold, "case-1", "Ben", "ben", "over", T0) == SAME_PERSON
    assert refused(here.lift_hold, "case-9", "Ben", "Ana", "over", T0) == STATE
    here.lift_hold("case-1", "Ben", "Ana", "over", T0)
    assert refused(here.lift_hold, "case-1", "Ben", "Ana", "over", T0) == STATE
    assert refused(here.subject_numbers, ["P-0", "nobody"]) == UNKNOWN_SUBJECT


def test_a_conflict_waits_for_a_person_whose_word_is_kept(registry: SiteRegistry) -> None:
    bound(registry, policy("short", ceiling="P1Y"), policy("long", floor="P10Y"))
    (line,) = registry.due(LATER, LATER)
    assert (line.state, {one.kind for one in line.blockers}) == (State.CONFLICT, {Obstacle.FLOOR, Obstacle.CONFLICT})
    (conflict,) = registry.conflicts(LATER)
    assert (conflict.names, conflict.objects, conflict.decided) == (("long", "short"), 3, None)
    assert refused(registry.decide_conflict, "0000000", Way.KEEP, "Ana", "law", LATER) == STATE
    registry.decide_conflict(conflict.terms[:20], Way.KEEP, "Ana", "the study's documents", LATER)
    assert registry.due(LATER, LATER) == ()
    registry.decide_conflict(conflict.terms, Way.DELETE, "Ben", "the notice promised it", LATER)
    assert [one.state for one in registry.due(LATER, LATER)] == [State.DUE]
    assert [(one.way, one.by) for one in registry.retention_decisions()] == [(Way.KEEP, "Ana"), (Way.DELETE, "Ben")]
    # other policies are other terms: the decision was not about them
    bound(registry, policy("longer", floor="P20Y"))
    assert [one.state for one in registry.due(LATER, LATER)] == [State.CONFLICT]


def test_events_that_nobody_else_tells(registry: SiteRegistry) -> None:
    bound(registry, policy("study", ceiling="P30D", trigger=Trigger.STUDY_END))
    assert registry.due(LATER, LATER) == ()
    assert refused(registry.tell_event, Trigger.STUDY_END, "adult", LATER, "Ana", T0) == MALFORMED
    assert refused(registry.tell_event, Trigger.COLLECTION, "adult", T0, "Ana", T0) == MALFORMED
    registry.tell_event(Trigger.STUDY_END, "adult", T0, "Ana", T0)
    assert [one.due_at for one in registry.due(LATER, LATER)] == [T0 + 30 * DAY] * 3
    registry.tell_event(Trigger.STUDY_END, "2", LATER, "Ana", LATER)  # one record's own
    assert [one.object for one in registry.due(LATER, LATER)] == ["1", "3"]


def test_a_withdrawal_starts_a_period(registry: SiteRegistry) -> None:
    bound(registry, policy("gone", ceiling="P30D", trigger=Trigger.WITHDRAWAL))
    registry.withdraw("P-1", T0 + DAY)
    assert registry.due(T0 + 30 * DAY, LATER) == ()
    assert [(one.object, one.due_at) for one in registry.due(LATER, LATER)] == [("2", T0 + 31 * DAY)]


def test_a_withdrawal_from_one_data_set_starts_no_period_in_another(registry: SiteRegistry, tmp_path: Path) -> None:
    add_table(registry, write_table(tmp_path / "u.parquet", persons(3)), "more")
    registry.ingest("more", T0)
    bound(registry, policy("gone", ceiling="P30D", trigger=Trigger.WITHDRAWAL))
    registry.decide("P-1", "any-use", Decision.WITHDRAW, T0 + DAY, dataset="adult")
    assert [(one.scopes, one.object) for one in registry.due(LATER, LATER)] == [(("adult",), "2")]
    assert registry.admission("more", Purpose.PRETRAINING, LATER).admitted_subjects == 3


def test_a_withdrawal_of_every_use_starts_a_period_whatever_the_permit_was_called(registry: SiteRegistry) -> None:
    bound(registry, policy("gone", ceiling="P30D", trigger=Trigger.WITHDRAWAL))
    registry.decide("P-1", "DUO:0000042", Decision.PERMIT, T0)
    registry.decide("P-2", "DUO:0000042", Decision.PERMIT, T0)
    registry.withdraw("P-1", T0 + DAY)
    registry.decide("P-2", Purpose.PRETRAINING, Decision.WITHDRAW, T0 + DAY)
    assert [one.object for one in registry.due(LATER, LATER)] == ["2"], "the other one's permit stands for other uses"


def test_the_last_use_of_a_data_set_counts_for_its_records(here: SiteRegistry) -> None:
    bound(here, policy("idle", ceiling="P30D", trigger=Trigger.LAST_USE))
    assert len(here.due(LATER, LATER)) == 3
    here.reserve(digest(b"c"), 1, "adult", Mechanism(1.0, 0.1, 1), LATER, HOUR)
    here.begin_training(digest(b"c"), 1, LATER)
    assert here.due(LATER + DAY, LATER + DAY) == ()


def test_a_data_sets_own_days_stand_beside_the_policies(here: SiteRegistry, tmp_path: Path) -> None:
    path = write_table(tmp_path / "u.parquet", [Person("r0", "P-0", collected_at=OLD)])
    assert not here.under_policy()
    add_table(here, path, "more", retention=RetentionRule(365))
    here.ingest("more", T0)
    assert here.under_policy()
    (line,) = here.due(LATER, LATER)
    assert line.state is State.DUE
    bound(here, policy("long", floor="P10Y"), scope="more")
    assert [one.state for one in here.due(LATER, LATER)] == [State.CONFLICT]


FORBIDDEN = [
    "UPDATE retention_policy SET ceiling = 'P99Y'",
    "DELETE FROM retention_policy",
    "UPDATE retention_binding SET scope = ''",
    "DELETE FROM retention_binding",
    "UPDATE legal_hold SET to_at = from_at",
    "DELETE FROM legal_hold",
    "INSERT INTO legal_hold_lift SELECT name, 'Ana', 'Ana', 'x', placed_at FROM legal_hold",
    "UPDATE retention_decision SET way = 'delete'",
    "DELETE FROM retention_decision",
    "UPDATE retention_event SET came_at = told_at",
]


def test_what_was_laid_down_cannot_be_changed(store: tuple[Engine, SiteRegistry]) -> None:
    engine, registry = store
    bound(registry, policy("short", ceiling="P1Y"), policy("long", floor="P10Y"))
    registry.place_hold(HOLD, lambda: T0)
    registry.tell_event(Trigger.STUDY_END, "adult", T0 - DAY, "Ana", T0)
    (conflict,) = registry.conflicts(LATER)
    registry.decide_conflict(conflict.terms, Way.KEEP, "Ana", "law", LATER)
    for statement in FORBIDDEN:
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(text(statement))
