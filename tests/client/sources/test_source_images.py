import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bract.consent import Purpose
from bract.errors import BAD_RECORD, BractError
from bract_client.sources import images
from bract_client.sources.images import Images, decode_png
from bract_client.sources.record import BadLine, Reason, SourceRecord, Unreadable

SHAPE = (1, 8, 8)
HEADER = "record_id,subject_id,collected_at,purposes,file\n"


def png(path: Path, value: int = 100, size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)
    return path


def manifest(folder: Path, *files: str) -> Images:
    lines = [f"r{n},P-{n},2026-01-01T00:00:00Z,ssl-pretraining;distillation,{file}\n" for n, file in enumerate(files)]
    (folder / "manifest.csv").write_text(HEADER + "".join(lines))
    return Images(folder, SHAPE)


def only(source: Images) -> SourceRecord | Unreadable:
    (item,) = source.records()
    return item


def test_an_image_is_read_as_floats_between_zero_and_one(tmp_path: Path) -> None:
    png(tmp_path / "a.png", 0)
    png(tmp_path / "b.png", 255)
    source = manifest(tmp_path, "a.png", "b.png")
    first, second = source.records()
    assert isinstance(first, SourceRecord) and isinstance(second, SourceRecord)
    assert first.purposes == {Purpose.PRETRAINING, Purpose.DISTILLATION}
    loaded = source.load(["r1", "r0"])
    assert loaded.values.shape == (2, 1, 8, 8) and loaded.values.dtype == np.float32
    assert loaded.values[0].min() == 1.0 and loaded.values[1].max() == 0.0
    assert loaded.digests == (second.payload_digest, first.payload_digest)


def test_colour_images_keep_their_channels(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (255, 0, 51)).save(tmp_path / "a.png")
    manifest(tmp_path, "a.png")
    values = Images(tmp_path, (3, 8, 8)).load(["r0"]).values
    assert values[0, :, 3, 3].tolist() == pytest.approx([1.0, 0.0, 0.2])


@pytest.mark.parametrize("name", ["../out.png", "/etc/hostname", "sub/../../out.png", "link.png", "", "a\x07.png"])
def test_a_file_outside_the_folder_is_never_opened(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    outside = png(tmp_path / "out.png")
    (folder / "link.png").symlink_to(outside)
    assert only(manifest(folder, name)) == Unreadable(2, Reason.BAD_PATH)
    assert Images(folder, SHAPE).load(["r0"]).digests == (None,)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    items = list(manifest(tmp_path, "none.png", "folder.png").records())
    assert items == [Unreadable(2, Reason.MISSING_FILE), Unreadable(3, Reason.MISSING_FILE)]


@pytest.mark.parametrize(("size", "mode"), [((9, 8), "L"), ((8, 8), "RGB"), ((8, 8), "RGBA"), ((8, 8), "LA")])
def test_another_size_or_mode_is_refused(tmp_path: Path, size: tuple[int, int], mode: str) -> None:
    png(tmp_path / "a.png", size=size, mode=mode)
    assert only(manifest(tmp_path, "a.png")) == Unreadable(2, Reason.WRONG_SHAPE)


def test_another_format_under_the_name_of_a_png_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png", format="BMP")
    assert only(manifest(tmp_path, "a.png")) == Unreadable(2, Reason.BAD_PAYLOAD)


def test_a_huge_image_in_a_small_file_is_not_unpacked(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(bomb)
    assert only(manifest(tmp_path, "a.png")) == Unreadable(2, Reason.WRONG_SHAPE)


def test_a_file_over_the_limit_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(images.MAX_FILE_BYTES + 1)
    assert only(manifest(tmp_path, "a.png")) == Unreadable(2, Reason.TOO_LARGE)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_refused_and_never_crash(tmp_path: Path, data: st.DataObject) -> None:
    good = png(tmp_path / "a.png").read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    kind = data.draw(st.sampled_from(["flip", "cut", "noise"]))
    if kind == "flip":
        bad = good[:place] + bytes([good[place] ^ data.draw(st.integers(1, 255))]) + good[place + 1 :]
    else:
        bad = good[:place] if kind == "cut" else good[:place] + data.draw(st.binary(max_size=60))
    try:
        values = decode_png(bad, SHAPE)
    except BadLine:
        return
    assert values.shape == SHAPE and values.min() >= 0 and values.max() <= 1


def test_bad_lines_are_named_and_the_others_are_read(tmp_path: Path) -> None:
    png(tmp_path / "a.png")
    time = "2026-01-01T00:00:00Z"
    (tmp_path / "manifest.csv").write_bytes(
        HEADER.encode()
        + f"r0,P-0,{time},ssl-pretraining,a.png\n".encode()
        + b"r1,P-1\n"
        + f"r2,P-\xff,{time},,a.png\n".encode("latin-1")
        + f"r3,P-3,{time},ssl-pretraining;,a.png\n".encode()
        + f'r4,P-4,{time},"a"b,a.png\n'.encode()
        + f"r5,P-5,{time},,a.png\n".encode()
    )
    items = list(Images(tmp_path, SHAPE).records())
    assert [item.reason for item in items if isinstance(item, Unreadable)] == [
        Reason.BAD_LINE,
        Reason.BAD_SUBJECT_ID,
        Reason.UNKNOWN_PURPOSE,
        Reason.BAD_LINE,
    ]
    good = [item for item in items if isinstance(item, SourceRecord)]
    assert [(one.record_id, one.line) for one in good] == [("r0", 2), ("r5", 7)]
    assert good[1].purposes == frozenset()


@pytest.mark.parametrize(
    "text", ["", "record_id,subject_id\n", HEADER.replace("file", "file,file"), HEADER[:-1] + ",x\n"]
)
def test_another_header_refuses_the_whole_folder(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(BractError) as refused:
        list(Images(tmp_path, SHAPE).records())
    assert refused.value.code == BAD_RECORD
