"""Checks that both doctors make: each looks at one thing and tells what is wrong and how to mend it; none raises."""

import importlib.metadata
import shutil
import socket
import ssl
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from bract.errors import BractError
from bract.files import check_private
from bract.identity import load_certificate

FLOWER = "1.41."
SKEW_LIMIT = timedelta(seconds=60)
RENEW_DAYS = 30
FREE_BYTES = 2 << 30


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was seen, and what to do if it is not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """The check's answer; whatever it raises becomes a failed check."""
    try:
        return check()
    except BractError as error:
        return Check(name, False, f"{error.code}: {error.detail or error.cause}", error.remedy)
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name if error.filename else "a file"
        return Check(name, False, f"{missing} is missing", "Restore it from a backup, or make the folder anew.")
    except Exception as error:  # noqa: BLE001 - a doctor that dies of an illness tells nothing
        return Check(name, False, type(error).__name__, "Look at the log; this should not happen.")


def private_files(paths: Iterable[Path]) -> Check:
    """That the keys are there and only their owner can read them."""
    for path in paths:
        check_private(path)
    return Check("keys", True, "present, readable by their owner only")


def certificate_days(name: str, certificate: x509.Certificate, at: datetime, remedy: str) -> Check:
    """That a certificate is valid, and not about to end."""
    days = (certificate.not_valid_after_utc - at) / timedelta(days=1)
    if at < certificate.not_valid_before_utc:
        return Check(name, False, "not valid yet", "Set this machine's clock.")
    if days < 0:
        return Check(name, False, f"expired {-days:.0f} days ago", remedy)
    return Check(name, days >= RENEW_DAYS, f"{days:.0f} days left", remedy if days < RENEW_DAYS else "")


def certificate_file(name: str, path: Path, at: datetime, remedy: str) -> Check:
    """`certificate_days` of a PEM file."""
    return certificate_days(name, load_certificate(path.read_bytes()), at, remedy)


def python_version() -> Check:
    """That this Python is one that bract is tested with."""
    seen = f"{sys.version_info.major}.{sys.version_info.minor}"
    return Check("python", (3, 11) <= sys.version_info[:2] <= (3, 13), seen, "Use Python 3.11, 3.12 or 3.13.")


def flower_version() -> Check:
    """That Flower is the pinned one."""
    seen = importlib.metadata.version("flwr")
    return Check("flwr", seen.startswith(FLOWER), seen, f"pip install 'flwr=={FLOWER}*'")


def torch_present() -> Check:
    """That torch is installed (it is not imported: that takes seconds)."""
    try:
        return Check("torch", True, importlib.metadata.version("torch"))
    except importlib.metadata.PackageNotFoundError:
        return Check("torch", False, "not installed", "pip install 'bract[learn]'")


def disk_space(folder: Path, wanted: int = FREE_BYTES) -> Check:
    """That there is room to work."""
    free = shutil.disk_usage(folder).free
    return Check("disk", free >= wanted, f"{free / 1e9:.1f} GB free", f"Free at least {wanted / 1e9:.0f} GB.")


def clock_skew(ours: datetime, theirs: datetime) -> Check:
    """That two clocks agree within a minute."""
    skew = abs(ours - theirs)
    remedy = "Let both machines follow a time server."
    return Check("clock", skew <= SKEW_LIMIT, f"{skew.total_seconds():.0f} s apart", remedy)


def port_answers(name: str, address: str, timeout_s: float = 3.0) -> Check:
    """That something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout_s):
            return Check(name, True, f"{address} answers")
    except OSError:
        return Check(
            name, False, f"{address} does not answer", "Check the address, firewalls, and that the hub is running."
        )


def own_port(name: str, host: str, port: int, authority: Path, *, running: bool) -> Check:
    """That a port is free or, of a running hub, that who listens there has a certificate of its authority."""
    if _free(host, port):
        remedy = "" if not running else "Look at the hub's log; start it again."
        return Check(name, not running, f"port {port} is free", remedy)
    trust = ssl.create_default_context(cafile=authority)
    trust.check_hostname = False
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - asked about, not bound
    try:
        with socket.create_connection((reached, port), 3.0) as line, trust.wrap_socket(line):
            return Check(name, True, f"port {port}: this hub answers")
    except OSError:
        remedy = "End what listens there, or change the port in settings.toml."
        return Check(name, False, f"port {port} is taken by another program", remedy)


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def database(revision: Callable[[], tuple[str | None, str | None]]) -> Check:
    """That the database answers and its schema is this version's.

    Args:
        revision: gives the schema's revision and the newest one.
    """
    there, head = revision()
    remedy = "" if there == head else "Start the program once: it migrates."
    return Check("database", there == head, f"revision {there or 'none'}, newest {head}", remedy)
