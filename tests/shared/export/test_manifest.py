"""An export and its manifest verify together; any change of either is found."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import digest
from bract.errors import ALREADY_EXISTS, DIGEST_MISMATCH, MALFORMED, TOO_LARGE, UNTRUSTED, BractError
from bract.export.manifest import (
    MOST_FILES,
    About,
    Document,
    ExportedFile,
    Manifest,
    export_documents,
    export_table,
    manifest_path,
    public_key,
    verify,
)
from bract.export.tabular import table_of
from bract.identity import public_pem
from bract.signing import parse_envelope, sign, unseal
from bract.value import decode

AT = datetime(2026, 11, 22, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ABOUT = About("question 5", "what it is", "hub", AT, {"site": "alder"}, None, 7, digest(b"root"))
ROWS = [{"a": 1, "b": "x"}, {"a": 2, "b": "=y"}]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    targets = [tmp_path / "a.csv", tmp_path / "a.parquet"]
    export_table(targets, table_of(("a", "b"), ROWS, "what it is"), ABOUT, KEY, AT)
    return manifest_path(targets[0])


def refused(manifest: Path, code: str, key: Ed25519PrivateKey = KEY) -> str:
    with pytest.raises(BractError) as refusal:
        verify(manifest, key.public_key())
    assert refusal.value.code == code
    return refusal.value.detail


def test_an_export_verifies_and_tells_what_it_is(manifest: Path) -> None:
    told = verify(manifest, KEY.public_key())
    assert told.about == ABOUT
    assert [(one.name, one.rows) for one in told.files] == [("a.csv", 2), ("a.parquet", 2)]
    assert told.files[0].sha256 == digest((manifest.parent / "a.csv").read_bytes())


def test_the_envelope_verifies_by_itself(manifest: Path) -> None:
    """Whoever has a DSSE library needs nothing of ours."""
    sealed = parse_envelope(json.dumps(json.loads(manifest.read_bytes())["envelope"]).encode())
    assert unseal(Manifest, sealed, KEY.public_key()) == verify(manifest, KEY.public_key())


@pytest.mark.parametrize("name", ["a.csv", "a.parquet"])
def test_one_changed_byte_of_any_file_is_found_and_named(manifest: Path, name: str) -> None:
    path = manifest.parent / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert refused(manifest, DIGEST_MISMATCH) == name


def test_a_changed_byte_anywhere_in_the_manifest_is_found(manifest: Path) -> None:
    """A byte may still spell the same JSON, as a blank does; then the manifest is the same."""
    data = manifest.read_bytes()
    good = verify(manifest, KEY.public_key())
    found = 0
    places = range(0, len(data), 11)
    for place in places:
        changed = bytearray(data)
        changed[place] ^= 1
        manifest.write_bytes(changed)
        try:
            assert verify(manifest, KEY.public_key()) == good
        except BractError:
            found += 1
    assert found > len(places) * 0.9


def test_a_missing_file_is_named(manifest: Path) -> None:
    (manifest.parent / "a.parquet").unlink()
    assert "a.parquet" in refused(manifest, MALFORMED)


def test_another_key_or_a_text_that_was_not_signed_is_no_manifest(manifest: Path) -> None:
    refused(manifest, UNTRUSTED, Ed25519PrivateKey.generate())
    read = json.loads(manifest.read_bytes())
    read["manifest"]["about"]["known_at"] = "2020-01-01T00:00:00Z"
    manifest.write_text(json.dumps(read))
    assert "in the clear" in refused(manifest, UNTRUSTED)
    read["envelope"] = json.loads(sign(ABOUT, KEY).to_json())
    manifest.write_text(json.dumps(read))
    refused(manifest, UNTRUSTED)


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"manifest": {}, "envelope": 1}', "[" * 100_000])
def test_what_is_no_manifest_is_refused(manifest: Path, text: str) -> None:
    manifest.write_text(text)
    refused(manifest, MALFORMED)


def test_a_manifest_cannot_name_a_file_elsewhere(manifest: Path) -> None:
    for name in ("../a.csv", "/etc/passwd", "a\\b", "", "a\x00"):
        with pytest.raises(BractError) as refusal:
            decode(ExportedFile, {"name": name, "media_type": "", "sha256": digest(b""), "size": 0})
        assert refusal.value.code == MALFORMED


def test_nothing_is_overwritten_and_nothing_left_when_only_the_manifest_is_there(tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    manifest_path(out).write_bytes(b"mine")
    with pytest.raises(BractError) as refusal:
        export_documents({out: Document("application/json", b"{}")}, ABOUT, KEY, AT)
    assert refusal.value.code == ALREADY_EXISTS
    assert [path.name for path in tmp_path.iterdir()] == ["a.json.manifest.json"]


def test_the_largest_export_still_verifies_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    many = {
        tmp_path / f"{'n' * 60}{number:06}.json": Document("application/json", b"") for number in range(MOST_FILES + 1)
    }
    with pytest.raises(BractError) as refusal:
        export_documents(many, ABOUT, KEY, AT)
    assert refusal.value.code == TOO_LARGE
    assert list(tmp_path.iterdir()) == []
    files = tuple(ExportedFile(path.name, "m" * 80, digest(b""), 10**9) for path in list(many)[:MOST_FILES])
    assert len(parse_envelope(sign(Manifest(ABOUT, files, AT, "bract"), KEY).to_json()).payload) > 0


def test_the_files_of_an_export_lie_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for targets in ([], [tmp_path / "a.csv", tmp_path / "b" / "a.csv"]):
        with pytest.raises(BractError) as refusal:
            export_table(targets, table_of(("a", "b"), ROWS, ""), ABOUT, KEY, AT)
        assert refusal.value.code == MALFORMED


def test_only_its_owner_may_read_a_private_export(tmp_path: Path) -> None:
    for private, mode in ((True, 0o600), (False, 0o644)):
        out = tmp_path / f"{private}.json"
        export_documents({out: Document("application/json", b"{}")}, ABOUT, KEY, AT, private=private)
        assert stat.S_IMODE(out.stat().st_mode) == mode
        verify(manifest_path(out), KEY.public_key())


def test_a_public_key_is_read_from_pem(tmp_path: Path) -> None:
    path = tmp_path / "signing.pub"
    path.write_bytes(public_pem(KEY.public_key()))
    assert public_key(path).public_bytes_raw() == KEY.public_key().public_bytes_raw()
    for data in (b"", b"-----BEGIN PUBLIC KEY-----\n", b"\x00"):
        path.write_bytes(data)
        with pytest.raises(BractError) as refusal:
            public_key(path)
        assert refusal.value.code == MALFORMED
