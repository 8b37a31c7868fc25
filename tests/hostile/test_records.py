"""What lies at a site: consent in CSV and FHIR, images, Parquet. Whoever writes these files may mean harm, or err."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from bract.consent import Decision
from bract.errors import BAD_RECORD, BractError
from bract_client.sources.consent_csv import read_consent
from bract_client.sources.consent_mapping import FhirMapping
from bract_client.sources.fhir import read_fhir
from bract_client.sources.images import decode_png
from bract_client.sources.record import BadLine, Unreadable
from bract_client.sources.statement import Statement
from tests.client.site_world import persons, write_table
from tests.hostile.attacks import bent, broken, held, json_bytes, seen, strike

SAMPLES = Path(__file__).parents[1] / "client" / "sources" / "samples"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "said"


def unless_refused(found: list[Statement | Unreadable]) -> list[Statement | Unreadable]:
    """What a file says, unless nothing in it could be read: that counts as a refusal."""
    if found and all(isinstance(item, Unreadable) for item in found):
        raise BractError(BAD_RECORD)
    return found


def columns() -> list[str]:
    from bract_client.sources.consent_mapping import OURS

    assert OURS.csv is not None
    return OURS.csv.columns.named()  # type: ignore[return-value]


def lines_of(columns: list[str]) -> list[bytes]:
    values = {
        "purpose": "ssl-pretraining",
        "decision": "permit",
        "valid_from": "2026-01-10T00:00:00Z",
        "valid_to": "2030-01-10T00:00:00Z",
        "dataset": "adult",
        "reference": "r-1",
    }
    made = []
    changes: tuple[dict[str, str], ...] = (
        {},
        {"decision": "refuse", "valid_to": ""},
        {"purpose": "evaluation", "dataset": ""},
    )
    for person, change in zip(("P-1", "P-2", "Ä-3"), changes, strict=True):
        row = {"subject_id": person, **values, **change}
        made.append(",".join(row.get(name, "") for name in columns).encode())
    return made


def test_a_line_of_consent_is_taken_only_as_it_reads(file: Path) -> None:
    names = list(columns())
    head, valid = ",".join(names).encode(), lines_of(names)

    def read(data: bytes) -> list[Statement | Unreadable]:
        file.write_bytes(head + b"\n" + data)
        return unless_refused(list(read_consent(file)))

    def believing(data: bytes) -> list[Statement | Unreadable]:
        file.write_bytes(head + b"\n" + valid[0])
        return list(read_consent(file))

    def right(data: bytes, found: list[Statement | Unreadable]) -> bool:
        """By csv alone: each statement's line names that person, that decision, and times that parse; none is lost."""
        physical = [one.rstrip(b"\r\n") for one in data.split(b"\n")]
        physical = physical if physical[-1] else physical[:-1]
        told = {item.line for item in found}
        blank = {n for n, one in enumerate(physical, start=2) if not one.strip(b"\r")}
        if not set(range(2, len(physical) + 2)) - blank <= told:
            return False
        return all(_reads_so(physical[item.line - 2], names, item) for item in found if isinstance(item, Statement))

    inputs = st.one_of(broken(valid), broken([b"\n".join(valid) + b"\n"]))
    held(strike("consent in CSV", inputs, read, right, count=700))

    def deaf(data: bytes, found: list[Statement | Unreadable]) -> bool:
        try:
            return right(data, found)
        except (ValueError, csv.Error):
            return False

    seen(strike("control", inputs, believing, deaf, count=200, record=False))


def _reads_so(line: bytes, names: list[str], found: Statement) -> bool:
    row = dict(zip(names, next(csv.reader([line.decode("utf-8")], strict=True)), strict=True))
    decided = {event.decision.value for event in found.events}
    ranges = all(event.valid_to is None or event.valid_from < event.valid_to for event in found.events)
    return (
        (found.subject_id or "") == row["subject_id"]
        and decided <= {row["decision"]}
        and (not found.events or datetime.fromisoformat(row["valid_from"]).tzinfo is not None)
        and all(event.purpose == row["purpose"] for event in found.events)
        and ranges
    )


def resources() -> list[dict[str, Any]]:
    made = [
        json.loads(line) for line in (SAMPLES / "r4b.ndjson").read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    bundle = json.loads((SAMPLES / "r5.json").read_text(encoding="utf-8"))
    found = [e["resource"] for e in bundle.get("entry", [])] if bundle.get("resourceType") == "Bundle" else [bundle]
    return [one for one in (*made, *found) if one.get("resourceType") == "Consent"]


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)
    elif isinstance(value, str):
        yield value


