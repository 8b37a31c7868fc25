"""How fast arrays travel: one file to every site and another back, against a raw loopback copy of the same bytes.

`python -m tests.benchmarks.bytes_plane [--mb 344] [--sites 2] [--rounds 7] [--dir DIR] [--json FILE]`

Ours: mutual TLS, gRPC, sha256 and a synced file at each receiver. Raw: the same bytes, processes and directions over
plain TCP, from memory to memory, nothing checked and nothing kept; `raw_files` also writes and syncs files. Each round
runs all three, one after the other. `--dir` says on which disk: on a slow one, its syncs are most of the time.
"""

import argparse
import json
import multiprocessing as mp
import os
import shutil
import socket
import statistics
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

from bract.digest import Digest, digest_file
from bract_client import home as site_home
from bract_client.hub import connect
from tests.loopback import Loopback, loopback, now

_BLOCK = 1 << 20


def main() -> None:
    """Runs the rounds, prints a table and, if asked, writes JSON."""
    parser = argparse.ArgumentParser(description="The bytes plane against a raw loopback copy.")
    parser.add_argument("--mb", type=float, default=344, help="size of the array in 10^6 bytes")
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", type=Path, default=None, help="where files go; default the temporary folder")
    parser.add_argument("--json", type=Path, default=None)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bytes-plane-", dir=asked.dir))
    try:
        report = measure(root, int(asked.mb * 1e6), asked.sites, asked.rounds)
    finally:
        shutil.rmtree(root)
    for name in ("raw_s", "raw_files_s", "ours_s", "ratio", "ratio_to_files"):
        value = report[name]
        assert isinstance(value, dict)
        print(f"{name:15} median {value['median']:.3f}   IQR {value['q1']:.3f} – {value['q3']:.3f}")
    print(json.dumps(report))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2))


def measure(root: Path, size: int, sites: int, rounds: int) -> dict[str, object]:
    """Seconds of each round, all sites down and back, and the ratios within each round."""
    model = random_file(root / "model", size)
    names = [f"site-{i}" for i in range(sites)]
    times: dict[str, list[float]] = {"raw": [], "raw_files": [], "ours": []}
    with loopback(root, *names, quota_bytes=1 << 40, max_bytes=1 << 40) as running:
        digest = digest_file(model)
        shutil.copyfile(model, running.store.path(digest))
        peers = [Peer(running.sites[name].root, root / f"{name}.up", digest, size) for name in names]
        for number in range(rounds + 1):  # the first warms up
            took = {
                "raw": raw_copy(peers, model.read_bytes(), None),
                "raw_files": raw_copy(peers, model.read_bytes(), root),
                "ours": ours(peers, running),
            }
            for kind, seconds in took.items():
                if number:
                    times[kind].append(seconds)
        for peer in peers:
            peer.end()
    return {
        "bytes": size,
        "sites": sites,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "raw_s": spread(times["raw"]),
        "raw_files_s": spread(times["raw_files"]),
        "ours_s": spread(times["ours"]),
        "ratio": spread([a / b for a, b in zip(times["ours"], times["raw"], strict=True)]),
        "ratio_to_files": spread([a / b for a, b in zip(times["ours"], times["raw_files"], strict=True)]),
        "mb_per_s": 2 * sites * size / 1e6 / statistics.median(times["ours"]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    q1, _, q3 = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return {"median": statistics.median(values), "q1": q1, "q3": q3}


def random_file(path: Path, size: int) -> Path:
    """A file of random bytes, so that nothing can be compressed or shared."""
    with path.open("wb") as file:
        for start in range(0, size, _BLOCK):
            file.write(os.urandom(min(_BLOCK, size - start)))
    return path


class Peer:
    """A site in a process of its own, told what to do through a pipe."""

    def __init__(self, site: Path, upload: Path, digest: Digest, size: int) -> None:
        context = mp.get_context("spawn")
        self.pipe, far = context.Pipe()
        self._process = context.Process(target=run_site, args=(far, site, upload, digest, size))
        self._process.start()
        self.upload = Digest(str(self.pipe.recv()))

    def end(self) -> None:
        """Stops the process."""
        self.pipe.send(("end", None))
        self._process.join()


def run_site(pipe: Connection, site: Path, upload: Path, digest: Digest, size: int) -> None:
    """A site's side: does as it is told and says when it is done."""
    random_file(upload, size)
    data, own = upload.read_bytes(), digest_file(upload)
    arrived = site / "arrived"
    with connect(site_home.open_home(site), now()) as hub:
        pipe.send(own)
        while (order := pipe.recv())[0] != "end":
            kind, port = order
            if kind == "ours":
                hub.get(digest, size, arrived)
                hub.put(upload, own)
            else:
                with socket.create_connection(("127.0.0.1", port)) as line:
                    take(line, size, arrived if kind == "raw_files" else None)
                    line.sendall(data)
                    line.recv(1)
            pipe.send("done")
            pipe.recv()
            arrived.unlink(missing_ok=True)


def ours(peers: list[Peer], running: Loopback) -> float:
    """Seconds until every site has fetched the model and sent its own array."""
    start = time.perf_counter()
    together(peers, ("ours", 0))
    seconds = time.perf_counter() - start
    tidy(peers)
    for peer in peers:
        running.store.discard(peer.upload)
    return seconds


def raw_copy(peers: list[Peer], model: bytes, root: Path | None) -> float:
    """The same over plain TCP, to memory or to files."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kind = "raw" if root is None else "raw_files"
        lines = [
            threading.Thread(target=serve, args=(server, model, None if root is None else root / f"back-{i}"))
            for i, _ in enumerate(peers)
        ]
        for line in lines:
            line.start()
        start = time.perf_counter()
        together(peers, (kind, server.getsockname()[1]))
        seconds = time.perf_counter() - start
        for line in lines:
            line.join()
    tidy(peers)
    return seconds


def together(peers: list[Peer], order: tuple[str, int]) -> None:
    """Gives every site the order and waits for the last."""
    for peer in peers:
        peer.pipe.send(order)
    for peer in peers:
        assert peer.pipe.recv() == "done"


def tidy(peers: list[Peer]) -> None:
    """Lets every site remove what arrived, outside the measured time."""
    for peer in peers:
        peer.pipe.send("tidy")


def serve(server: socket.socket, model: bytes, back: Path | None) -> None:
    """One raw connection: the model down, as many bytes up, a byte when they are there."""
    line, _ = server.accept()
    with line:
        line.sendall(model)
        take(line, len(model), back)
        line.sendall(b"!")
    if back is not None:
        back.unlink()


def take(line: socket.socket, size: int, path: Path | None) -> None:
    """Reads `size` bytes and drops them, or writes and syncs them."""
    buffer = memoryview(bytearray(_BLOCK))
    if path is None:
        while size:
            size -= line.recv_into(buffer[: min(size, _BLOCK)])
        return
    with path.open("wb", buffering=0) as file:
        while size:
            got = line.recv_into(buffer[: min(size, _BLOCK)])
            file.write(buffer[:got])
            size -= got
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
