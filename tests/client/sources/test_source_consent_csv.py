from datetime import UTC, datetime
from pathlib import Path

import pytest

from bract.consent import ConsentEvent, Decision, Purpose
from bract.errors import BAD_RECORD, BractError
from bract_client.sources.consent_csv import read_consent
from bract_client.sources.record import Reason, Unreadable
from bract_client.sources.statement import Statement

HEADER = "subject_id,purpose,decision,valid_from,valid_to,dataset\n"
GOOD = "P-1,ssl-pretraining,permit,2026-01-01T00:00:00Z,,\n"


def read(path: Path, *lines: str) -> list[Statement | Unreadable]:
    path.write_text(HEADER + "".join(lines))
    return list(read_consent(path))


def test_a_line_is_a_decision(tmp_path: Path) -> None:
    line = "P-1,distillation,deny,2026-01-01T02:00:00+02:00,2027-01-01T00:00:00Z,adult\n"
    (item,) = read(tmp_path / "c.csv", line)
    event = ConsentEvent(
        Purpose.DISTILLATION,
        Decision.DENY,
        datetime(2026, 1, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
        "adult",
    )
    assert item == Statement(2, "P-1", (event,))
    assert "P-1" not in repr(item)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",ssl-pretraining,permit,2026-01-01T00:00:00Z,,\n", Reason.BAD_SUBJECT_ID),
        ("P-1 ,ssl-pretraining,permit,2026-01-01T00:00:00Z,,\n", Reason.BAD_SUBJECT_ID),
        ("P-1,SSL-pretraining,permit,2026-01-01T00:00:00Z,,\n", Reason.UNKNOWN_PURPOSE),
        ("P-1,ssl-pretraining,yes,2026-01-01T00:00:00Z,,\n", Reason.UNKNOWN_DECISION),
        ("P-1,ssl-pretraining,permit,2026-01-01,,\n", Reason.NO_ZONE),
        ("P-1,ssl-pretraining,permit,,,\n", Reason.BAD_TIME),
        ("P-1,ssl-pretraining,permit,2026-01-02T00:00:00Z,2026-01-02T00:00:00Z,\n", Reason.BAD_TIME),
        ("P-1,ssl-pretraining,permit,2026-01-01T00:00:00Z,,Adult!\n", Reason.BAD_DATASET),
        ("P-1,ssl-pretraining\n", Reason.BAD_LINE),
    ],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path: Path, line: str, reason: Reason) -> None:
    bad, good = read(tmp_path / "c.csv", line, GOOD)
    assert bad == Unreadable(2, reason)
    assert isinstance(good, Statement) and good.line == 3


def test_a_file_without_the_dataset_column_means_all_data_sets(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text(
        "subject_id,purpose,decision,valid_from,valid_to\nP-1,ssl-pretraining,permit,2026-01-01T00:00:00Z,\n"
    )
    (item,) = read_consent(path)
    assert isinstance(item, Statement) and item.events[0].dataset is None


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        list(read_consent(tmp_path / "none.csv"))
    assert refused.value.code == BAD_RECORD
