"""Runs a fixed set of programs, restarts what dies with back-off, and ends them all: no orphan, whatever happens.

Every program is started on a leash (`bract.leash`) and writes to its own log file.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from bract.errors import CONCURRENT, BractError

_FIRST_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 30.0
_HEALTHY_S = 20.0
_GRACE_S = 5.0
_TICK_S = 0.2


@dataclass(frozen=True)
class Program:
    """A program to keep running: its name, arguments, environment and log file."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Holds a folder for this process; the lock ends with the process, however it ends.

    Raises:
        BractError: `concurrent` when another process holds it.
    """
    with (folder / "running.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BractError(CONCURRENT, f"{folder.name} is running already") from error
        yield


def is_running(folder: Path) -> bool:
    """Whether a process holds the folder with `only_one`."""
    try:
        with only_one(folder):
            return False
    except BractError:
        return True


def environment(home: Path) -> dict[str, str]:
    """The environment of every process that loads Flower: its own folder, no telemetry, no update check, no installs."""
    return {
        **os.environ,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def python(module: str, *arguments: str) -> tuple[str, ...]:
    """The arguments that run one of our modules with this interpreter."""
    return (sys.executable, "-P", "-m", module, *arguments)


def spawn(program: Program, **pipes: int) -> subprocess.Popen[bytes]:
    """Start a program on a leash, in a session of its own, with its output in its log file."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        return subprocess.Popen(
            python("bract.leash", str(os.getpid()), *program.argv),
            env=dict(program.environment),
            stdin=pipes.get("stdin", subprocess.DEVNULL),
            stdout=pipes.get("stdout", log),
            stderr=log,
            start_new_session=True,
        )


def end(processes: Sequence[subprocess.Popen[bytes]], grace_s: float = _GRACE_S) -> None:
    """Ask the processes to end, wait a little, then kill what is left."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace_s
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            # a session of its own each, see `spawn`: the leash and what it holds go together
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass
class _Kept:
    program: Program
    process: subprocess.Popen[bytes]
    started: float
    backoff_s: float = _FIRST_BACKOFF_S
    restart_at: float | None = None


@dataclass
class Supervisor:
    """Keeps programs running until it is told to stop."""

    programs: Sequence[Program]
    report: Callable[[str], None]
    _kept: list[_Kept] = field(default_factory=list)
    _stop: bool = False

    def run(self, ready: Callable[[], None] | None = None) -> None:
        """Start everything and keep it running until SIGINT or SIGTERM, then end everything."""
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, self._on_signal)
        try:
            for program in self.programs:
                self._kept.append(_Kept(program, spawn(program), time.monotonic()))
            if ready is not None:
                ready()
            while not self._stop:
                for kept in self._kept:
                    self._keep(kept)
                time.sleep(_TICK_S)
        finally:
            end([kept.process for kept in self._kept])

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _keep(self, kept: _Kept) -> None:
        now = time.monotonic()
        if kept.restart_at is None:
            code = kept.process.poll()
            if code is None:
                return
            if now - kept.started > _HEALTHY_S:
                kept.backoff_s = _FIRST_BACKOFF_S
            self.report(f"{kept.program.name} ended with {code}; starting it again in {kept.backoff_s:.1f} s")
            kept.restart_at, kept.backoff_s = now + kept.backoff_s, min(2 * kept.backoff_s, _MAX_BACKOFF_S)
        elif now >= kept.restart_at:
            kept.process, kept.started, kept.restart_at = spawn(kept.program), now, None
