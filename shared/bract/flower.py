"""Every import of Flower, most of them semi-private, in one place: flwr is pinned, and a contract test names each symbol.

What we use of Flower 1.41: node identity, messages, the run life cycle and the SuperLink's state. What we do not use: its
bundles as carriers of code, its strategies, its process launchers. The bundle that starts a run names our installed
packages and holds no code; neither side ever unpacks one.

Flower takes seconds to load, half of it for one side only: what a single function needs is imported there.
"""

import functools
import hashlib
import io
import logging
import os
import sys
import threading
import time
import traceback
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto, fab_to_proto, run_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.fleet_pb2 import DeactivateNodeRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from bract.errors import NOT_RUNNING, OPERATOR_TOKEN, UNREACHABLE, UNTRUSTED, BractError

__all__ = ["ConfigRecord", "Grid", "Message", "MessageType", "NodeInfo", "RecordDict", "TaskType"]

_BUNDLE_TOML = b"""[project]
name = "bract"
version = "1.0.0"
description = "Names the installed packages; carries no code"
license = "Apache-2.0"
dependencies = ["flwr>=1.41,<1.42"]

[tool.flwr.app]
publisher = "bract"

[tool.flwr.app.components]
serverapp = "bract_server.app:app"
clientapp = "bract_client.app:app"

[tool.flwr.app.config]
campaign = ""
epoch = ""
"""
_WHOLE_S = 10.0
"""How long an answer that was announced may take to be there whole; meanwhile nothing else is heard."""
_PAYLOAD = "bract"
_HEARTBEAT_S = 2.0
_PATIENCE_S = 60.0
_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_IDLE_S = 3.0
"""How long Flower's node sleeps when there was no message for it."""
_SOON_S = 0.1
"""The first wait for what is announced or expected: the rest of a message, an executor's answer, the hub's next message."""


def bundle() -> bytes:
    """The bundle that starts a run: a project file that names installed packages. The same bytes every time."""
    from flwr.cli.build import build_fab_from_files  # noqa: PLC0415

    content, _ = build_fab_from_files({"pyproject.toml": _BUNDLE_TOML})
    return bytes(content)


