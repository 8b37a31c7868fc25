"""An array is here whole and right, or it is not here."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bract.digest import Digest, digest
from bract.errors import CONCURRENT, DIGEST_MISMATCH, DISK, MALFORMED, STATE, TOO_LARGE, BractError
from bract_server.arrays import ArrayStore, Held
from tests.small_disk import on_small_disk

DATA = bytes(range(256)) * 100
NAME = digest(DATA)


@pytest.fixture
def store(tmp_path: Path) -> ArrayStore:
    return ArrayStore(tmp_path / "arrays", max_bytes=100_000, quota_bytes=150_000)


def files(store: ArrayStore) -> list[str]:
    folder = store.path(NAME).parent
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def pieces(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def cut(data: bytes, after: int) -> Iterator[bytes]:
    """A line that breaks."""
    yield from pieces(data[:after])
    raise ConnectionError


def code_of(store: ArrayStore, name: Digest, size: int, chunks: list[bytes], offset: int = 0) -> str:
    with pytest.raises(BractError) as refused:
        store.receive(name, size, chunks, offset)
    return refused.value.code


def test_a_whole_array_gets_its_name(store: ArrayStore) -> None:
    store.receive(NAME, len(DATA), pieces(DATA))
    assert store.read(NAME).read_bytes() == DATA
    assert files(store) == [store.path(NAME).name]
    assert store.stat(NAME) == Held(True, len(DATA))


@pytest.mark.parametrize(
    ("chunks", "size", "code"),
    [
        ([DATA[:-1] + b"x"], len(DATA), DIGEST_MISMATCH),
        ([DATA, b"x"], len(DATA), TOO_LARGE),
        ([DATA], 100_001, TOO_LARGE),
        ([b""], 0, TOO_LARGE),
    ],
)
def test_nothing_is_kept_of_what_is_not_as_announced(
    store: ArrayStore, chunks: list[bytes], size: int, code: str
) -> None:
    assert code_of(store, NAME, size, chunks) == code
    assert files(store) == []


def test_an_end_that_comes_too_early_is_a_cut(store: ArrayStore) -> None:
    assert code_of(store, NAME, len(DATA), [DATA[:5000]]) == MALFORMED
    assert store.stat(NAME) == Held(False, 5000)
    store.receive(NAME, len(DATA), [DATA[5000:]], 5000)
    assert store.read(NAME).read_bytes() == DATA


@given(first=st.integers(0, len(DATA)), back=st.integers(0, 3000), size=st.integers(1, 9000))
@settings(max_examples=40, deadline=None)
def test_a_cut_transfer_goes_on_at_any_offset_that_is_there(
    tmp_path_factory: pytest.TempPathFactory, first: int, back: int, size: int
) -> None:
    store = ArrayStore(tmp_path_factory.mktemp("s"), 100_000, 150_000)
    with pytest.raises(ConnectionError):
        store.receive(NAME, len(DATA), cut(DATA, first))
    assert store.stat(NAME) == Held(False, first)
    offset = max(0, first - back)
    store.receive(NAME, len(DATA), pieces(DATA[offset:], size), offset)
    assert store.read(NAME).read_bytes() == DATA


def test_an_offset_beyond_what_is_there_is_refused(store: ArrayStore) -> None:
    with pytest.raises(ConnectionError):
        store.receive(NAME, len(DATA), cut(DATA, 5000))
    assert code_of(store, NAME, len(DATA), [DATA[6000:]], 6000) == MALFORMED
    assert store.stat(NAME) == Held(False, 5000), "what came is as right as before"


def test_a_wrong_beginning_is_found_when_it_is_continued(store: ArrayStore) -> None:
    with pytest.raises(ConnectionError):
        store.receive(NAME, len(DATA), cut(bytes(5000), 5000))
    assert code_of(store, NAME, len(DATA), [DATA[5000:]], 5000) == DIGEST_MISMATCH
    assert files(store) == []


def test_many_may_send_the_same_array_at_once(store: ArrayStore) -> None:
    big = ArrayStore(store.path(NAME).parent, 100_000, 10**7)
    together = threading.Barrier(8)
    failed: list[BaseException] = []

    def send() -> None:
        def chunks() -> Iterator[bytes]:
            yield DATA[:100]
            together.wait(10)
            yield from pieces(DATA[100:])

        try:
            big.receive(NAME, len(DATA), chunks())
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            failed.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert big.read(NAME).read_bytes() == DATA
    assert files(big) == [big.path(NAME).name]


def test_a_transfer_under_way_cannot_be_continued_by_another(store: ArrayStore) -> None:
    def chunks() -> Iterator[bytes]:
        yield DATA[:5000]
        assert code_of(store, NAME, len(DATA), [DATA[5000:]], 5000) == CONCURRENT
        yield DATA[5000:]

    store.receive(NAME, len(DATA), chunks())
    assert store.read(NAME).read_bytes() == DATA


def test_the_quota_counts_what_is_here_and_what_is_announced(store: ArrayStore) -> None:
    others = [bytes([i]) * 70_000 for i in range(3)]
    store.receive(digest(others[0]), 70_000, [others[0]])

    def chunks() -> Iterator[bytes]:
        yield others[1][:10]
        assert code_of(store, digest(others[2]), 70_000, [others[2]]) == DISK
        yield others[1][10:]

    store.receive(digest(others[1]), 70_000, chunks())
    assert code_of(store, digest(others[2]), 70_000, [others[2]]) == DISK
    store.discard(digest(others[0]))
    store.receive(digest(others[2]), 70_000, [others[2]])


def test_a_discarded_array_is_overwritten_before_it_is_removed(store: ArrayStore, tmp_path: Path) -> None:
    store.receive(NAME, len(DATA), [DATA])
    kept = tmp_path / "second name of the same blocks"
    kept.hardlink_to(store.path(NAME))
    store.discard(NAME)
    assert kept.read_bytes() == bytes(len(DATA))
    assert files(store) == []
    with pytest.raises(BractError) as refused:
        store.read(NAME)
    assert refused.value.code == STATE
    store.discard(NAME)


def test_a_part_that_nobody_continues_is_swept(store: ArrayStore) -> None:
    with pytest.raises(ConnectionError):
        store.receive(NAME, len(DATA), cut(DATA, 5000))
    now = datetime.now(UTC)
    assert store.sweep(now - timedelta(hours=1)) == 0
    assert store.sweep(now + timedelta(hours=1)) == 1
    assert files(store) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "sha256:", "sha256:" + "A" * 64, ""])
def test_only_a_digest_becomes_a_path(store: ArrayStore, name: str) -> None:
    with pytest.raises(BractError) as refused:
        store.path(Digest(name))
    assert refused.value.code == MALFORMED


FULL = """
import os, sys
from pathlib import Path
from bract.digest import digest
from bract.errors import BractError
from bract_server.arrays import ArrayStore
folder = Path(sys.argv[1])
store = ArrayStore(folder / "arrays", 1 << 30, 1 << 30)
(folder / "other").write_bytes(bytes(600_000))
small = b"s" * 100_000
store.receive(digest(small), len(small), [small])
def chunks():
    yield bytes(100_000)
    (folder / "more").write_bytes(bytes(200_000))
    yield bytes(150_000)
for size, sent in ((500_000, [bytes(500_000)]), (250_000, chunks())):
    try:
        store.receive(digest(bytes(size)), size, sent)
    except BractError as error:
        print(error.code, error.detail, os.listdir(folder / "arrays" / "incoming"), sep="|")
print(store.read(digest(small)).read_bytes() == small)
"""


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    told = on_small_disk(tmp_path / "disk", 1000, FULL).splitlines()
    assert told == ["disk|too little space|[]", "disk|ENOSPC|[]", "True"]


def test_what_a_killed_process_was_making_is_swept_like_a_transfer_that_was_cut(tmp_path: Path) -> None:
    import os
    from datetime import UTC, datetime

    store = ArrayStore(tmp_path / "store", max_bytes=1 << 20, quota_bytes=1 << 20)
    left = store.scratch / "tmp-of-a-killed-process"
    left.mkdir()
    (left / "mean").write_bytes(b"x" * 100)
    os.utime(left, (0, 0))
    fresh = store.scratch / "of-a-live-one"
    fresh.mkdir()
    assert store.sweep(datetime(2020, 1, 1, tzinfo=UTC)) == 1
    assert list(store.scratch.iterdir()) == [fresh]
