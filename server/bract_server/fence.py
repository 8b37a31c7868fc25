"""The fence around Flower's HTTP door: what may be asked from where, how large, and how slowly.

Rules:
    1. The Runtime API hands out tasks; only this machine's own processes reach it, whoever else holds its secret.
    2. The pages that describe the API are shown to nobody.
    3. A request's body has at most `MAX_BODY` bytes, and has come within `BODY_S`.
    4. A connection that has asked for nothing within `HEAD_S` is closed, and so is one whose next request stays unfinished.
    5. A renewed certificate is shown without a restart.
    6. An address moves no more bytes, both ways together, than `limits` let it; this machine's own tasks are not counted.
"""

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bract.errors import BractError
from bract_server.limits import MAX_BODY, Limits
from bract_server.quota import Quota

BODY_S, HEAD_S = 60.0, 10.0

_LATER = 503
"""To who has used up the allowance: not 429, which a node of Flower takes for the end; this it tries again by itself."""

_RUNTIME, _SHOWN = "/v1/runtime", ("/docs", "/redoc", "/openapi.json")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Refused(Exception):  # noqa: N818 - it ends the reading of one body and is never shown
    pass


class _Body:
    """One request's body, as long as it is neither too large nor too slow (rule 3), and `take` allows it (rule 6)."""

    def __init__(self, receive: Receive, most: int, until: float, take: Callable[[int], None]) -> None:
        self._receive, self._left, self._until, self._take = receive, most, until, take
        self._whole = False
        self.refused: int | None = None

    async def receive(self) -> MutableMapping[str, Any]:
        """The next message; once the body is whole, the end of the connection, which may be long in coming."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError as error:
            self.refused = 408
            raise _Refused from error
        size = len(message.get("body", b""))
        try:
            self._take(size)
        except BractError as error:
            self.refused = _LATER
            raise _Refused from error
        self._left -= size
        self._whole = not message.get("more_body", False)
        if self._left < 0:
            self.refused = 413
            raise _Refused
        return message


class Fence:
    """An ASGI app that lets through to another what the rules allow [ASGI 3, HTTP]."""

    def __init__(self, app: App, quota: Quota, *, max_body: int = MAX_BODY, body_s: float = BODY_S) -> None:
        self._app, self._quota, self._max_body, self._body_s = app, quota, max_body, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 404, 408, 413 or 503 itself, or lets the app answer."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # no other protocol has anything to ask here
        if not _open(scope):
            await _answer(send, 404)
            return
        if _announced(scope) > self._max_body:
            await _answer(send, 413)
            return
        take, owe = self._counted(scope)
        try:
            take(sum(len(name) + len(value) for name, value in scope["headers"]))
        except BractError:
            await _answer(send, _LATER)
            return
        body = _Body(receive, self._max_body, asyncio.get_running_loop().time() + self._body_s, take)

        async def sending(message: MutableMapping[str, Any]) -> None:
            if body.refused is None:  # else it is the app's answer to our refusal, and ours is given instead
                owe(len(message.get("body", b"")))
                await send(message)

        try:
            await self._app(scope, body.receive, sending)
        except Exception:
            if body.refused is None:
                raise
        if body.refused is not None:
            await _answer(send, body.refused)

    def _counted(self, scope: Scope) -> tuple[Callable[[int], None], Callable[[int], None]]:
        """What counts a request's bytes and its answer's (rule 6)."""
        if str(scope["path"]).startswith(_RUNTIME):
            return (lambda _: None), (lambda _: None)
        client = scope.get("client")
        address = str(client[0]) if client else ""
        return partial(self._quota.take, address), partial(self._quota.owe, address)


class PatientFor(H11Protocol):
    """uvicorn's protocol, with an end to its patience while no whole request head has come (rule 4)."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts to wait."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Waits on unless a request is being answered."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        super().connection_lost(exc)
        self._stop_waiting()

    def _wait(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._late is None:
            # not `close`: that would wait for the other end's farewell
            self._late = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def serve(app: App, *, host: str, port: int, certificate: Path, key: Path, limits: Limits) -> None:
    """Serve the fenced app over TLS until SIGTERM; requests under way have `BODY_S` to end.

    Raises:
        SystemExit: when it cannot listen there.
    """
    config = uvicorn.Config(
        Fence(app, Quota(limits.fleet_bytes_per_s, limits.fleet_burst, time.monotonic)),
        host=host,
        port=port,
        http=PatientFor,
        ws="none",
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        log_level="warning",
        timeout_graceful_shutdown=5,
        backlog=512,
        server_header=False,
    )
    config.load()
    server = uvicorn.Server(config)

    async def run() -> None:
        tending = asyncio.create_task(_tend(config.ssl, certificate, key))
        try:
            await server.serve()
        finally:
            tending.cancel()

    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(run())


async def _tend(context: ssl.SSLContext | None, certificate: Path, key: Path, every_s: float = 2.0) -> None:
    """Load a renewed certificate into the context that handshakes use (rule 5); a pair that does not fit is left alone."""
    seen = _stamps(certificate, key)
    while context is not None:
        await asyncio.sleep(every_s)
        if (now := _stamps(certificate, key)) != seen:
            seen = now
            renewed = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            try:
                renewed.load_cert_chain(certificate, key)  # first on a trial: a failed load may spoil a context
                context.load_cert_chain(certificate, key)
            except (ssl.SSLError, OSError):
                continue


def _stamps(*paths: Path) -> tuple[int, ...]:
    return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


def _open(scope: Scope) -> bool:
    path = str(scope["path"])
    if path.startswith(_RUNTIME):
        return _near(scope)
    return not path.startswith(_SHOWN)


def _announced(scope: Scope) -> int:
    """The body's length by its own word, 0 where nothing is said that can be believed; what comes is counted anyway."""
    said = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(said) if said.isdigit() and len(said) < 20 else 0


def _near(scope: Scope) -> bool:
    """Whether the caller is on this machine: by loopback, or from the very address that it called."""
    client, server = scope.get("client"), scope.get("server")
    if not client:
        return False
    if server and client[0] == server[0]:
        return True
    try:
        return ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


async def _answer(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": b""})
