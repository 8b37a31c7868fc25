"""The fence around Flower's door: over TLS, with connections that are large, slow, or from elsewhere."""

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from bract_server import home as homes
from bract_server.fence import Fence
from bract_server.quota import Quota
from tests.loopback import now

SERVED = """
import sys
from pathlib import Path
from bract_server import fence
from bract_server.limits import Limits

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    got, more = 0, True
    while more:
        message = await receive()
        got, more = got + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(got).encode()})

fence.HEAD_S, folder, limits = 1.0, Path(sys.argv[1]), Limits(fleet_bytes_per_s=float(1 << 20), fleet_burst=int(sys.argv[3]))
own = {"certificate": folder / "server.pem", "key": folder / "server.key", "limits": limits}
fence.serve(app, host="127.0.0.1", port=int(sys.argv[2]), **own)
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Served:
    """The fence in a process of its own, with a hub's certificate."""

    def __init__(self, root: Path, burst: int = 1 << 30) -> None:
        self.home, self.port = homes.create(root / "hub", name="hub", at=now()), free_port()
        self._folder = root
        self.copy()
        self.process = subprocess.Popen([sys.executable, "-c", SERVED, str(root), str(self.port), str(burst)])
        for _ in range(600):
            with suppress(httpx.TransportError), self.client() as client:
                client.get("/")
                break
            time.sleep(0.05)

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(10) in (0, -15)

    def copy(self) -> None:
        """Show what is in the hub's folder now."""
        (self._folder / "server.key").write_bytes(self.home.server_key.read_bytes())
        (self._folder / "server.pem").write_bytes(self.home.server_file.read_bytes())

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.home.authority_file)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"https://127.0.0.1:{self.port}", verify=self.context(), timeout=10)

    def line(self) -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), 5)
        return self.context().wrap_socket(raw, server_hostname="127.0.0.1")

    def serial(self) -> int:
        with self.line() as line:
            der = line.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der).serial_number


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served(tmp_path_factory.mktemp("fence"))
    yield one
    one.end()


def test_a_body_within_the_limit_is_let_through_and_a_larger_one_is_refused_unread(served: Served) -> None:
    with served.client() as client:
        assert client.post("/v1/fleet/x", content=bytes(1000)).text == "1000"
        assert client.post("/v1/fleet/x", content=bytes((8 << 20) + 1)).status_code == 413


def test_a_larger_body_that_does_not_say_so_is_refused_where_the_limit_is(served: Served) -> None:
    with served.client() as client:
        assert client.post("/v1/fleet/x", content=(bytes(1 << 20) for _ in range(9))).status_code == 413
        assert client.post("/v1/fleet/x", content=(bytes(1 << 20) for _ in range(7))).text == str(7 << 20)


def test_the_pages_that_describe_the_api_are_shown_to_nobody(served: Served) -> None:
    with served.client() as client:
        assert [client.get(path).status_code for path in ("/docs", "/openapi.json", "/health")] == [404, 404, 200]


@pytest.mark.parametrize("sent", [b"", b"POST /v1/fleet/x HTTP/1.1\r\nhost: x\r\n"])
def test_a_connection_that_never_asks_is_closed(served: Served, sent: bytes) -> None:
    start = time.monotonic()
    with served.line() as line:
        line.settimeout(8)
        line.sendall(sent)
        with suppress(ConnectionError):
            assert line.recv(100) == b""
    assert 0.5 < time.monotonic() - start < 8


def test_a_head_that_trickles_is_cut_off_and_an_answered_line_may_ask_again(served: Served) -> None:
    with served.line() as line:
        line.settimeout(8)
        for _ in range(2):
            line.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = b""
            while not answer.endswith(b"0\r\n\r\n"):
                answer += line.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200")
        start = time.monotonic()
        with pytest.raises(OSError):
            for byte in b"GET /health HTTP/1.1\r\nx: " + b"y" * 1000:
                line.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - start < 20


def test_a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not(served: Served) -> None:
    before = served.serial()
    homes.renew(served.home, now())
    (served._folder / "server.key").write_bytes(served.home.server_key.read_bytes())
    time.sleep(2.5)
    assert served.serial() == before, "key and certificate do not fit yet"
    served.copy()
    for _ in range(200):
        if served.serial() != before:
            break
        time.sleep(0.1)
    assert served.serial() != before


