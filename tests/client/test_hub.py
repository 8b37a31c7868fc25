"""The site's line to its hub when the network is bad: it comes back, goes on, and keeps nothing wrong."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bract.digest import digest
from bract.errors import DIGEST_MISMATCH, NOT_ENROLLED, TOO_LARGE, UNREACHABLE, BractError
from bract.files import read_private
from bract_client import home as homes
from bract_client.hub import HubClient, connect
from tests.loopback import Loopback, loopback, now
from tests.small_disk import on_small_disk

DATA = os.urandom(24 << 20)
NAME = digest(DATA)


class BadLine:
    """A TCP proxy that drops every connection after so many bytes in one direction, `cuts` times."""

    def __init__(self, target: int, limit: int, cuts: int) -> None:
        self._target, self._limit, self.cuts = target, limit, cuts
        self.carried = {"up": 0, "down": 0}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                for way, source, sink in (("up", near, far), ("down", far, near)):
                    threading.Thread(target=self._pump, args=(way, source, sink), daemon=True).start()

    def _pump(self, way: str, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(1 << 16):
                passed += len(data)
                self.carried[way] += len(data)
                if passed > self._limit and self.cuts > 0:
                    self.cuts -= 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with loopback(tmp_path_factory.mktemp("hub"), "clinic") as hub:
        yield hub


def client(running: Loopback, port: int, patience_s: float = 20.0) -> HubClient:
    home = running.sites["clinic"]
    return HubClient(
        f"127.0.0.1:{port}",
        key=read_private(home.tls_key_file),
        certificate=home.certificate_file.read_bytes(),
        authority=home.authority_file.read_bytes(),
        patience_s=patience_s,
    )


def test_a_put_that_was_cut_goes_on_where_it_stopped(running: Loopback, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(DATA)
    line = BadLine(running.server.port, limit=10 << 20, cuts=2)
    with client(running, line.port) as hub:
        hub.put(tmp_path / "up", NAME)
    line.close()
    assert running.store.read(NAME).read_bytes() == DATA
    running.store.discard(NAME)
    assert line.cuts == 0
    assert line.carried["up"] < 1.7 * len(DATA)  # from the start again it would be 2.9


def test_a_get_that_was_cut_goes_on_where_it_stopped(running: Loopback, tmp_path: Path) -> None:
    running.store.receive(NAME, len(DATA), [DATA])
    line = BadLine(running.server.port, limit=10 << 20, cuts=2)
    with client(running, line.port) as hub:
        hub.get(NAME, len(DATA), tmp_path / "down")
    line.close()
    running.store.discard(NAME)
    assert (tmp_path / "down").read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["down"]
    assert line.cuts == 0
    assert line.carried["down"] < 1.7 * len(DATA)


def test_a_line_that_never_heals_ends_in_time_and_leaves_no_file_of_that_name(
    running: Loopback, tmp_path: Path
) -> None:
    running.store.receive(NAME, len(DATA), [DATA])
    line = BadLine(running.server.port, limit=100_000, cuts=10**6)
    start = time.monotonic()
    with client(running, line.port, patience_s=2.0) as hub, pytest.raises(BractError) as refused:
        hub.get(NAME, len(DATA), tmp_path / "down")
    line.close()
    running.store.discard(NAME)
    assert refused.value.code == UNREACHABLE
    assert time.monotonic() - start < 20
    assert not (tmp_path / "down").exists()


def test_a_kept_part_that_was_spoilt_is_fetched_anew(running: Loopback, tmp_path: Path) -> None:
    running.store.receive(NAME, len(DATA), [DATA])
    (tmp_path / "down.part").write_bytes(b"x" * 5_000_000)
    with client(running, running.server.port) as hub:
        hub.get(NAME, len(DATA), tmp_path / "down")
    running.store.discard(NAME)
    assert (tmp_path / "down").read_bytes() == DATA


def test_a_part_at_the_hub_that_was_spoilt_is_sent_anew(running: Loopback, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(DATA)
    part = running.hub.arrays / "incoming" / f"{NAME.removeprefix('sha256:')}.part"
    part.write_bytes(b"x" * 5_000_000)
    with client(running, running.server.port) as hub:
        hub.put(tmp_path / "up", NAME)
    assert running.store.read(NAME).read_bytes() == DATA
    running.store.discard(NAME)


def test_an_array_that_is_not_what_its_name_says_is_not_kept(running: Loopback, tmp_path: Path) -> None:
    running.store.path(NAME).write_bytes(DATA[:-1] + b"!")
    with client(running, running.server.port) as hub:
        with pytest.raises(BractError) as refused:
            hub.get(NAME, len(DATA), tmp_path / "down")
        assert refused.value.code == DIGEST_MISMATCH
        with pytest.raises(BractError) as refused:
            hub.get(NAME, len(DATA) - 1, tmp_path / "down")
        assert refused.value.code == TOO_LARGE
    running.store.discard(NAME)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_comes_back_in_time_is_found(running: Loopback) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    later: list[BadLine] = []

    def appear() -> None:
        line = BadLine(running.server.port, limit=1, cuts=0)
        relay = socket.create_server(("127.0.0.1", port))
        line._listener.close()
        line._listener = relay
        threading.Thread(target=line._accept, daemon=True).start()
        later.append(line)

    timer = threading.Timer(1.0, appear)
    timer.start()
    with client(running, port) as hub:
        assert hub.status().hub == "hub"
    timer.join()
    later[0].close()


def test_a_hub_that_stays_away_is_given_up(running: Loopback) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    start = time.monotonic()
    with client(running, port, patience_s=1.0) as hub, pytest.raises(BractError) as refused:
        hub.status()
    assert refused.value.code == UNREACHABLE
    assert time.monotonic() - start < 10


def test_a_site_that_is_not_enrolled_cannot_connect(tmp_path: Path) -> None:
    with pytest.raises(BractError) as refused:
        connect(homes.create(tmp_path / "site", name="clinic"), now())
    assert refused.value.code == NOT_ENROLLED


FULL = """
import os, sys
from pathlib import Path
from bract.digest import digest
from bract.errors import BractError
from bract_client.hub import connect
from tests.loopback import loopback, now
small, root = Path(sys.argv[1]), Path(sys.argv[1]).parent / "hub"
data = os.urandom(3_000_000)
with loopback(root, "clinic") as running, connect(running.sites["clinic"], now()) as hub:
    running.store.receive(digest(data), len(data), [data])
    try:
        hub.get(digest(data), len(data), small / "down")
    except BractError as error:
        print(error.code, os.listdir(small))
    running.store.discard(digest(data))
    (small / "up").write_bytes(data[:1_500_000])
    (small / "arrays").mkdir()
    running.store._folder = running.store._incoming = small / "arrays"
    try:
        hub.put(small / "up", digest(data[:1_500_000]))
    except BractError as error:
        print(error.code, os.listdir(small / "arrays"))
    print(hub.status().hub)
"""


def test_a_full_disk_at_either_end_keeps_nothing_and_the_hub_goes_on(tmp_path: Path) -> None:
    told = on_small_disk(tmp_path / "disk", 2000, FULL).splitlines()
    assert told == ["disk []", "disk []", "hub"]


def test_a_site_hears_whether_its_round_still_runs_and_goes_on_while_the_hub_is_away(running: Loopback) -> None:
    with client(running, running.server.port) as hub:
        assert hub.wanted(NAME, 1)
        assert not hub.wanted(NAME, 2)
    with client(running, free_port()) as nobody:
        assert nobody.wanted(NAME, 2)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
