import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bract.consent import ConsentEvent, Decision, Evidence, Purpose, Verdict, resolve
from bract.digest import Digest, digest
from bract.encoders.spec import TableSpec, ViTSpec
from bract.errors import MALFORMED, NO_ADMITTED, NO_CLEARANCE, STALE_CLEARANCE, BractError
from bract.objectives.spec import MaskedImageSpec
from bract.plan import CampaignPlan
from bract.retention import RetentionRule
from bract.tables import schema
from bract.value import digest_value
from bract_client.admission import AdmittedDataset, admit
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import ImagesLocation
from tests.client.site_world import (
    HOUR,
    PRETRAINING,
    T0,
    Person,
    add_table,
    campaign,
    open_registry,
    persons,
    round_of,
    write_table,
)

DAY = timedelta(days=1)
AGE = schema("adult").numeric[0]


def refused(code: str) -> pytest.RaisesExc[BractError]:
    return pytest.RaisesExc(BractError, check=lambda error: error.code == code)


def site(folder: Path, rows: list[Person]) -> SiteRegistry:
    _, registry = open_registry(f"sqlite:///{folder / 'registry.db'}")
    add_table(registry, write_table(folder / "t.parquet", rows))
    registry.ingest("adult", T0)
    return registry


def cleared(registry: SiteRegistry, plan: CampaignPlan, at: datetime, number: int = 1) -> Digest:
    snapshot = registry.freeze(plan.dataset, plan.purpose, at)
    return registry.clearance(plan, number, snapshot, DAY, 1, at).name


def ages(data: AdmittedDataset) -> list[int]:
    """Whose records these are: a person's age is 20 plus its number."""
    x, mask = data.records(np.arange(len(data)), torch.Generator().manual_seed(0))
    return sorted(round(float(row[0]) * AGE.std + AGE.mean) - 20 for row in x[mask])


def test_admitted_are_those_cleared_and_still_permitted(tmp_path: Path) -> None:
    registry, plan = site(tmp_path, persons(4)), campaign()
    registry.withdraw("P-0", T0)
    name = cleared(registry, plan, T0)
    registry.withdraw("P-1", T0 + HOUR)
    registry.decide("P-0", PRETRAINING, Decision.PERMIT, T0 + HOUR)
    data = admit(registry, plan, round_of(plan, 1, name, T0), T0 + HOUR)
    assert ages(data) == [2, 3] and data.dropped == 0


def test_a_place_without_this_sites_own_clearance_is_refused(tmp_path: Path) -> None:
    registry, plan = site(tmp_path, persons(2)), campaign()
    name = cleared(registry, plan, T0)
    with refused(NO_CLEARANCE):
        admit(registry, plan, round_of(plan, 1, digest(b"another"), T0), T0)
    with refused(NO_CLEARANCE):
        admit(registry, plan, round_of(plan, 2, name, T0), T0)
    with refused(NO_CLEARANCE):
        admit(registry, plan, round_of(plan, 1, name, T0, site="elsewhere"), T0)
    with refused(NO_CLEARANCE):
        admit(registry, campaign(seed=1), round_of(plan, 1, name, T0), T0)
    assert len(admit(registry, plan, round_of(plan, 1, name, T0), T0)) == 2


def test_a_clearance_is_good_only_while_it_lives(tmp_path: Path) -> None:
    registry, plan = site(tmp_path, persons(2)), campaign()
    plan_of_round = round_of(plan, 1, cleared(registry, plan, T0), T0)
    admit(registry, plan, plan_of_round, T0 + DAY - timedelta(microseconds=1))
    for at in (T0 + DAY, T0 - HOUR):
        with refused(STALE_CLEARANCE):
            admit(registry, plan, plan_of_round, at)


def test_a_record_that_changed_since_it_was_recorded_is_left_out(tmp_path: Path) -> None:
    registry, plan = site(tmp_path, persons(4)), campaign()
    plan_of_round = round_of(plan, 1, cleared(registry, plan, T0), T0)
    rows = persons(4)
    write_table(tmp_path / "t.parquet", [rows[0], Person("r1", "P-1", features={"age": 70}), rows[3]])
    data = admit(registry, plan, plan_of_round, T0)
    assert ages(data) == [0, 3] and data.dropped == 2
    write_table(tmp_path / "t.parquet", [])
    with refused(NO_ADMITTED):
        admit(registry, plan, plan_of_round, T0)


def test_fewer_subjects_than_the_policy_asks_for_do_not_train_although_they_were_cleared(tmp_path: Path) -> None:
    registry, plan = site(tmp_path, persons(4)), campaign()
    plan_of_round = round_of(plan, 1, cleared(registry, plan, T0), T0)
    assert len(admit(registry, plan, plan_of_round, T0, min_subjects=4)) == 4
    registry.withdraw("P-2", T0 + HOUR)
    with refused(NO_ADMITTED):
        admit(registry, plan, plan_of_round, T0 + HOUR, min_subjects=4)


