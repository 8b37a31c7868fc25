"""A hub's real gRPC door on loopback, with enrolled sites, and a registry that lives in memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bract.digest import Digest, parse_digest
from bract.errors import ALREADY_EXISTS, NO_CLEARANCE, STATE, UNKNOWN_SITE, BractError
from bract.files import read_private
from bract.log.witness import Reply, Word
from bract.signing import Envelope
from bract_client import enrol as site_enrol
from bract_client import home as site_home
from bract_server import enrol as hub_enrol
from bract_server import home as hub_home
from bract_server.arrays import ArrayStore
from bract_server.limits import Limits
from bract_server.service import HubServer


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Book:
    """The registry's promises to enrolment and to the door, kept in dictionaries."""

    sites: dict[str, tuple[str, Digest]] = field(default_factory=dict)
    certificates: dict[Digest, str] = field(default_factory=dict)
    offers: dict[str, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    taken: list[tuple[str, str, Envelope]] = field(default_factory=list)
    issued: list[tuple[int, bytes]] = field(default_factory=list)
    readable: dict[Digest, set[str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)

    def add_site(
        self,
        *,
        name: str,
        verify_key: str,
        node_fingerprint: Digest,
        node_public_pem: str,
        certificate_fingerprint: Digest,
        subjects_floor: int,
        at: datetime,
    ) -> None:
        assert node_public_pem and subjects_floor and at.tzinfo
        if self.sites.setdefault(name, (verify_key, node_fingerprint)) != (verify_key, node_fingerprint):
            raise BractError(ALREADY_EXISTS, name)
        self.certificates = {c: n for c, n in self.certificates.items() if n != name}
        self.certificates[certificate_fingerprint] = name

    def site_of_certificate(self, fingerprint: Digest) -> str:
        if fingerprint not in self.certificates:
            raise BractError(UNKNOWN_SITE)
        return self.certificates[fingerprint]

    def proposals(self, site: str, at: datetime) -> list[tuple[bytes, bytes]]:
        assert at.tzinfo
        return self.offers.get(site, [])

    def clear(self, site: str, envelope: Envelope, at: datetime) -> None:
        self.taken.append(("clear", site, envelope))

    def reserve(self, site: str, envelope: Envelope, at: datetime) -> None:
        self.taken.append(("reserve", site, envelope))

    def refuse(self, site: str, envelope: Envelope, at: datetime) -> None:
        self.taken.append(("refuse", site, envelope))

    def withdraw(self, site: str, envelope: Envelope, at: datetime) -> None:
        self.taken.append(("withdraw", site, envelope))

    def relinquish(self, site: str, envelope: Envelope, at: datetime) -> None:
        self.taken.append(("relinquish", site, envelope))

    def declare(self, site: str, envelope: Envelope, at: datetime) -> None:
        self.taken.append(("declare", site, envelope))

    def wanted(self, campaign: Digest, number: int) -> bool:
        return bool(campaign) and number == 1

    def receipts(self, site: str, after: int) -> list[tuple[int, bytes]]:
        return [(number, data) for number, data in self.issued if number > after]

    def witness(self, site: str, word: Word, at: datetime) -> Reply:
        raise BractError(STATE, "this hub keeps no log")

    def check_fork(self, site: str) -> None:
        self.calls.append(site)

    def may_get(self, site: str, digest: Digest, at: datetime) -> None:
        if site not in self.readable.get(parse_digest(digest), {site}):
            raise BractError(NO_CLEARANCE)

    def may_put(self, site: str, digest: Digest, size: int, at: datetime) -> None:
        self.may_get(site, digest, at)

    def seen(self, site: str, at: datetime) -> None:
        self.calls.append(site)


@dataclass
class Loopback:
    """A hub that listens, its registry and arrays, and the folders of its sites."""

    hub: hub_home.HubHome
    book: Book
    store: ArrayStore
    server: HubServer
    sites: dict[str, site_home.SiteHome]

    def enrol(self, root: Path, name: str) -> site_home.SiteHome:
        """A new site, enrolled; its bundle says the port that the server took."""
        home = site_home.create(root / name, name=name)
        bundle = hub_enrol.approve(self.hub, self.book, site_enrol.request(home, now()), now())
        site_enrol.install(home, bundle, self.hub.fingerprint(), now())
        self.sites[name] = home
        return home

    def wait_for(self, count: int, what: str, site: str) -> None:
        """Until the hub has so many of a site's `calls` or `uploads` under way."""
        until = time.monotonic() + 15
        while self.server._share._under_way.get((site, what), 0) < count:
            assert time.monotonic() < until, f"{count} {what} of {site}"
            time.sleep(0.02)


@contextmanager
def loopback(
    root: Path,
    *names: str,
    clock: Callable[[], datetime] = now,
    threads: int = 16,
    max_bytes: int = 1 << 30,
    quota_bytes: int = 8 << 30,
    made: datetime | None = None,
    limits: Limits | None = None,
) -> Iterator[Loopback]:
    """A running hub with these sites."""
    hub = hub_home.create(root / "hub", name="hub", at=made or now() - timedelta(minutes=1))
    book, store = Book(), ArrayStore(hub.arrays, max_bytes, quota_bytes)
    server = HubServer(
        book,
        store,
        hub="hub",
        listen="127.0.0.1:0",
        key=read_private(hub.server_key),
        certificate=hub.server_file.read_bytes(),
        authority=hub.authority(),
        clock=clock,
        threads=threads,
        limits=limits,
    )
    text = hub.settings_file.read_text().replace("wire_port = 8001", f"wire_port = {server.port}")
    hub.settings_file.write_text(text)
    server.start()
    try:
        running = Loopback(hub, book, store, server, {})
        for name in names:
            running.enrol(root, name)
        yield running
    finally:
        server.stop(0.1)
