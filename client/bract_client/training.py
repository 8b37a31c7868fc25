"""The executor's end of the training child: jobs go in, answers come out, and it stops when its round is no longer wanted.

The child is told to stop and stays warm, since loading torch takes seconds that the next round may not have. Only one that
does not obey within `_OBEY_S` is killed.
"""

import contextlib
import json
import logging
import subprocess
import threading
from collections.abc import Callable

from bract.errors import LATE, SITE_FAILED, STATE, BractError
from bract.supervisor import Program, end, environment, python, spawn
from bract_client.home import SiteHome

_LOOK_S = 2.0
_OBEY_S = 30.0

log = logging.getLogger("bract.training")


class Trainer:
    """The training child: started warm, given one job at a time, stopped when the round is no longer wanted."""

    def __init__(self, home: SiteHome) -> None:
        self._home = home
        self._start()

    def _start(self) -> None:
        program = Program(
            "trainer",
            python("bract_client.trainer", str(self._home.root)),
            environment(self._home.root),
            self._home.logs / "trainer.log",
        )
        self._process = spawn(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._loaded = False

    @property
    def pid(self) -> int:
        """The child's process, which is another one after the former died."""
        return self._process.pid

    def run(self, job: dict[str, str], stopped: threading.Event, wanted: Callable[[], bool]) -> dict[str, object]:
        """Train one round; stop when Flower says that the run has `stopped`, or the hub that the round is not `wanted`.

        Raises:
            BractError: the child's refusal; `deadline` when the round was not wanted any more; `site-failed` when the child
                died; `wrong-state` when it had to be killed.
        """
        if self._process.poll() is not None:
            self._replace()
        try:
            if not self._loaded:
                self._loaded = bool(self._hear())
                if self._loaded and (stopped.is_set() or not wanted()):
                    raise BractError(LATE, "the round was over before the training child was loaded")
            line = self._answer(job, stopped, wanted)
        except BrokenPipeError:
            line = b""
        if not line:
            self._replace()
            raise BractError(STATE if stopped.is_set() else SITE_FAILED, "the training child ended")
        answer: dict[str, object] = json.loads(line)
        if "refused" in answer:
            raise BractError(str(answer["refused"]))
        return answer

    def _answer(self, job: dict[str, str], stopped: threading.Event, wanted: Callable[[], bool]) -> bytes:
        """The line that the child says to a job; none when it ended."""
        self._say(job)
        done = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(done, stopped, wanted), daemon=True)
        watcher.start()
        try:
            return self._hear()
        finally:
            done.set()
            watcher.join()

    def _watch(self, done: threading.Event, stopped: threading.Event, wanted: Callable[[], bool]) -> None:
        while not done.wait(_LOOK_S):
            if stopped.is_set() or not wanted():
                log.info("the round is not wanted any more; its training stops")
                with contextlib.suppress(BrokenPipeError):
                    self._say({"stop": "now"})
                if not done.wait(_OBEY_S):
                    log.warning("the training child does not stop; it is killed")
                    stopped.set()
                    end([self._process], grace_s=0.0)
                return

    def _say(self, message: dict[str, str]) -> None:
        assert self._process.stdin is not None  # noqa: S101 - a pipe, as spawned
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, as spawned
        return self._process.stdout.readline()

    def _replace(self) -> None:
        self.close()
        self._start()  # to load takes seconds, and the next round may be near

    def close(self) -> None:
        """End the child."""
        end([self._process], grace_s=0.0)
        with contextlib.suppress(BrokenPipeError), self._process:
            pass