def test_a_site_knows_whether_somebody_left_since_admission(tmp_path: Path) -> None:
    registry, plan = site(tmp_path, persons(4)), campaign()
    registry.withdraw("P-0", T0)
    name, campaign_digest = cleared(registry, plan, T0), digest_value(plan)
    assert not registry.left(name, campaign_digest, 1, T0, T0 + HOUR)
    registry.decide("P-0", PRETRAINING, Decision.PERMIT, T0 + HOUR)
    assert not registry.left(name, campaign_digest, 1, T0, T0 + HOUR), "who comes in is not in the snapshot"
    registry.withdraw("P-1", T0 + 2 * HOUR)
    assert registry.left(name, campaign_digest, 1, T0 + HOUR, T0 + 2 * HOUR)


@pytest.mark.parametrize("learnt", ["withdrawal", "end", "correction"])
def test_who_left_is_known_however_early_and_late_it_is_learnt(database_url: str, tmp_path: Path, learnt: str) -> None:
    engine, registry = open_registry(database_url)
    add_table(registry, table := write_table(tmp_path / "t.parquet", persons(4, ())))
    registry.ingest("adult", T0)
    for number in range(4):
        registry.decide(f"P-{number}", PRETRAINING, Decision.PERMIT, T0)
    plan = campaign()
    name, campaign_digest = cleared(registry, plan, T0), digest_value(plan)
    begun, later = T0 + HOUR, T0 + 3 * HOUR
    evidence = Evidence(digest=Digest("sha256:" + "1" * 64))
    match learnt:
        case "correction":
            (event,) = registry.history("P-1")
            registry.correct("P-1", event.seq, evidence, T0 + 2 * HOUR)
        case _:
            word = "withdraw" if learnt == "withdrawal" else "expire"
            decisions = tmp_path / "late.csv"
            decisions.write_text(
                f"subject_id,purpose,decision,valid_from,valid_to\nP-1,ssl-pretraining,{word},2026-03-01T00:00:00Z,\n"
            )
            registry.import_consent(decisions, T0 + 2 * HOUR)
    assert registry.left(name, campaign_digest, 1, begun, later)
    assert not registry.left(name, campaign_digest, 1, T0 + 2 * HOUR, later), "who had left before was not in it"
    write_table(table, [one for one in persons(4, ()) if one.subject_id != "P-1"])
    registry.ingest("adult", T0 + 2 * HOUR)
    assert registry.left(name, campaign_digest, 1, begun, later), "and taking the records away hides nobody"
    engine.dispose()


def test_an_encoder_that_does_not_take_the_records_is_refused(tmp_path: Path) -> None:
    registry = site(tmp_path, persons(2))
    plan = campaign(encoder=TableSpec("table", "other"))
    with refused(MALFORMED):
        admit(registry, plan, round_of(plan, 1, cleared(registry, plan, T0), T0), T0)


def test_nobody_but_admit_makes_an_admitted_dataset() -> None:
    with pytest.raises(TypeError, match="only admit"):
        AdmittedDataset(object(), np.zeros((1, 3), np.float32), [1], most=1, dropped=0)  # type: ignore[arg-type]


def test_of_a_subject_with_many_records_m_are_drawn_afresh(tmp_path: Path) -> None:
    counts = {0: 1, 1: 3, 2: 6}
    rows = [
        Person(f"r{s}-{n}", f"P-{s}", features={"age": 20 + 10 * s + n}) for s, c in counts.items() for n in range(c)
    ]
    registry, plan = site(tmp_path, rows), campaign(records_per_subject=3)
    data = admit(registry, plan, round_of(plan, 1, cleared(registry, plan, T0), T0), T0)
    assert len(data) == 3
    generator = torch.Generator().manual_seed(1)
    seen: set[tuple[int, ...]] = set()
    for _ in range(200):
        x, mask = data.records(torch.tensor([2, 0, 1]), generator)
        assert x.shape == (3, 3, schema("adult").width) and x.dtype == torch.float32 and mask.dtype == torch.bool
        assert mask.tolist() == [[True] * 3, [True, False, False], [True] * 3]
        assert not x[1, 1:].any()
        numbers = [[round(float(row[0]) * AGE.std + AGE.mean) - 20 for row in one] for one in x]
        assert numbers[1][0] == 0 and numbers[2] == [10, 11, 12]
        assert len(set(numbers[0])) == 3 and set(numbers[0]) <= set(range(20, 26))
        seen.add(tuple(sorted(numbers[0])))
    assert len(seen) == 20  # every 3 of 6
    x, mask = data.records(np.array([], dtype=np.int64), generator)
    assert x.shape[:2] == mask.shape == (0, 3)


