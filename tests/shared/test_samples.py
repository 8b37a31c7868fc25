"""Samples are the same for the same seed, nobody is in two places, and the files are what a site reads."""

import csv
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bract.consent import ConsentEvent, Decision, Purpose, Verdict, resolve
from bract.errors import ALREADY_EXISTS, MALFORMED, BractError
from bract.samples import Parts, adult_parts, adult_spare, digits_parts, mnist_parts, write_images, write_table
from bract.tables import encode_rows, schema
from bract.value import utc

NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def adult() -> Parts:
    return adult_parts(3, 0)


@pytest.fixture(scope="module")
def digits() -> Parts:
    return digits_parts(3, 0)


def test_everybody_is_in_one_place_only(adult: Parts, digits: Parts) -> None:
    for parts, total in ((adult, 45_222), (digits, 1_797)):
        held = [set(part.subject_ids) for part in parts.sites]
        assert sum(map(len, held)) == len(set().union(*held))
        records = [record for part in parts.sites for record in part.record_ids]
        assert len(set(records)) == len(records)
        assert len(records) + len(parts.pool.labels) + len(parts.test.labels) == total


def test_the_split_has_the_promised_sizes(adult: Parts) -> None:
    assert [len(part.record_ids) for part in adult.sites] == pytest.approx([11_340] * 3, abs=100)
    assert len(adult.pool.labels) == pytest.approx(5_020, abs=150)
    assert len(adult.test.labels) == pytest.approx(6_195, abs=150)
    assert adult.test.labels.mean() == pytest.approx(0.248, abs=0.02)


def test_the_spare_persons_are_of_the_pool(adult: Parts) -> None:
    assert np.array_equal(adult_spare(50, 0), adult.pool.inputs[:50])


def test_the_same_seed_gives_the_same_sites_and_another_one_others(digits: Parts) -> None:
    again, other = digits_parts(3, 0), digits_parts(3, 1)
    assert [part.record_ids for part in again.sites] == [part.record_ids for part in digits.sites]
    assert [part.consent for part in again.sites] == [part.consent for part in digits.sites]
    assert [part.record_ids for part in other.sites] != [part.record_ids for part in digits.sites]


def test_sites_differ_in_their_persons_occupations(adult: Parts) -> None:
    shares = []
    for part in adult.sites:
        counts = Counter(part.values["occupation"].tolist())
        shares.append(np.array([counts[word] for word in sorted(counts)]) / len(part.record_ids))
    assert max(np.abs(a - b).sum() / 2 for a in shares for b in shares) > 0.15


def test_adult_has_one_record_a_person_and_no_label(adult: Parts) -> None:
    for part in adult.sites:
        assert len(set(part.subject_ids)) == len(part.record_ids)
        assert "income" not in part.values
        assert encode_rows(schema("adult"), part.values).shape == (len(part.record_ids), schema("adult").width)


def test_a_person_owns_one_to_three_digits_at_one_site(digits: Parts) -> None:
    counts = Counter(subject for part in digits.sites for subject in part.subject_ids)
    assert set(counts.values()) == {1, 2, 3}


def test_a_few_per_cent_do_not_consent_each_in_its_way(adult: Parts) -> None:
    part = adult.sites[0]
    decisions: dict[str, list[ConsentEvent]] = {subject: [] for subject in part.subject_ids}
    for subject, collected in zip(part.subject_ids, part.collected_at, strict=True):
        if subject in part.permitted:
            decisions[subject].append(ConsentEvent(Purpose.PRETRAINING, Decision.PERMIT, utc(collected)))
    for row in part.consent:
        until = utc(row.valid_to) if row.valid_to else None
        decisions[row.subject_id].append(ConsentEvent(row.purpose, row.decision, utc(row.valid_from), until))
    verdicts = Counter(resolve(events, Purpose.PRETRAINING, "adult", NOW).verdict for events in decisions.values())
    assert 0.90 < verdicts[Verdict.ADMITTED] / len(decisions) < 0.96
    for verdict in (Verdict.NO_CONSENT, Verdict.DENIED, Verdict.WITHDRAWN, Verdict.EXPIRED):
        assert 0.005 < verdicts[verdict] / len(decisions) < 0.04


def test_a_table_is_written_as_a_site_reads_it(tmp_path: Path, adult: Parts) -> None:
    part = adult.sites[1]
    write_table(tmp_path / "site", part)
    table = pq.read_table(tmp_path / "site" / "records.parquet")
    assert table.column_names[:4] == ["record_id", "subject_id", "collected_at", "purposes"]
    assert "income" not in table.column_names
    for row in table.slice(0, 500).select(["subject_id", "collected_at", "purposes"]).to_pylist():
        assert row["purposes"] == (["ssl-pretraining"] if row["subject_id"] in part.permitted else [])
        assert utc(row["collected_at"]).year in (2024, 2025)
    columns = {name: table[name].to_pylist() for name in schema("adult").names}
    assert np.array_equal(encode_rows(schema("adult"), columns), encode_rows(schema("adult"), part.values))
    with (tmp_path / "site" / "consent.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["subject_id", "purpose", "decision", "valid_from", "valid_to"]
    assert len(rows) == len(part.consent)
    assert {row["decision"] for row in rows} == {Decision.PERMIT, Decision.DENY, Decision.WITHDRAW}


def test_images_are_written_as_a_site_reads_them(tmp_path: Path, digits: Parts) -> None:
    part = digits.sites[2]
    write_images(tmp_path / "site", part)
    with (tmp_path / "site" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["record_id", "subject_id", "collected_at", "purposes", "file"]
    assert [row["record_id"] for row in rows] == list(part.record_ids)
    with Image.open(tmp_path / "site" / rows[5]["file"]) as image:
        assert np.array_equal(np.asarray(image), part.values["pixels"][5])
    assert not [file.name for file in (tmp_path / "site").rglob("*") if file.name.startswith(part.subject_ids[0])]


def test_a_folder_that_is_there_is_never_overwritten(tmp_path: Path, digits: Parts) -> None:
    (tmp_path / "site").mkdir()
    with pytest.raises(BractError) as caught:
        write_images(tmp_path / "site", digits.sites[0])
    assert caught.value.code == ALREADY_EXISTS
    assert list((tmp_path / "site").iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["site"]


def test_mnist_comes_from_its_extra_or_says_how_to_get_it() -> None:
    try:
        parts = mnist_parts(2, 0)
    except BractError as error:
        assert error.code == MALFORMED
        assert "bract[mnist]" in error.detail
    else:
        assert sum(len(part.record_ids) for part in parts.sites) > 3_000
        assert parts.sites[0].values["pixels"].shape[1:] == (28, 28)


def test_consent_names_only_persons_of_the_site(digits: Parts) -> None:
    for part in digits.sites:
        assert {row.subject_id for row in part.consent} <= set(part.subject_ids)
        assert json.dumps([row.purpose for row in part.consent[:1]]) == '["ssl-pretraining"]'