def bundle_files(content: bytes) -> tuple[str, ...]:
    """The names inside a bundle, without unpacking it; () when it is no archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return tuple(archive.namelist())
    except zipfile.BadZipFile:
        return ()


# --- hub: the SuperLink app and the operator's door to it -------------------------------------------------------------


def superlink_app(
    operators: Mapping[str, str],
    *,
    database: Path,
    secret: bytes,
    certificates: tuple[Path, Path, Path],
    host: str,
    port: int,
) -> Any:
    """Flower's SuperLink as an ASGI app, closed to all but registered nodes, known operators and our own launcher.

    Args:
        operators: sha256 hex of a bearer token -> operator's name.
        database: the SQLite file of Flower's state.
        secret: shared with the process that takes ServerApp tasks.
        certificates: CA, server certificate, server key.
        host: the address to listen on.
        port: its port.
    """
    from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, TRANSPORT_TYPE_GRPC_RERE  # noqa: PLC0415
    from flwr.supercore.auth.typing import AccountInfo  # noqa: PLC0415
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin  # noqa: PLC0415
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan  # noqa: PLC0415
    from flwr.superlink.config_loader import SuperLinkLifespanConfig  # noqa: PLC0415
    from flwr.superlink.main import create_app  # noqa: PLC0415

    class OperatorTokens(NoOpControlAuthnPlugin):
        """Bearer tokens, compared by digest."""

        def validate_tokens_in_metadata(self, metadata: Any) -> tuple[bool, AccountInfo | None]:
            for _, value in metadata:
                token = value.encode() if isinstance(value, str) else value
                if hashlib.sha256(token).hexdigest() in operators:
                    return True, AccountInfo(flwr_aid=NOOP_FLWR_AID, account_name=NOOP_ACCOUNT_NAME)
            return False, None

    ca, certificate, key = certificates
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=host,
        port=port,
        insecure=False,
        certificates=(ca.read_bytes(), certificate.read_bytes(), key.read_bytes()),
        superexec_auth_secret=secret,
        authn_plugin=OperatorTokens(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(ca),
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        database=str(database),
        isolation="process",
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


class _Bearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def intercept(self, context: Any, call_next: Any) -> httpx.Response:
        context.request.headers["authorization"] = f"Bearer {self._token}"
        response: httpx.Response = call_next(context)
        return response


@dataclass(frozen=True)
class RunStatus:
    """A run as Flower tells it, with the campaign and epoch that it was started with.

    `pending` until a process takes it, then `starting`, `running`, `finished` (`completed`, `failed`, `stopped`).
    """

    campaign: str
    status: str
    sub_status: str
    epoch: int = 0


class Operator:
    """The operator's door to the SuperLink's Control API."""

    def __init__(self, address: str, ca: bytes, token: str) -> None:
        from flwr.supercore.control import ControlHttpClient  # noqa: PLC0415

        self._client = ControlHttpClient.from_server_address(
            address,
            insecure=False,
            root_certificates=ca,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr-cli"), _Bearer(token)],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            if error.response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise BractError(OPERATOR_TOKEN) from error
            raise BractError(UNREACHABLE, f"the coordinator answered {error.response.status_code}") from error
        except httpx.TransportError as error:
            raise BractError(NOT_RUNNING, "the coordinator does not answer") from error

    def nodes(self) -> dict[int, bytes]:
        """Registered nodes: id -> public key (PEM)."""
        with self._refusals():
            listed = self._client.ListNodes(ListNodesRequest()).nodes_info
        return {n.node_id: bytes(n.public_key) for n in listed if n.status != "unregistered"}

    def register(self, public_key: bytes, name: str) -> int:
        """Let the node with this public key (PEM, NIST EC) in; its id."""
        with self._refusals():
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)).node_id)

    def unregister(self, node_id: int) -> None:
        """Shut this node out."""
        with self._refusals():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def start(self, config: Mapping[str, str], content: bytes | None = None) -> int:
        """Start a run with this configuration; its id. `content` is a bundle, by default our own."""
        fab = content or bundle()
        request = StartRunRequest(
            fab=fab_to_proto(Fab(hashlib.sha256(fab).hexdigest(), fab, {})),
            override_config=user_config_to_proto(dict(config)),
        )
        with self._refusals():
            return int(self._client.StartRun(request).run_id)

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        with self._refusals():
            self._client.StopRun(StopRunRequest(run_id=run_id))

    def runs(self) -> dict[int, RunStatus]:
        """All runs and their states."""
        with self._refusals():
            listed = self._client.ListRuns(ListRunsRequest()).run_dict
        return {
            int(i): RunStatus(
                r.override_config["campaign"].string,
                r.status.status,
                r.status.sub_status,
                int(r.override_config["epoch"].string or 0),
            )
            for i, r in listed.items()
        }


# --- tasks: what the two executors take from Flower -------------------------------------------------------------------


def _runtime(
    address: str, ca: bytes | None, component: str, *interceptors: Any, patient: bool = True
) -> RuntimeHttpClient:
    """A client of the Runtime API; a patient one tries again for a minute, longer than a task outlives its silence."""
    retries = patient_retries(interrupts=False) if patient else None
    if retries is not None:
        retries.max_time = _PATIENCE_S
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=ca is None,
        root_certificates=ca,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=component), *interceptors],
        retry_invoker=retries,
    )


@dataclass(frozen=True)
class Taken:
    """A task that was taken: the token that speaks for it, and the run that it belongs to."""

    token: str
    run_id: int


class TaskQueue:
    """Takes tasks of one kind from a SuperLink or SuperNode, authenticated by the shared secret."""

    def __init__(self, kind: TaskType, address: str, ca: bytes | None, secret: bytes) -> None:
        self._kind = kind
        self._client = _runtime(
            address,
            ca,
            "SuperExec",
            SuperExecAuthHttpInterceptor(
                master_secret=secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
            ),
            patient=False,
        )

    def acquire(self) -> Taken | None:
        """The next task, None when there is none now.

        Raises:
            BractError: `unreachable` while nobody answers; ask again a little later.
        """
        try:
            answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[self._kind]))
            return Taken(answer.token, int(answer.task.run_id)) if answer.token else None
        except httpx.HTTPError as error:
            raise BractError(UNREACHABLE, "no tasks from Flower now") from error


class _Heartbeat:
    """Tells Flower that the task lives; `stopped` is set once Flower says that the run has ended."""

    def __init__(self, client: RuntimeHttpClient) -> None:
        self.stopped = threading.Event()
        self._done = threading.Event()
        self._client = client
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._done.wait(_HEARTBEAT_S):
            try:
                alive = self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
            except httpx.HTTPStatusError as error:
                alive = error.response.status_code not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
            except httpx.HTTPError:
                continue
            if not alive:
                self.stopped.set()
                return

    def close(self) -> None:
        self._done.set()
        self._thread.join()


class ClientTask:
    """One message for this site, from taking it to answering it. The bundle's bytes are looked at, never unpacked."""

    def __init__(self, address: str, token: str) -> None:
        self._client = _runtime(address, None, "flwr-clientapp", RuntimeTokenHttpInterceptor(token))
        self._heartbeat = _Heartbeat(self._client)
        from flwr.supercore.inflatable.inflatable_utils import (  # noqa: PLC0415
            ObjectPullError,
            pull_and_inflate_object_from_tree,
        )
        from flwr.supernode.runtime import run_clientapp  # noqa: PLC0415

        run_clientapp.pull_and_inflate_object_from_tree = functools.partial(  # type: ignore[attr-defined]
            pull_and_inflate_object_from_tree, initial_backoff=_SOON_S
        )
        try:
            self._message, self._context, _, fab = run_clientapp.pull_task_input(self._client)
        except Exception as error:
            self._close()  # else its heartbeat would keep a task alive that nobody works on
            if isinstance(error, ObjectPullError):
                raise BractError(UNREACHABLE, "the run ended before its message was whole") from error
            raise
        self.bundle = bytes(fab.content)
        self.stopped = self._heartbeat.stopped

    @property
    def node_id(self) -> int:
        """Flower's number for this site's node."""
        return int(self._context.node_id)

    @property
    def payload(self) -> dict[str, bytes | str]:
        """What the hub sent, {} when it is not one of our messages."""
        return _payload(self._message)

    def reply(self, payload: Mapping[str, bytes | str]) -> None:
        """Answer the message and end the task."""
        from flwr.supernode.runtime.run_clientapp import push_message, push_task_output  # noqa: PLC0415

        answer = Message(_content(payload), reply_to=self._message)
        try:
            push_message(self._client, answer, self._context)
            push_task_output(self._client, self._context, SubStatus.COMPLETED, "")
        except httpx.HTTPStatusError as error:
            raise BractError(UNREACHABLE, "the run has ended; the answer was not taken") from error
        finally:
            self._close()

    def _close(self) -> None:
        self._heartbeat.close()
        self._client.close()