def test_images_are_admitted_in_their_shape(tmp_path: Path) -> None:
    lines = ["record_id,subject_id,collected_at,purposes,file\n"]
    for n in range(4):
        Image.new("L", (8, 8), 50 * n).save(tmp_path / f"{n}.png")
        lines.append(f"r{n},P-{n // 2},2026-01-01T00:00:00Z,ssl-pretraining,{n}.png\n")
    (tmp_path / "manifest.csv").write_text("".join(lines))
    _, registry = open_registry(f"sqlite:///{tmp_path / 'registry.db'}")
    location = ImagesLocation("images", str(tmp_path), 1, 8, 8)
    registry.add_dataset(
        "digits", location, retention=RetentionRule(), subjects_floor=10, epsilon_cap=8.0, delta=1e-6, at=T0
    )
    registry.ingest("digits", T0)
    plan = campaign(2, dataset="digits", encoder=ViTSpec("vit", 8, 4), objective=MaskedImageSpec("masked-image"))
    data = admit(registry, plan, round_of(plan, 1, cleared(registry, plan, T0), T0), T0)
    x, mask = data.records(np.array([0, 1]), torch.Generator())
    assert x.shape == (2, 2, 1, 8, 8) and bool(mask.all())
    assert sorted(round(float(value) * 255) for value in x[:, :, 0, 0, 0].flatten()) == [0, 50, 100, 150]


VERBS = st.one_of(
    st.tuples(st.just("permit"), st.integers(0, 3), st.integers(1, 5)),
    st.tuples(st.just("deny"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("withdraw"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 4), st.just(0)),
    st.tuples(st.just("freeze"), st.just(0), st.just(0)),
    st.tuples(st.just("admit"), st.just(0), st.just(0)),
)


@pytest.fixture(scope="module")
def silent_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that knows four persons who have not decided anything."""
    folder = tmp_path_factory.mktemp("silent")
    engine, registry = open_registry(f"sqlite:///{folder / 'registry.db'}")
    add_table(registry, write_table(folder / "t.parquet", persons(4, ())))
    registry.ingest("adult", T0)
    engine.dispose()
    return folder


@settings(max_examples=40, deadline=None)
@given(verbs=st.lists(VERBS, min_size=4, max_size=16))
def test_at_every_instant_the_admitted_are_consented_and_cleared(
    silent_site: Path, tmp_path_factory: pytest.TempPathFactory, verbs: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("site")
    for file in silent_site.glob("registry.db*"):
        shutil.copy(file, folder)
    engine, registry = open_registry(f"sqlite:///{folder / 'registry.db'}")
    plan, at, number = campaign(), T0, 0
    told: dict[int, list[ConsentEvent]] = {person: [] for person in range(4)}
    clearance: tuple[Digest, set[int], Any] | None = None

    def consented() -> set[int]:
        return {
            person
            for person, events in told.items()
            if resolve(events, PRETRAINING, "adult", at).verdict is Verdict.ADMITTED
        }

    for verb, who, hours in [*verbs, ("admit", 0, 0)]:
        at += HOUR / 4
        if verb == "permit":
            registry.decide(f"P-{who}", PRETRAINING, Decision.PERMIT, at, valid_to=at + hours * HOUR)
            told[who].append(ConsentEvent(PRETRAINING, Decision.PERMIT, at, at + hours * HOUR))
        elif verb == "deny":
            registry.decide(f"P-{who}", PRETRAINING, Decision.DENY, at, dataset="adult")
            told[who].append(ConsentEvent(PRETRAINING, Decision.DENY, at, None, "adult"))
        elif verb == "withdraw":
            registry.withdraw(f"P-{who}", at)
            told[who].extend(ConsentEvent(purpose, Decision.WITHDRAW, at) for purpose in Purpose)
        elif verb == "wait":
            at += who * HOUR
        elif verb == "freeze" and consented():
            number += 1
            snapshot = registry.freeze("adult", PRETRAINING, at)
            envelope = registry.clearance(plan, number, snapshot, DAY, 1, at)
            clearance = (
                envelope.name,
                consented(),
                registry.cleared(envelope.name, digest_value(plan), number).expires_at,
            )
        elif verb == "admit" and clearance is not None:
            name, members, expires_at = clearance
            wanted = members & consented()
            try:
                found = set(ages(admit(registry, plan, round_of(plan, number, name, at), at)))
            except BractError as error:
                assert error.code == (STALE_CLEARANCE if at >= expires_at else NO_ADMITTED)
                assert at >= expires_at or not wanted
            else:
                assert at < expires_at
                assert found == wanted
    registry.check()
    engine.dispose()
