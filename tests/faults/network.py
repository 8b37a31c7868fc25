"""A TCP proxy between a site and its hub that can cut, swallow, slow down and break what goes through it."""

import asyncio
import random
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_PIECE = 16 << 10


@dataclass(frozen=True)
class Weather:
    """How the line is.

    Attributes:
        cut: what is open is closed, what is new is refused.
        swallow: bytes that arrive are never passed on, and nobody hears of it: a half-open link.
        bytes_per_s: the most that passes, in each direction of each connection; 0 is no limit.
        reset_after: a connection is reset after about so many bytes; 0 is never.
    """

    cut: bool = False
    swallow: bool = False
    bytes_per_s: int = 0
    reset_after: int = 0


FAIR = Weather()


class Proxy:
    """Listens on `port` of loopback and passes on to `target`; `weather` may be changed at any time.

    Whoever was connected when the line began to swallow is never heard again, also after it is fair, as when a router
    between them has forgotten the connection.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        self.target, self.weather = target, FAIR
        self.carried = 0
        self._random = random.Random(seed)
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {target}", daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def set(self, weather: Weather) -> None:
        """From now on the line is like that."""
        self.weather = weather
        if weather.cut:
            self._call(self._drop())

    def close(self) -> None:
        """End every connection and stop listening."""
        self._server.close()
        self._call(self._drop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _drop(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.wait(tasks, timeout=2) if tasks else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.weather.cut:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, back}
        self._open |= ends
        forgotten = asyncio.Event()
        try:
            await asyncio.gather(self._carry(reader, back, forgotten), self._carry(there, writer, forgotten))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, forgotten: asyncio.Event) -> None:
        left = self._life()
        with suppress(OSError):
            while piece := await source.read(_PIECE):
                weather = self.weather
                if weather.swallow:
                    forgotten.set()
                if forgotten.is_set():
                    continue
                if weather.bytes_per_s:
                    await asyncio.sleep(len(piece) / weather.bytes_per_s)
                left -= len(piece) if weather.reset_after else 0
                if left < 0:
                    break
                sink.write(piece)
                await sink.drain()
                self.carried += len(piece)
            if forgotten.is_set():
                return
            if left < 0:
                sink.transport.abort()
            else:
                sink.close()

    def _life(self) -> int:
        """How many bytes a direction lives for, if the line resets connections."""
        return self._random.randint(self.weather.reset_after // 2, 2 * self.weather.reset_after) + 1