class ServerTask:
    """A ServerApp's task: the grid it speaks through, its configuration, and its end."""

    def __init__(self, address: str, ca: bytes, token: str) -> None:
        from flwr.supercore.inflatable.inflatable_utils import pull_objects  # noqa: PLC0415
        from flwr.superlink.grid import HttpGrid, http_grid  # noqa: PLC0415

        http_grid.pull_objects = functools.partial(  # type: ignore[attr-defined]
            pull_objects, max_time=_WHOLE_S, initial_backoff=_SOON_S
        )
        self._grid = HttpGrid(address, insecure=False, root_certificates=ca, token=token)
        self._grid._retry_invoker = patient_retries()
        client = self._grid._runtime_client
        self._heartbeat = _Heartbeat(client)
        task = client.PullTaskInput(PullTaskInputRequest())
        self._context: Context = context_from_proto(task.context)
        run = run_from_proto(task.run)
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = (
            task.task_id,
            task.run.run_id,
            task.context.node_id,
        )
        self._grid.set_run(run)
        self.run_id = int(run.run_id)
        self.config: dict[str, str] = {k: str(v) for k, v in run.override_config.items()}
        self.stopped = self._heartbeat.stopped

    @property
    def grid(self) -> Grid:
        """The way to the sites."""
        return self._grid

    def finish(self, failure: str | None = None) -> None:
        """Tell Flower how the run ended: completed, or failed with this code."""
        status = SubStatus.COMPLETED if failure is None else SubStatus.FAILED
        self._grid._runtime_client.PushTaskOutput(
            PushTaskOutputRequest(context=None, sub_status=status, details=failure or "")
        )
        self._heartbeat.close()
        self._grid.close()


