"""The archive of a bundle: one way to write it, any unzip to read it, no byte that could be another."""

import io
import zipfile
from pathlib import Path

import pytest

from bract.errors import ALREADY_EXISTS, LOG, MALFORMED, BractError
from bract.log import archive

FILES = [("a.json", b'{"a":1}'), ("log/tile/0/000.p/3", bytes(range(96))), ("empty", b"")]


def whole(files: list[tuple[str, bytes]] = FILES) -> bytes:
    return b"".join(archive.zipped(files))


def test_any_unzip_reads_it_and_the_same_files_give_the_same_bytes() -> None:
    with zipfile.ZipFile(io.BytesIO(whole())) as read:
        assert read.testzip() is None
        assert [(info.filename, read.read(info)) for info in read.infolist()] == FILES
    assert whole() == whole()
    found = archive.members(io.BytesIO(whole()))
    assert [(name, archive.content(io.BytesIO(whole()), one)) for name, one in found.items()] == FILES


def test_more_files_than_the_old_format_counts() -> None:
    many = [(f"f/{number}", b"") for number in range(65_600)]
    data = whole(many)
    with zipfile.ZipFile(io.BytesIO(data)) as read:
        assert len(read.infolist()) == len(many)
    assert len(archive.members(io.BytesIO(data))) == len(many)


@pytest.mark.parametrize(
    "name", ["../a", "/a", "a//b", "a/../b", "A", "a b", "", "a/", ".hidden", "a\n", "é", "a" * 99]
)
def test_a_name_that_is_not_plain_is_neither_written_nor_read(name: str) -> None:
    with pytest.raises(BractError) as refusal:
        whole([(name, b"x")])
    assert refusal.value.code == MALFORMED
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as other:
        other.writestr(zipfile.ZipInfo(name or "-"), b"x")
    with pytest.raises(BractError) as refusal:
        archive.members(raw)
    assert refusal.value.code == LOG


def test_a_file_comes_once() -> None:
    with pytest.raises(BractError):
        whole([("a", b"1"), ("a", b"2")])
    one, two = whole([("a", b"1")]), whole([("a", b"2")])
    with pytest.raises(BractError) as refusal:
        archive.members(io.BytesIO(one[: 30 + 1 + 1] + two))
    assert refusal.value.code == LOG


def test_a_compressed_archive_is_not_read() -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as other:
        other.writestr("a.json", b"x" * (1 << 20))
    with pytest.raises(BractError):
        archive.members(raw)


def test_no_byte_between_the_files_can_change() -> None:
    data = whole()
    inside = set[int]()
    for one in archive.members(io.BytesIO(data)).values():
        begin = one.offset + 30 + len(one.name)
        inside |= set(range(begin, begin + one.size))
    outside = set(range(len(data))) - inside
    assert len(outside) > 200
    for place in outside:
        changed = bytearray(data)
        changed[place] ^= 1
        try:
            found = archive.members(io.BytesIO(bytes(changed)))
        except BractError:
            continue
        raise AssertionError(f"byte {place} was changed unseen: {found}")


@pytest.mark.parametrize("cut", [0, 1, 20, 40, 100, -1])
def test_an_archive_that_was_cut_or_grew_is_not_read(cut: int) -> None:
    for data in (whole()[:cut], whole() + b"\x00", b"\x00" + whole()):
        with pytest.raises(BractError):
            archive.members(io.BytesIO(data))


def test_a_bundle_is_never_written_over_and_never_half_written(tmp_path: Path) -> None:
    archive.write(tmp_path / "b.zip", FILES)
    with pytest.raises(BractError) as refusal:
        archive.write(tmp_path / "b.zip", [("a", b"")])
    assert refusal.value.code == ALREADY_EXISTS
    assert (tmp_path / "b.zip").read_bytes() == whole()
    with pytest.raises(BractError):
        archive.write(tmp_path / "c.zip", [*FILES, FILES[0]])
    assert not (tmp_path / "c.zip").exists()
