"""Folders of files with a manifest: the registry keeps what the bytes are, and nothing outside the folder is read."""

import json
import os
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bract.consent import Purpose
from bract.errors import BAD_RECORD, NO_ENCODER, BractError
from bract_client.sources import files as module
from bract_client.sources.files import Files
from bract_client.sources.record import Reason, SourceRecord, Unreadable

HEADER = "file,record_id,subject_id,collected_at,purposes\n"
TIME = "2026-01-01T00:00:00Z"


def manifest(folder: Path, *names: str) -> Files:
    rows = [f"{name},r{n},P-{n},{TIME},evaluation;distillation\n" for n, name in enumerate(names)]
    (folder / "manifest.csv").write_text(HEADER + "".join(rows))
    return Files(folder)


def test_a_record_is_the_bytes_of_its_file_whatever_they_are(tmp_path: Path) -> None:
    for name, data in {"a.dcm": b"DICM", "b.wav": b"RIFF", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
    records = list(manifest(tmp_path, "a.dcm", "b.wav", "empty").records())
    assert [one.payload_digest for one in records if isinstance(one, SourceRecord)] == [
        sha256(data).digest() for data in (b"DICM", b"RIFF", b"")
    ]
    assert isinstance(records[0], SourceRecord)
    assert records[0].purposes == {Purpose.EVALUATION, Purpose.DISTILLATION} and "P-0" not in repr(records)


@pytest.mark.parametrize(
    "name", ["../out", "/etc/hostname", "sub/../../out", "link", "links/out", "", "a\x07", "in/../../out", "\udc80"]
)
def test_a_path_out_of_the_folder_is_set_aside_and_the_rest_goes_in(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "out").write_bytes(b"secret")
    (folder / "link").symlink_to(tmp_path / "out")
    (folder / "links").symlink_to(tmp_path)
    (folder / "good").write_bytes(b"x")
    rows = [f"{one},r{n},P-{n},{TIME},\n" for n, one in enumerate([name, "good"])]
    (folder / "manifest.csv").write_bytes((HEADER + "".join(rows)).encode(errors="surrogateescape"))
    bad, good = Files(folder).records()
    assert bad == Unreadable(2, Reason.BAD_PATH)
    assert isinstance(good, SourceRecord)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    items = list(manifest(tmp_path, "pipe", "folder", "none", "loop", "x" * 300).records())
    assert [one.reason for one in items if isinstance(one, Unreadable)] == [Reason.MISSING_FILE] * 5


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(module.MAX_FILE_BYTES + 1)
    assert list(manifest(tmp_path, "huge").records()) == [Unreadable(2, Reason.TOO_LARGE)]


def test_a_declared_digest_is_compared_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    right = sha256(b"x").hexdigest()
    rows = [f"a,r{n},P-{n},{TIME},,{digest}\n" for n, digest in enumerate([right, "", "0" * 64, right.upper(), "abc"])]
    (tmp_path / "manifest.csv").write_text(HEADER[:-1] + ",sha256\n" + "".join(rows))
    items = list(Files(tmp_path).records())
    assert [isinstance(one, SourceRecord) for one in items] == [True, True, False, False, False]
    assert {one.reason for one in items if isinstance(one, Unreadable)} == {Reason.WRONG_DIGEST}


def test_a_manifest_of_json_lines_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    good = {"file": "a", "record_id": "r1", "subject_id": "P-1", "collected_at": TIME, "purposes": ["evaluation"]}
    lines = [
        good,
        {**good, "sha256": sha256(b"x").hexdigest()},
        {**good, "sha256": 7},
        {**good, "purposes": "evaluation"},
        {**good, "purposes": ["anything"]},
        {**good, "file": 3},
        {**good, "more": 1},
        [],
    ]
    text = "".join(json.dumps(one) + "\n" for one in lines) + "{\n" + json.dumps(good)[:-1] + ', "file": "b"}\n'
    (tmp_path / "manifest.jsonl").write_text(text)
    items = list(Files(tmp_path).records())
    assert [one.line for one in items if isinstance(one, SourceRecord)] == [1, 2]
    assert [one.reason for one in items if isinstance(one, Unreadable)] == [
        Reason.WRONG_DIGEST,
        Reason.BAD_LINE,
        Reason.UNKNOWN_PURPOSE,
        *[Reason.BAD_LINE] * 5,
    ]


def test_a_folder_needs_one_manifest(tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        list(Files(tmp_path).records())
    assert refused.value.code == BAD_RECORD
    manifest(tmp_path, "a")
    (tmp_path / "manifest.jsonl").write_text("")
    with pytest.raises(BractError) as refused:
        list(Files(tmp_path).records())
    assert refused.value.code == BAD_RECORD


def test_no_encoder_reads_files_of_any_kind_and_the_refusal_says_so(tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        Files(tmp_path).load(["r1"])
    assert refused.value.code == NO_ENCODER


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.binary(max_size=50).filter(lambda data: b"\n" not in data), max_size=6),
    kind=st.sampled_from(["csv", "jsonl"]),
)
def test_no_record_is_lost_among_hostile_lines_and_none_raises(tmp_path: Path, rows: list[bytes], kind: str) -> None:
    folder = tmp_path / kind
    folder.mkdir(exist_ok=True)
    (folder / "a").write_bytes(b"x")
    good = {"file": "a", "record_id": "r1", "subject_id": "P-1", "collected_at": TIME, "purposes": []}
    first = f"a,r1,P-1,{TIME},\n" if kind == "csv" else json.dumps(good) + "\n"
    head = HEADER if kind == "csv" else ""
    lines = b"".join(row + b"\n" for row in rows)
    (folder / f"manifest.{kind}").write_bytes(head.encode() + first.encode() + lines + first.encode())
    items = list(Files(folder).records())
    assert isinstance(items[0], SourceRecord) and isinstance(items[-1], SourceRecord)
    assert len(items) == 2 + sum(bool(row.strip() if kind == "jsonl" else row.rstrip(b"\r")) for row in rows)