def patient_retries(*, interrupts: bool = True) -> RetryInvoker:
    """Flower's way of trying again, but for ever when it is the line that broke, whatever broke it.

    Flower's own gives up for good when a handshake is cut or a certificate has just expired: a hub that restarts behind a
    proxy would so be left by all its sites.

    Args:
        interrupts: whether a token that is refused ends the whole process by SIGINT, as with Flower; else it is an error of
            this call alone, as it must be where the process does more than one task.
    """
    retries = make_simple_http_retry_invoker()
    decided = retries.should_giveup

    def gives_up(error: Exception) -> bool:
        if isinstance(error, httpx.TransportError):
            return False
        refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code in _REFUSED
        return (refused and not interrupts) or (decided is not None and decided(error))

    retries.should_giveup = gives_up
    return retries


class Pauses:
    """How a node waits, in place of Flower's fixed waits: short after a message, as the next one may follow at once.

    Each wait for the hub is a quarter longer than the one before, up to Flower's own 3 s: a message is late by no more than a
    quarter of the time that it was waited for, and an idle site asks no more often than Flower would.
    """

    def __init__(self, sleep: Callable[[float], None]) -> None:
        self._sleep, self._next = sleep, _SOON_S

    def sleep(self, seconds: float) -> None:
        """Wait at most `seconds`: Flower's 3 s for the hub, or less for the executor that works on a message."""
        if seconds < _IDLE_S:
            self._next = _SOON_S
            self._sleep(min(seconds, _SOON_S))
        else:
            self._sleep(min(seconds, self._next))
            self._next = min(1.25 * self._next, _IDLE_S)


def giving_up(pull_and_store: Callable[..., int | None]) -> Callable[..., int | None]:
    """Flower's taking of a message, which gives a message up whole when its run ends before all of it is here.

    Flower's own lets `RunNotRunningException`, a `BaseException`, past its clearing up: the task stays, and whoever takes
    it waits two hours for the rest. As an ordinary error the message and its task are given up.
    """

    def pull(**doors: Any) -> int | None:
        for name in ("pull_object", "confirm_message_received"):
            doors[name] = _ordinary(doors[name])
        return pull_and_store(**doors)

    return pull


def _ordinary(call: Callable[..., Any]) -> Callable[..., Any]:
    from flwr.supercore.run import RunNotRunningException  # noqa: PLC0415

    @functools.wraps(call)
    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except RunNotRunningException as error:
            raise RuntimeError("its run has ended") from error

    return called


