"""The demo's stage: free ports, real processes, and the ordinary commands, run as a user would run them."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bract.errors import CODES, SITE_FAILED, BractError
from bract.supervisor import Program, end, python, spawn

HUB, SITE = "bract_server.cli", "bract_client.cli"


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def command(module: str, *arguments: str) -> Any:
    """Run an ordinary command with `--json`; what it printed.

    Raises:
        BractError: the command's own refusal.
    """
    done = subprocess.run(python(module, *arguments, "--json"), capture_output=True, check=False)
    if done.returncode != 0:
        raise _refusal(module, done.stderr)
    return json.loads(done.stdout)


def _refusal(module: str, stderr: bytes) -> BractError:
    last = stderr.decode(errors="replace").strip().splitlines()[-1:]
    try:
        told = json.loads(last[0])["error"]
        return BractError(told["code"] if told["code"] in CODES else SITE_FAILED, told["detail"])
    except (IndexError, ValueError, KeyError, TypeError):
        return BractError(SITE_FAILED, f"{module.split('.', maxsplit=1)[0]}: {last[0] if last else 'no output'}")


@dataclass
class Stage:
    """The running processes of a demo: `hub` and one a site."""

    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, module: str, verb: str, home: Path) -> None:
        """Start a hub or a site as its command would."""
        program = Program(name, python(module, verb, str(home)), os.environ, self.folder / "logs" / f"{name}.log")
        self.running[name] = spawn(program)

    def kill(self, name: str) -> None:
        """SIGKILL: no chance to say goodbye. What the process started dies with it, by the leash."""
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """That nothing has ended by itself.

        Raises:
            BractError: `site-failed`, naming the process and its log.
        """
        for name, process in self.running.items():
            if process.poll() is not None:
                raise BractError(SITE_FAILED, f"{name} ended with {process.returncode}; see logs/{name}.log")


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage that is empty again afterwards, also after Ctrl-C or SIGTERM."""
    made = Stage(folder)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield made
    finally:
        signal.signal(signal.SIGTERM, before)
        end(list(made.running.values()), grace_s=10.0)


def each(arguments: Sequence[Sequence[str]]) -> list[Any]:
    """Run several commands at the same time; their answers in order."""
    started = [
        subprocess.Popen(python(*words, "--json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words in arguments
    ]
    answers = []
    for words, process in zip(arguments, started, strict=True):
        out, err = process.communicate()
        if process.returncode != 0:
            raise _refusal(words[0], err)
        answers.append(json.loads(out))
    return answers