def test_a_fhir_resource_says_no_more_than_stands_in_it(tmp_path: Path) -> None:
    file = tmp_path / "x.ndjson"
    mapping = FhirMapping("identifier", "urn:oid:2.999.1", zone="UTC")

    def read(resource: dict[str, Any]) -> list[Statement | Unreadable]:
        file.write_bytes(json_bytes(resource) + b"\n")
        return unless_refused(list(read_fhir(file, mapping)))

    def believing(resource: dict[str, Any]) -> list[Statement | Unreadable]:
        file.write_bytes(json_bytes(valid[0]) + b"\n")
        return list(read_fhir(file, mapping))

    def right(resource: dict[str, Any], found: list[Statement | Unreadable]) -> bool:
        """Nobody is named, and no permit given, that the resource does not hold; it is in force or takes something back."""
        said, (only,) = set(texts(resource)), found
        if isinstance(only, Unreadable) or not only.events:
            return True
        permits = any(event.decision is Decision.PERMIT for event in only.events)
        status = resource.get("status")
        if only.subject_id not in said or status not in ("active", "inactive", "entered-in-error", "rejected"):
            return False
        # in R5 what stands below a refusal is what it excepts, without the word
        return not permits or (status == "active" and ("permit" in said or "provision" in resource))

    valid = resources()
    assert all(isinstance(one, Statement) for one in read(valid[0]))
    inputs = bent(valid)
    held(strike("consent in FHIR", inputs, read, right, count=400))
    seen(strike("control", inputs, believing, right, count=300, record=False))

    def read_bytes(data: bytes) -> list[Statement | Unreadable]:
        file.write_bytes(data)
        return unless_refused(list(read_fhir(file, mapping)))

    raw = [json_bytes(one) + b"\n" for one in valid]
    held(strike("consent in FHIR, changed bytes", broken(raw), read_bytes, lambda *_: True, count=250))


def png(channels: int) -> bytes:
    drawn = np.random.default_rng(1).integers(0, 256, (6, 9) if channels == 1 else (6, 9, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(drawn).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_decoded_only_if_it_is_sound_and_of_its_shape(channels: int) -> None:
    import zlib

    def mended(data: bytes) -> bytes:
        """The same with right check sums, so that what lies behind them is reached."""
        out, at = bytearray(data[:8]), 8
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            body = data[at + 4 : at + 8 + size]
            out += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
            at += 12 + size
        return bytes(out)

    def right(data: bytes, found: np.ndarray) -> bool:
        width, height, depth, colour = *(int.from_bytes(data[n : n + 4], "big") for n in (16, 20)), data[24], data[25]
        bounded = bool(np.isfinite(found).all() and found.min() >= 0 and found.max() <= 1)
        shaped = found.shape == (channels, 6, 9) and (width, height) == (9, 6)
        return bounded and shaped and depth <= 8 and (channels == 3) == (colour == 2)

    def careless(data: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(data)) as image:
            return np.atleast_3d(np.asarray(image, dtype=np.float32)).transpose(2, 0, 1)

    valid = [png(channels)]
    inputs = st.one_of(broken(valid), broken(valid).map(mended))
    read = lambda data: decode_png(data, (channels, 6, 9))  # noqa: E731 - the reader with its shape
    held(strike(f"images, {channels} channels", inputs, read, right, count=500, refusals=(BadLine,)))
    seen(strike("control", inputs, careless, right, count=100, refusals=(Exception,), record=False))


READER = """
import json, sys
from pathlib import Path
from bract.errors import BractError
from bract.tables import schema
from bract_client.sources.record import SourceRecord
from bract_client.sources.table import Table
for line in sys.stdin:
    try:
        found = list(Table(Path(line.strip()), schema("adult")).records())
        told = {"taken": [[r.record_id, r.subject_id] for r in found if isinstance(r, SourceRecord)], "lines": len(found)}
    except BractError as error:
        told = {"refused": error.code}
    except Exception as error:
        told = {"crash": f"{type(error).__name__}: {error}"[:300]}
    print(json.dumps(told), flush=True)
"""


def test_a_parquet_file_gives_only_records_that_were_written_into_it(tmp_path: Path) -> None:
    """In a process of its own, as Parquet is read by native code: if that falls, the child is gone and the crash is seen."""
    people = persons(40)
    valid = [write_table(tmp_path / "t.parquet", people).read_bytes()]
    known = {(person.record_id, person.subject_id) for person in people}
    child = subprocess.Popen([sys.executable, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    file = tmp_path / "x.parquet"

    def read(data: bytes) -> dict[str, Any]:
        file.write_bytes(data)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(f"{file}\n")
        child.stdin.flush()
        told: dict[str, Any] = json.loads(child.stdout.readline() or '{"crash": "the process is gone"}')
        if "crash" in told:
            raise RuntimeError(told["crash"])
        if "refused" in told:
            raise BractError(BAD_RECORD)
        return told

    def right(data: bytes, told: dict[str, Any]) -> bool:
        """A page's bytes have no check sum: identifiers may differ in a letter, but every record is one row, and plausible."""
        del data
        return told["lines"] <= 40 and all(record and person and record != person for record, person in told["taken"])

    def unchanged(_: bytes, told: dict[str, Any]) -> bool:
        return {tuple(one) for one in told["taken"]} == known

    try:
        held(strike("tables in Parquet", broken(valid), read, right, count=300))
        seen(strike("control", broken(valid), read, unchanged, count=100, record=False))
    finally:
        assert child.stdin is not None
        child.stdin.close()
        child.wait(10)
        assert child.stdout is not None
        child.stdout.close()


def test_ten_thousand_inputs_are_tried() -> None:
    """The counts that the tests of this folder ask for, summed; the table at the end tells those that were tried."""
    import re

    asked = [
        int(count)
        for path in Path(__file__).parent.glob("test_*.py")
        for name, count in re.findall(
            r'strike\(\s*f?"([^"]+)".*?count=(\d+)', path.read_text(encoding="utf-8"), re.DOTALL
        )
        if name != "control"
    ]
    assert sum(asked) >= 10_000
