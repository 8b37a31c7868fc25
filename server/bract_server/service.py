"""The hub's gRPC server: arrays and the registry's services, over mutual TLS, by the rules of `bract_server.calls`."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import grpc
from cryptography import x509

from bract.errors import UNREACHABLE, BractError
from bract.identity import certificate_pem, check_pair
from bract.wire.channel import SERVER_OPTIONS, with_keepalive
from bract_server.arrays import ArrayStore
from bract_server.calls import Calls
from bract_server.door import HubDoor
from bract_server.limits import Limits, Share


class HubServer:
    """The running door. `start` it, `stop` it; `port` is the one it listens on.

    Args:
        door: the registry.
        store: the arrays.
        hub: the hub's public name.
        listen: `host:port`; port 0 takes a free one.
        key: the hub's TLS key, PEM.
        certificate: its certificate, PEM.
        authority: the hub's own; only certificates that it issued are accepted.
        clock: the time, in UTC.
        threads: most calls served at once; a site waiting for proposals holds one, and half of them may be held so.
        limits: what one site may take.

    Raises:
        BractError: `certificate` when key and certificate do not belong together, or are not of the authority and of now;
            `unreachable` when it cannot listen there.
    """

    def __init__(
        self,
        door: HubDoor,
        store: ArrayStore,
        *,
        hub: str,
        listen: str,
        key: bytes,
        certificate: bytes,
        authority: x509.Certificate,
        clock: Callable[[], datetime],
        threads: int = 256,
        limits: Limits | None = None,
    ) -> None:
        self._authority, self._clock, self._limits = authority, clock, limits or Limits()
        self._share = Share(self._limits, lambda digest: store.stat(digest).bytes > 0, time.monotonic)
        self._calls = Calls(
            door, store, hub=hub, authority=authority, clock=clock, share=self._share, waiting=threads // 2
        )
        self._renewed: grpc.ServerCertificateConfiguration | None = None
        fetch: Any = self._take_renewed  # the stubs do not know that it may give None
        credentials = grpc.dynamic_ssl_server_credentials(
            self._configured(key, certificate), fetch, require_client_authentication=True
        )
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bract-wire")
        options = [
            *with_keepalive(SERVER_OPTIONS, self._limits.keepalive_s),
            ("grpc.max_allowed_incoming_connections", self._limits.connections),
        ]
        self._server = grpc.server(self._pool, options=options, maximum_concurrent_rpcs=threads)
        self._server.add_generic_rpc_handlers(self._calls.handlers())
        try:
            self.port = self._server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            self._pool.shutdown()
            raise BractError(UNREACHABLE, f"cannot listen on {listen}: is another hub running?") from error

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()
        threading.Thread(target=self._watch, name="bract-stalled", daemon=True).start()

    def renew(self, key: bytes, certificate: bytes) -> None:
        """Shows another certificate to whoever connects from now on; connections that stand go on.

        Raises:
            BractError: `certificate`, as at the start; the one before is kept then.
        """
        self._renewed = self._configured(key, certificate)

    def stop(self, grace_s: float = 2.0) -> None:
        """Ends waiting calls at once and the others after `grace_s`, then returns."""
        self._calls.stopping.set()
        self._server.stop(grace_s).wait()
        self._pool.shutdown()

    def _configured(self, key: bytes, certificate: bytes) -> grpc.ServerCertificateConfiguration:
        check_pair(key, certificate, self._authority, self._clock())
        return grpc.ssl_server_certificate_configuration([(key, certificate)], certificate_pem(self._authority))

    def _take_renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """What grpc asks before each handshake: a configuration that it does not have yet."""
        renewed, self._renewed = self._renewed, None
        return renewed

    def _watch(self) -> None:
        while not self._calls.stopping.wait(min(1.0, self._limits.stall_s / 4)):
            self._share.cut_stalled()