def become_supernode(arguments: Iterable[str]) -> NoReturn:
    """Be `flower-supernode` with these arguments, until it ends; then the process ends.

    Its Runtime API is served by a thread that outlives an error of its main loop: the process would stay, and be deaf.
    """
    from flwr.supercore.inflatable.inflatable_utils import pull_objects  # noqa: PLC0415
    from flwr.supernode import fleet_http_connection, start_client_internal  # noqa: PLC0415
    from flwr.supernode.cli.flower_supernode import flower_supernode  # noqa: PLC0415

    start_client_internal.pull_objects = functools.partial(  # type: ignore[attr-defined]
        pull_objects, initial_backoff=_SOON_S
    )
    start_client_internal._pull_and_store_message = giving_up(start_client_internal._pull_and_store_message)
    start_client_internal.time = Pauses(time.sleep)  # type: ignore[assignment, attr-defined]
    fleet_http_connection.make_simple_http_retry_invoker = patient_retries  # type: ignore[attr-defined]
    logging.getLogger("flwr").propagate = False  # it prints for itself; ours would print its debugging, too
    sys.argv = ["flower-supernode", *arguments]
    try:
        flower_supernode()
    except SystemExit as ended:
        os._exit(ended.code if isinstance(ended.code, int) else 1)
    except BaseException:  # noqa: BLE001 - whatever it is, its text goes to the log, and the supervisor starts anew
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def release_node(address: str, ca: bytes, key: ec.EllipticCurvePrivateKey, node_id: int) -> None:
    """End the node's session of a former life.

    A node that was killed counts as online for a minute more, and Flower refuses to activate it a second time meanwhile.

    Raises:
        BractError: `unreachable`; `untrusted` when the key is not the node's.
    """
    from flwr.supernode.fleet_http_client import FleetHttpClient  # noqa: PLC0415
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor  # noqa: PLC0415

    signed: list[Any] = [RuntimeVersionHttpInterceptor("SuperNode"), NodeAuthHttpInterceptor(key, key.public_key())]
    try:
        with FleetHttpClient.from_server_address(
            address, insecure=False, root_certificates=ca, interceptors=signed
        ) as fleet:
            fleet.DeactivateNode(DeactivateNodeRequest(node_id=node_id))
    except httpx.HTTPStatusError as error:
        raise BractError(UNTRUSTED, "Flower does not know the node under this key") from error
    except httpx.HTTPError as error:
        raise BractError(UNREACHABLE, "the coordinator does not answer") from error


# --- messages ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reply:
    """A site's answer: its payload, or `failed` when Flower could not get one (node gone, task died)."""

    payload: dict[str, bytes | str]
    failed: bool


def _content(payload: Mapping[str, bytes | str]) -> RecordDict:
    return RecordDict({_PAYLOAD: ConfigRecord(dict(payload))})


def _payload(message: Message) -> dict[str, bytes | str]:
    if not message.has_content():
        return {}
    record = message.content.config_records.get(_PAYLOAD)
    return {} if record is None else {k: v for k, v in record.items() if isinstance(v, bytes | str)}


def nodes(grid: Grid) -> dict[int, bytes]:
    """The nodes that the grid reaches: id -> public key (PEM)."""
    return {int(node.node_id): bytes(node.public_key) for node in grid.get_nodes()}


def push(
    grid: Grid, payload: Mapping[str, bytes | str], node_ids: Iterable[int], *, group: str, ttl_s: float
) -> list[str]:
    """Send the same payload to each node; the messages' ids, in order ("" where one could not be sent)."""
    messages = [
        Message(_content(payload), dst_node_id=n, message_type=MessageType.TRAIN, group_id=group, ttl=ttl_s)
        for n in node_ids
    ]
    return [message_id or "" for message_id in grid.push_messages(messages)]


def pull(grid: Grid, message_id: str) -> Reply | None:
    """The answer to one message, None while there is none. One at a time keeps the memory constant.

    Flower inflates what a node sent without looking at it closely: what is no message is an answer that says nothing.
    """
    try:
        answers = list(grid.pull_messages([message_id]))
        return Reply(_payload(answers[0]), answers[0].has_error()) if answers else None
    except httpx.HTTPError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a node can make of its answer, it ends nobody else's round
        logging.getLogger("bract.flower").warning("an answer is no message: %s", type(error).__name__)
        return Reply({}, failed=False)
