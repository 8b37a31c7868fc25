"""The hub's gRPC server: arrays and the registry's services, over mutual TLS, by the rules of `bract_server.door`."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import grpc
from cryptography import x509

from bract.errors import UNREACHABLE, BractError
from bract.identity import certificate_pem
from bract.wire.channel import SERVER_OPTIONS
from bract_server.arrays import ArrayStore
from bract_server.door import Calls, HubDoor


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
    ) -> None:
        self._calls = Calls(door, store, hub=hub, authority=authority, clock=clock, waiting=threads // 2)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="bract-wire")
        self._server = grpc.server(self._pool, options=SERVER_OPTIONS, maximum_concurrent_rpcs=threads)
        self._server.add_generic_rpc_handlers(self._calls.handlers())
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=certificate_pem(authority), require_client_auth=True
        )
        try:
            self.port = self._server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            self._pool.shutdown()
            raise BractError(UNREACHABLE, f"cannot listen on {listen}: is another hub running?") from error

    def start(self) -> None:
        """Begins to answer."""
        self._server.start()

    def stop(self, grace_s: float = 2.0) -> None:
        """Ends waiting calls at once and the others after `grace_s`, then returns."""
        self._calls.stopping.set()
        self._server.stop(grace_s).wait()
        self._pool.shutdown()
