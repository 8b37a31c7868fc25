"""The gateway process at its ends: asked to go it goes, and what was on its way goes on with the next one."""

import itertools
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from bract.digest import digest
from bract.errors import BractError
from bract.files import read_private
from bract.supervisor import environment, python
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS
from bract.wire.chunks import CHUNK, pack, pack_header
from bract_client import enrol as site_enrol
from bract_client import home as site_home
from bract_client.hub import HubClient, connect
from bract_server import enrol as hub_enrol
from bract_server import home as hub_home
from bract_server.hub import open_registry
from bract_server.service import HubServer
from tests.loopback import loopback, now
from tests.server.test_limits import line, raw


def test_a_put_that_was_under_way_when_the_hub_ended_goes_on_at_the_next_one(tmp_path: Path) -> None:
    data = bytes(range(256)) * (12 << 10)
    name, stop, carried = digest(data), threading.Event(), []
    (tmp_path / "up").write_bytes(data)
    with loopback(tmp_path, "clinic") as hub:
        header = pack_header(pb.PutHeader(digest=name, size=len(data)))

        def slowly() -> Any:
            yield from (header, pack(data[:CHUNK]))
            stop.wait(20)

        with raw(hub, "clinic") as channel:
            put = channel.stream_unary(f"/{ARRAYS}/Put").future(slowly(), timeout=20)
            while not hub.store.stat(name).bytes:
                time.sleep(0.02)
            start = time.monotonic()
            hub.server.stop(0.5)
            assert time.monotonic() - start < 10
            with suppress(grpc.RpcError):
                put.result()
            stop.set()
        assert hub.store.stat(name).bytes == CHUNK and not hub.store.stat(name).complete
        again = HubServer(
            hub.book,
            hub.store,
            hub="hub",
            listen="127.0.0.1:0",
            key=read_private(hub.hub.server_key),
            certificate=hub.hub.server_file.read_bytes(),
            authority=hub.hub.authority(),
            clock=now,
            threads=8,
        )
        receive = hub.store.receive

        def counted(digest: Any, size: int, chunks: Any, offset: int = 0) -> None:
            one, other = itertools.tee(chunks)
            receive(digest, size, one, offset)
            carried.append((offset, sum(len(chunk) for chunk in other)))

        hub.store.receive = counted  # type: ignore[method-assign]
        again.start()
        with line(hub, "clinic", port=again.port) as client:
            client.put(tmp_path / "up", name)
        again.stop(0.1)
        assert carried == [(CHUNK, len(data) - CHUNK)], "only the rest was sent"
        assert hub.store.read(name).read_bytes() == data


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serial(hub: hub_home.HubHome, site: site_home.SiteHome, port: int) -> int:
    context = ssl.create_default_context(cafile=hub.authority_file)
    context.load_cert_chain(site.certificate_file, site.tls_key_file)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def test_the_process_takes_a_renewed_certificate_and_ends_in_time_with_a_site_waiting(tmp_path: Path) -> None:
    port = free_port()
    hub = hub_home.create(tmp_path / "hub", name="hub", fleet_port=free_port(), wire_port=port, at=now())
    site = site_home.create(tmp_path / "site", name="clinic")
    registry = open_registry(hub)
    bundle = hub_enrol.approve(hub, registry, site_enrol.request(site, now()), now())
    site_enrol.install(site, bundle, hub.fingerprint(), now())
    process = subprocess.Popen(python("bract_server.gateway", str(hub.root)), env=environment(hub.root))
    try:
        with connect(site, now(), patience_s=30.0) as client:
            assert client.status().hub == "hub"
            before = serial(hub, site, port)
            hub_home.renew(hub, now())
            until = time.monotonic() + 30
            while serial(hub, site, port) == before and time.monotonic() < until:
                time.sleep(0.2)
            assert serial(hub, site, port) != before
            waiting = threading.Thread(target=_wait, args=(client,))
            waiting.start()
            time.sleep(0.5)
            start = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert time.monotonic() - start < 15
            client.close()
            waiting.join(40)
    finally:
        process.kill()
        process.wait()


def _wait(client: HubClient) -> None:
    with suppress(BractError, ValueError, grpc.RpcError):
        client.proposals(20.0)
