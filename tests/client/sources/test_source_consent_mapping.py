"""Other systems' CSV files, by a mapping that the steward writes."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bract.consent import Capacity, Decision, Modifier, sound
from bract.errors import BAD_RECORD, MALFORMED, BractError
from bract_client.sources.consent_csv import read_consent
from bract_client.sources.consent_mapping import Columns, CsvMapping, Fixed, Layouts, load_mapping
from bract_client.sources.lines import MAX_LINE_BYTES
from bract_client.sources.record import Reason, Unreadable
from bract_client.sources.statement import Statement

EXAMPLE = Path(__file__).parents[3] / "deploy" / "mappings" / "consent.toml"
HEADER = "PatNr;Name;Zweck;Entscheidung;Ab;Bis;Auflagen;LfdNr\n"
GOOD = "4711;Müller;Forschung;ja;01.07.2026;;;17\n"


def read(
    path: Path, *lines: str, mapping: CsvMapping | None = None, header: str = HEADER
) -> list[Statement | Unreadable]:
    used = mapping or load_mapping(EXAMPLE).csv
    assert used is not None
    path.write_text(header + "".join(lines), encoding=used.encoding)
    return list(read_consent(path, used))


def test_the_documented_example_reads_a_clinics_file(tmp_path: Path) -> None:
    item, withdrawn, error = read(
        tmp_path / "c.csv",
        "4711;Müller;Forschung;ja;01.07.2026;31.12.2026;nur in Deutschland;17\n",
        "4712;Ärger;KI-Vortraining;Widerruf;01.07.2026;;nicht gewerblich;18\n",
        "4713;;Forschung;storniert;01.07.2026;;;19\n",
    )
    assert isinstance(item, Statement) and isinstance(withdrawn, Statement) and isinstance(error, Statement)
    (event,) = item.events
    assert (item.subject_id, item.reference, event.purpose, event.decision) == ("4711", "17", "DUO:0000042", "permit")
    # midnight in Berlin, in summer and in winter; the last day itself does not count unless the mapping says so
    assert event.valid_from == datetime(2026, 6, 30, 22, tzinfo=UTC)
    assert event.valid_to == datetime(2026, 12, 30, 23, tzinfo=UTC)
    assert event.modifiers == (Modifier("DUO:0000022", ("DE",)),)
    assert (event.evidence.legal_basis, event.evidence.notice) == (
        "eu-gdpr:A6-1-a",
        "Einwilligung Forschung, Fassung 3",
    )
    assert withdrawn.events[0].decision is Decision.WITHDRAW and withdrawn.events[0].modifiers == ()
    assert (error.subject_id, error.events, error.reference) == (None, (), "19")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (";x;Forschung;ja;01.07.2026;;;1\n", Reason.BAD_SUBJECT_ID),
        ("4711;x;forschung;ja;01.07.2026;;;1\n", Reason.UNKNOWN_PURPOSE),
        ("4711;x;;ja;01.07.2026;;;1\n", Reason.UNKNOWN_PURPOSE),
        ("4711;x;DUO:0000042;ja;01.07.2026;;;1\n", Reason.UNKNOWN_PURPOSE),
        ("4711;x;Forschung;vielleicht;01.07.2026;;;1\n", Reason.UNKNOWN_DECISION),
        ("4711;x;Forschung;permit;01.07.2026;;;1\n", Reason.UNKNOWN_DECISION),
        ("4711;x;Forschung;ja;2026-07-01;;;1\n", Reason.BAD_TIME),
        ("4711;x;Forschung;ja;31.02.2026;;;1\n", Reason.BAD_TIME),
        ("4711;x;Forschung;ja;;;;1\n", Reason.BAD_TIME),
        ("4711;x;Forschung;ja;01.07.2026;01.07.2026;;1\n", Reason.BAD_TIME),
        ("4711;x;Forschung;ja;01.07.2026;;mit Rücksprache;1\n", Reason.UNKNOWN_MODIFIER),
        ("4711;x;Forschung;storniert;01.07.2026;;;\n", Reason.BAD_REFERENCE),
        ("4711;x;Forschung;ja;01.07.2026;;;1 \n", Reason.BAD_REFERENCE),
        ("4711;x;Forschung;ja;01.07.2026;;\n", Reason.BAD_LINE),
        ('4711;"x;Forschung;ja;01.07.2026;;;1\n', Reason.BAD_LINE),
        ("4711;x\0;Forschung;ja;01.07.2026;;;1\n", Reason.BAD_LINE),
        (f"4711;{'x' * MAX_LINE_BYTES};Forschung;ja;01.07.2026;;;1\n", Reason.TOO_LONG),
    ],
)
def test_a_value_that_is_not_listed_sets_its_line_aside_and_no_other(tmp_path: Path, line: str, reason: Reason) -> None:
    bad, good = read(tmp_path / "c.csv", line, GOOD)
    assert bad == Unreadable(2, reason)
    assert isinstance(good, Statement) and good.line == 3


def plain(**changes: object) -> CsvMapping:
    return CsvMapping(Columns("who", "what", "how", "since", "until"), **changes)  # type: ignore[arg-type]


PLAIN = "who,what,how,since,until\n"


def times(path: Path, since: str, until: str, how: str = "permit", **changes: object) -> object:
    (item,) = read(path, f"P-1,evaluation,{how},{since},{until}\n", mapping=plain(**changes), header=PLAIN)
    return item.reason if isinstance(item, Unreadable) else [(one.valid_from, one.valid_to) for one in item.events]


def test_a_time_without_a_zone_needs_a_declared_one(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    assert times(path, "2026-07-01", "") is Reason.NO_ZONE
    assert times(path, "2026-07-01T08:00:00", "") is Reason.NO_ZONE
    assert times(path, "2026-07-01T08:00:00", "", zone="Asia/Tokyo") == [(datetime(2026, 6, 30, 23, tzinfo=UTC), None)]
    assert times(path, "2026-07-01T08:00:00Z", "", zone="Asia/Tokyo") == [(datetime(2026, 7, 1, 8, tzinfo=UTC), None)]


def test_the_last_day_counts_only_if_the_mapping_says_so(tmp_path: Path) -> None:
    begin, end, after = (datetime(2026, *one, tzinfo=UTC) for one in ((1, 1), (6, 30), (7, 1)))
    path = tmp_path / "c.csv"
    assert times(path, "2026-01-01", "2026-06-30", zone="UTC") == [(begin, end)]
    assert times(path, "2026-01-01", "2026-06-30", zone="UTC", last_day_counts=True) == [(begin, after)]
    clock = "2026-06-30T00:00:00"
    assert times(path, "2026-01-01", clock, zone="UTC", last_day_counts=True) == [(begin, end)]
    layouts = Layouts("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")
    assert times(path, "2026-01-01", clock, zone="UTC", last_day_counts=True, layouts=layouts) == [(begin, end)]


def test_an_hour_that_comes_twice_is_read_so_that_less_is_permitted(tmp_path: Path) -> None:
    path, twice = tmp_path / "c.csv", "2026-10-25T02:30:00"  # clocks in Berlin went back at three
    first, second = datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert times(path, twice, "", zone="Europe/Berlin") == [(second, None)]
    assert times(path, "2026-01-01", twice, zone="Europe/Berlin") == [(datetime(2025, 12, 31, 23, tzinfo=UTC), first)]
    assert times(path, twice, "", "deny", zone="Europe/Berlin") == [(first, None), (second, None)]
    assert times(path, twice, "", "expire", zone="Europe/Berlin") == [(first, None)]


def test_everything_else_that_shows_a_decision_is_read(tmp_path: Path) -> None:
    columns = Columns("s", "p", "d", "f", legal_basis="b", notice="n", capacity="c", evidence="e", modifiers="m")
    mapping = CsvMapping(columns, capacities={"Eltern": Capacity.GUARDIAN})
    form = f"sha256:{'a' * 64}"
    limit = "DUO:0000025=2027-01-01T00:00:00Z DUO:0000046"
    good = f"P-1,DUO:0000042,permit,2026-01-01T00:00:00Z,dpv:Consent,form 3,Eltern,{form},{limit}\n"
    bad = [
        good.replace("dpv:Consent", "dpv:Nothing"),
        good.replace("Eltern", "guardian"),
        good.replace("form 3", "x" * 129),
        good.replace(form, form.upper()),
        good.replace("=2027", "=2025"),
        good.replace("DUO:0000046", "DUO:0000046=x"),
    ]
    items = read(tmp_path / "c.csv", good, *bad, mapping=mapping, header="s,p,d,f,b,n,c,e,m\n")
    first = items[0]
    assert isinstance(first, Statement)
    (event,) = first.events
    assert event.evidence.capacity is Capacity.GUARDIAN and event.evidence.digest == form
    assert event.valid_to == datetime(2027, 1, 1, tzinfo=UTC)
    assert [item.reason for item in items[1:] if isinstance(item, Unreadable)] == [
        Reason.UNKNOWN_BASIS,
        Reason.BAD_EVIDENCE,
        Reason.BAD_EVIDENCE,
        Reason.BAD_EVIDENCE,
        Reason.BAD_TIME,
        Reason.UNKNOWN_MODIFIER,
    ]


def test_what_has_no_column_can_hold_for_the_whole_file(tmp_path: Path) -> None:
    fixed = Fixed(purpose=("evaluation", "distillation"), decision="deny", dataset="adult")
    mapping = CsvMapping(Columns("s", valid_from="f"), fixed)
    (item,) = read(tmp_path / "c.csv", "P-1,2026-01-01T00:00:00Z\n", mapping=mapping, header="s,f\n")
    assert isinstance(item, Statement)
    assert [(one.purpose, one.decision, one.dataset) for one in item.events] == [
        ("evaluation", Decision.DENY, "adult"),
        ("distillation", Decision.DENY, "adult"),
    ]


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path, mark: bytes) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(mark + PLAIN.encode() + b"P-1,evaluation,deny,2026-01-01T00:00:00Z,\r\n\r\n")
    (item,) = read_consent(path, plain())
    assert isinstance(item, Statement)


@pytest.mark.parametrize(
    "data", [b"", b"who,what\n", PLAIN.encode("utf-16"), b"who,who,what,how,since,until\n", b"\0\n"]
)
def test_a_file_with_another_header_is_refused_whole(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(data)
    with pytest.raises(BractError) as refused:
        list(read_consent(path, plain()))
    assert refused.value.code == BAD_RECORD


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BractError) as refused:
        list(read_consent(tmp_path / "pipe", plain()))
    assert refused.value.code == BAD_RECORD


WRONG = [
    "",
    "not toml [",
    'source = "X"',
    'source = "x"\n[csv]\n',
    'source = "x"\n[csv.columns]\nsubject = "a"\npurpose = "b"\ndecision = "c"\n',
    'source = "x"\n[csv.columns]\nsubject = "a"\npurpose = "b"\nvalid_from = "d"\n',
    'source = "x"\n[csv.columns]\nsubject = "a"\npurpose = "a"\ndecision = "c"\nvalid_from = "d"\n',
]
BASE = 'source = "x"\n[csv.columns]\nsubject = "a"\npurpose = "b"\ndecision = "c"\nvalid_from = "d"\n'
WRONG += [
    BASE + "colour = 1\n",
    BASE + '[csv.purposes]\nall = ["everything"]\n',
    BASE + '[csv.decisions]\nyes = "yes"\n',
    BASE + '[csv.decisions]\noops = "error"\n',
    BASE + '[csv.fixed]\ndecision = "permit"\n',
    BASE + '[csv.legal_bases]\nx = "dpv:Nothing"\n',
    BASE + '[csv.conditions]\nx = [{ code = "DUO:0000022" }]\n',
    BASE + '[csv]\nzone = "Europe/Atlantis"\n',
    BASE.replace("[csv.columns]", '[csv]\nzone = "../../etc/passwd"\n[csv.columns]'),
    BASE.replace("[csv.columns]", '[csv]\ndelimiter = "ab"\n[csv.columns]'),
    BASE.replace("[csv.columns]", '[csv]\nencoding = "utf-16"\n[csv.columns]'),
]


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_a_mapping_that_names_what_there_is_not_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(BractError) as refused:
        load_mapping(path)
    assert refused.value.code == MALFORMED


HOSTILE = st.text(max_size=12) | st.sampled_from(
    [
        "=cmd|'/c calc'!A1",
        "'; DROP TABLE subject; --",
        "../../etc/passwd",
        "permit",
        "evaluation",
        "2026-01-01",
        '"',
        "\0",
        "\ud800",
    ]
)
LINES = st.one_of(
    st.binary(max_size=40).filter(lambda data: b"\n" not in data),
    st.lists(HOSTILE, max_size=6).map(lambda cells: ",".join(cells).encode("utf-8", "replace").replace(b"\n", b" ")),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(LINES, max_size=8), data=st.data())
def test_no_line_is_lost_among_hostile_ones_and_none_raises(
    tmp_path: Path, rows: list[bytes], data: st.DataObject
) -> None:
    good = b"P-1,evaluation,permit,2026-01-01T00:00:00Z,"
    places = data.draw(st.lists(st.integers(0, len(rows)), max_size=3).map(sorted))
    for shift, place in enumerate(places):
        rows.insert(place + shift, good)
    path = tmp_path / "c.csv"
    path.write_bytes(PLAIN.encode() + b"".join(row + b"\n" for row in rows))
    items = list(read_consent(path, plain()))
    stated = [item for item in items if isinstance(item, Statement)]
    wanted = [number for number, row in enumerate(rows, start=2) if row == good]
    assert set(wanted) <= {item.line for item in stated}
    assert [item.line for item in items] == [n for n, row in enumerate(rows, start=2) if row.rstrip(b"\r\n")]
    for item in stated:
        for event in item.events:
            sound(event)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_code(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "any"
    path.write_bytes(data)
    for mapping in (None, plain()):
        try:
            list(read_consent(path, mapping))
        except BractError as error:
            assert error.code == BAD_RECORD
    try:
        load_mapping(path)
    except BractError as error:
        assert error.code == MALFORMED
