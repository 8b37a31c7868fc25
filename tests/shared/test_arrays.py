"""One content, one sequence of bytes; anything else is refused with a code."""

import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bract.arrays import (
    Array,
    ArraysFile,
    count_of,
    from_bytes,
    layout_of,
    read_arrays,
    size_of,
    to_bytes,
    write_arrays,
    write_blocks,
    write_stream,
)
from bract.digest import digest
from bract.errors import BAD_ARRAYS, DISK, NOT_FINITE, BractError

Arrays = Mapping[str, Array]
ARRAYS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    max_size=5,
)
SAMPLE = {"b.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([-0.0, 1e-40, 3e38], np.float32)}
FILES = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(left: Arrays, right: Arrays) -> bool:
    return list(left) == list(right) and all(left[n].tobytes() == right[n].tobytes() for n in left)


@given(ARRAYS)
def test_arrays_come_back_bit_for_bit_in_sorted_order(arrays: Arrays) -> None:
    back = from_bytes(to_bytes(arrays), layout_of(arrays))
    assert same(back, dict(sorted(arrays.items())))
    assert all(back[name].shape == arrays[name].shape for name in back)


@given(ARRAYS)
def test_the_order_of_insertion_does_not_change_the_bytes(arrays: Arrays) -> None:
    assert to_bytes(dict(reversed(list(arrays.items())))) == to_bytes(arrays)


def test_the_safetensors_library_writes_and_reads_the_same_bytes() -> None:
    assert to_bytes(SAMPLE) == safetensors.numpy.save(SAMPLE)
    assert same(dict(sorted(safetensors.numpy.load(to_bytes(SAMPLE)).items())), dict(sorted(SAMPLE.items())))


@FILES
@given(ARRAYS)
def test_a_file_streams_back_what_was_written(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "one.safetensors"
    named = write_arrays(path, arrays)
    assert named == digest(path.read_bytes()) == digest(to_bytes(arrays))
    assert path.stat().st_size == size_of(layout_of(arrays))
    assert same(dict(read_arrays(path, layout_of(arrays))), dict(sorted(arrays.items())))


@given(st.binary(max_size=300))
@example(b"")
@example(struct.pack("<Q", 2**63) + b"{}")
@example(struct.pack("<Q", 2) + b"{}")
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(BractError) as caught:
        from_bytes(data, layout_of(SAMPLE))
    assert caught.value.code == BAD_ARRAYS


@FILES
@given(st.data())
def test_a_flipped_bit_is_refused_or_only_another_finite_value(tmp_path: Path, data: st.DataObject) -> None:
    good = to_bytes(SAMPLE)
    bit = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[bit // 8] ^= 1 << (bit % 8)
    header = size_of(layout_of(SAMPLE)) - 4 * sum(a.size for a in SAMPLE.values())
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(bytes(bad))
    reads: list[Callable[[], Mapping[str, Array]]] = [
        lambda: from_bytes(bytes(bad), layout_of(SAMPLE)),
        lambda: dict(read_arrays(path, layout_of(SAMPLE))),
    ]
    for read in reads:
        try:
            arrays = read()
        except BractError as error:
            assert error.code == (BAD_ARRAYS if bit // 8 < header else NOT_FINITE)
        else:
            assert bit // 8 >= header
            assert to_bytes(arrays) == bytes(bad)


@pytest.mark.parametrize(
    "layout",
    [
        {"a": (3,)},
        {"a": (3,), "b.weight": (3, 2)},
        {"a": (3,), "c.weight": (2, 3)},
        {"a": (3,), "b.weight": (2, 3), "c": (0,)},
        {"a": (4,), "b.weight": (2, 3)},
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path: Path, layout: dict[str, tuple[int, ...]]) -> None:
    path = tmp_path / "other.safetensors"
    write_arrays(path, SAMPLE)
    reads: list[Callable[[], Mapping[str, Array]]] = [
        lambda: from_bytes(path.read_bytes(), layout),
        lambda: dict(read_arrays(path, layout)),
    ]
    for read in reads:
        with pytest.raises(BractError) as caught:
            read()
        assert caught.value.code == BAD_ARRAYS


@pytest.mark.parametrize("wrong", [np.float64, np.float16, np.int32, np.bool_, ">f4"])
def test_only_float32_is_written(wrong: Any) -> None:
    with pytest.raises(BractError) as caught:
        to_bytes({"a": np.ones(3, wrong)})
    assert caught.value.code == BAD_ARRAYS


def test_other_dtypes_of_the_same_size_are_refused() -> None:
    with pytest.raises(BractError) as caught:
        from_bytes(safetensors.numpy.save({"a": np.ones(3, np.int32)}), {"a": (3,)})
    assert caught.value.code == BAD_ARRAYS


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_both_ways(tmp_path: Path, value: float) -> None:
    bad = {"a": np.array([0, value], np.float32)}
    data = safetensors.numpy.save(bad)
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    for act in (
        lambda: to_bytes(bad),
        lambda: from_bytes(data, {"a": (2,)}),
        lambda: dict(read_arrays(path, {"a": (2,)})),
        lambda: write_arrays(path, bad),
    ):
        with pytest.raises(BractError) as caught:
            act()
        assert caught.value.code == NOT_FINITE
    assert path.read_bytes() == data


def test_a_stream_that_stops_early_or_strays_leaves_nothing_behind(tmp_path: Path) -> None:
    layout = layout_of(SAMPLE)
    for tensors in (
        [("a", SAMPLE["a"])],
        [("b.weight", SAMPLE["b.weight"]), ("a", SAMPLE["a"])],
        [*sorted(SAMPLE.items()), ("c", SAMPLE["a"])],
    ):
        with pytest.raises(BractError) as caught:
            write_stream(tmp_path / "new.safetensors", layout, tensors)
        assert caught.value.code == BAD_ARRAYS
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    write_arrays(path, SAMPLE)
    before = path.read_bytes()

    def breaks() -> Iterator[tuple[str, Array]]:
        yield "a", SAMPLE["a"]
        raise OSError(28, "No space left on device")

    with pytest.raises(BractError) as caught:
        write_stream(path, layout_of(SAMPLE), breaks())
    assert caught.value.code == DISK
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["kept.safetensors"]


def test_a_missing_file_or_folder_is_a_refusal(tmp_path: Path) -> None:
    for act in (
        lambda: dict(read_arrays(tmp_path / "none", layout_of(SAMPLE))),
        lambda: write_arrays(tmp_path / "no" / "folder", SAMPLE),
    ):
        with pytest.raises(BractError) as caught:
            act()
        assert caught.value.code == DISK


@FILES
@given(ARRAYS, st.lists(st.integers(0, 400), max_size=4), st.data())
def test_numbers_written_in_blocks_and_read_in_slices_are_the_files_own(
    tmp_path: Path, arrays: Arrays, cuts: list[int], data: st.DataObject
) -> None:
    layout = layout_of(arrays)
    flat = np.concatenate([np.zeros(0, np.float32), *(arrays[name].ravel() for name in layout)])
    assert count_of(layout) == flat.size
    blocks = np.split(flat, sorted(min(cut, flat.size) for cut in cuts))
    assert write_blocks(tmp_path / "blocks", layout, blocks) == digest(to_bytes(arrays))
    start = data.draw(st.integers(0, flat.size))
    stop = data.draw(st.integers(start, flat.size))
    with ArraysFile(tmp_path / "blocks", layout).opened() as numbers:
        assert numbers.read(start, stop).tobytes() == flat[start:stop].tobytes()


def test_blocks_that_are_too_few_too_many_or_wrong_leave_nothing_behind(tmp_path: Path) -> None:
    layout, right = layout_of(SAMPLE), np.ones(9, np.float32)
    wrong = [
        ([right[:8]], BAD_ARRAYS),
        ([right, right[:1]], BAD_ARRAYS),
        ([right.astype(np.float64)], BAD_ARRAYS),
        ([right[:5], np.full(4, np.nan, np.float32)], NOT_FINITE),
    ]
    for blocks, code in wrong:
        with pytest.raises(BractError) as caught:
            write_blocks(tmp_path / "one", layout, blocks)  # type: ignore[arg-type]
        assert caught.value.code == code
        assert list(tmp_path.iterdir()) == []


def test_numbers_of_a_file_that_is_not_of_its_layout_or_not_finite_are_refused(tmp_path: Path) -> None:
    layout = layout_of(SAMPLE)
    good = to_bytes(SAMPLE)
    for name, data, code in (
        ("short", good[:-4], BAD_ARRAYS),
        ("other", to_bytes({"c": np.zeros(9, np.float32)}), BAD_ARRAYS),
        ("odd", good[:-4] + struct.pack("<f", float("inf")), NOT_FINITE),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BractError) as caught, ArraysFile(tmp_path / name, layout).opened() as numbers:
            numbers.read(0, 9)
        assert caught.value.code == code
    with pytest.raises(BractError) as caught, ArraysFile(tmp_path / "none", layout).opened():
        pass
    assert caught.value.code == DISK
    (tmp_path / "whole").write_bytes(good)
    with ArraysFile(tmp_path / "whole", layout).opened() as numbers:
        (tmp_path / "whole").write_bytes(good[:-8])  # cut off while it is open
        with pytest.raises(BractError) as caught:
            numbers.read(0, 9)
    assert caught.value.code == BAD_ARRAYS