def test_a_flood_is_refused_once_the_allowance_of_its_address_is_used_up_and_served_again_later(tmp_path: Path) -> None:
    """At most 8 MiB at once and 1 MiB a second, whatever the flood is made of; this machine's tasks are not counted."""
    served, began, passed, statuses = Served(tmp_path, burst=8 << 20), time.monotonic(), 0, list[int]()
    try:
        with served.client() as client:
            while len(statuses) < 12:
                answer = client.post("/v1/fleet/x", content=bytes(2 << 20))
                passed += (2 << 20) if answer.status_code == 200 else 0
                statuses.append(answer.status_code)
        assert statuses[:3] == [200] * 3 and statuses[-1] == 503
        assert passed <= (8 << 20) + (time.monotonic() - began) * (1 << 20) + (1 << 18), "and a piece that is owed"
        with served.client() as client:
            assert client.post("/v1/runtime/x", content=bytes(7 << 20)).status_code == 200
            time.sleep(2.0)
            assert client.post("/v1/fleet/x", content=bytes(1 << 20)).status_code == 200
    finally:
        served.end()


def asked(path: str, client: tuple[str, int] | None, server: tuple[str, int], body_s: float = 60.0) -> int:
    """The status that a caller at that address gets from an app that answers 200 once it has the body."""
    sent: list[Any] = []

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def silent() -> Any:
        await asyncio.sleep(30)

    async def empty() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def keep(message: Any) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "http", "path": path, "client": client, "server": server, "headers": []}
    fence = Fence(app, Quota(1e6, 1e6, time.monotonic), body_s=body_s)
    asyncio.run(fence(scope, empty if body_s > 1 else silent, keep))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 1), 200),
        (("::1", 1), 200),
        (("10.0.0.5", 1), 200),  # the address that it called: this machine's own
        (("10.0.0.6", 1), 404),
        (("203.0.113.9", 1), 404),
        (("not an address", 1), 404),
        (None, 404),
    ],
)
def test_tasks_are_handed_to_this_machine_alone(client: tuple[str, int] | None, status: int) -> None:
    for path in ("/v1/runtime/acquire-task", "/v1/runtime"):
        assert asked(path, client, ("10.0.0.5", 8000)) == status
    assert asked("/v1/fleet/x", client, ("10.0.0.5", 8000)) == 200


def test_a_body_that_does_not_come_is_given_up() -> None:
    assert asked("/v1/fleet/x", ("127.0.0.1", 1), ("127.0.0.1", 8000), body_s=0.2) == 408


def test_flower_behind_the_fence_serves_its_own_and_nobody_else(tmp_path: Path) -> None:
    """The real coordinator: an operator lists nodes, the launcher asks for tasks with its secret; without, nobody does."""
    from bract.errors import OPERATOR_TOKEN, BractError
    from bract.files import read_private
    from bract.flower import Operator, TaskQueue, TaskType
    from bract.supervisor import environment, python

    home = homes.create(tmp_path / "hub", name="hub", fleet_port=free_port(), wire_port=free_port(), at=now())
    process = subprocess.Popen(python("bract_server.coordinator", str(home.root)), env=environment(home.root))
    fleet, ca = home.settings().near_fleet, home.authority_file.read_bytes()
    try:
        token = read_private(home.operator_token).decode().strip()
        with Operator(fleet, ca, token) as operator:
            for _ in range(300):
                with suppress(BractError):
                    operator.nodes()
                    break
                time.sleep(0.1)
            assert operator.nodes() == {}
        with Operator(fleet, ca, "wrong") as stranger, pytest.raises(BractError) as refused:
            stranger.nodes()
        assert refused.value.code == OPERATOR_TOKEN
        ours, theirs = (
            TaskQueue(TaskType.SERVER_APP, fleet, ca, secret)
            for secret in (read_private(home.superexec_secret), b"x" * 43)
        )
        assert ours.acquire() is None
        with pytest.raises(BractError):
            theirs.acquire()
        for queue in (ours, theirs):
            queue._client.close()
        context = ssl.create_default_context(cafile=home.authority_file)
        with httpx.Client(base_url=f"https://{fleet}", verify=context, timeout=10) as anyone:
            assert anyone.get("/docs").status_code == 404
            anyone.headers["content-type"] = "application/protobuf"
            for path in ("/v1/runtime/acquire-task", "/v1/control/list-runs"):
                assert anyone.post(path, content=b"").status_code in (401, 403), path
            assert anyone.post("/v1/fleet/x", content=bytes((8 << 20) + 1)).status_code == 413
        process.terminate()
        assert process.wait(20) in (0, -15)
    finally:
        process.kill()
        process.wait()
