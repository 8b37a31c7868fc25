"""Flower is pinned, and what we use of it is named here: an upgrade that moves a symbol fails loudly, at once."""

import ast
import hashlib
import importlib
import inspect
import io
import itertools
import threading
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.app import Message, MessageType
from flwr.common.constant import Status
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable import inflatable_utils
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.run import Run, RunNotRunningException
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import http_grid
from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.runtime import run_clientapp
from hypothesis import given
from hypothesis import strategies as st

from bract import flower
from bract.errors import UNREACHABLE, BractError

SYMBOLS = {
    "flwr.app": ["ConfigRecord", "Context", "Message", "MessageType", "RecordDict"],
    "flwr.cli.build": ["build_fab_from_files"],
    "flwr.common.constant": ["NOOP_ACCOUNT_NAME", "NOOP_FLWR_AID", "TRANSPORT_TYPE_GRPC_RERE", "SubStatus"],
    "flwr.common.serde": ["context_from_proto", "fab_to_proto", "run_from_proto", "user_config_to_proto"],
    "flwr.proto.control_pb2": [
        "ListNodesRequest",
        "ListRunsRequest",
        "RegisterNodeRequest",
        "StartRunRequest",
        "StopRunRequest",
        "UnregisterNodeRequest",
    ],
    "flwr.proto.fleet_pb2": ["DeactivateNodeRequest"],
    "flwr.proto.node_pb2": ["NodeInfo"],
    "flwr.proto.runtime_pb2": [
        "AcquireTaskRequest",
        "PullTaskInputRequest",
        "PushTaskOutputRequest",
        "SendTaskHeartbeatRequest",
    ],
    "flwr.serverapp": ["Grid"],
    "flwr.supercore.auth.typing": ["AccountInfo"],
    "flwr.supercore.constant": ["TaskType"],
    "flwr.supercore.control": ["ControlHttpClient"],
    "flwr.supercore.fab": ["Fab"],
    "flwr.supercore.inflatable.inflatable_utils": [
        "ObjectPullError",
        "pull_and_inflate_object_from_tree",
        "pull_objects",
    ],
    "flwr.supercore.interceptors": [
        "RuntimeTokenHttpInterceptor",
        "RuntimeVersionHttpInterceptor",
        "SuperExecAuthHttpInterceptor",
    ],
    "flwr.supercore.run": ["RunNotRunningException"],
    "flwr.supercore.retry": ["RetryInvoker", "make_simple_http_retry_invoker"],
    "flwr.supernode": ["fleet_http_connection", "start_client_internal"],
    "flwr.supernode.cli.flower_supernode": ["flower_supernode"],
    "flwr.supercore.runtime": ["RuntimeHttpClient"],
    "flwr.supercore.task_identity": ["TaskIdentity"],
    "flwr.supernode.fleet_http_client": ["FleetHttpClient"],
    "flwr.supernode.node_auth_http_interceptor": ["NodeAuthHttpInterceptor"],
    "flwr.supernode.runtime": ["run_clientapp"],
    "flwr.supernode.runtime.run_clientapp": ["push_message", "push_task_output"],
    "flwr.superlink.auth_plugin": ["NoOpControlAuthnPlugin"],
    "flwr.superlink.cli.flower_superlink": ["SuperLinkLifespan"],
    "flwr.superlink.config_loader": ["SuperLinkLifespanConfig"],
    "flwr.superlink.grid": ["HttpGrid", "http_grid"],
    "flwr.superlink.main": ["create_app"],
}


def test_flower_is_the_pinned_line() -> None:
    assert version("flwr").startswith("1.41.")


@pytest.mark.parametrize(("module", "names"), SYMBOLS.items())
def test_every_symbol_that_we_use_is_there(module: str, names: list[str]) -> None:
    found = importlib.import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []


def test_the_list_above_is_exactly_what_the_adapter_imports() -> None:
    tree = ast.parse(Path(flower.__file__).read_text(encoding="utf-8"))
    used: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flwr"):
            used.setdefault(node.module or "", set()).update(alias.name for alias in node.names)
    assert used == {module: set(names) for module, names in SYMBOLS.items()}


def test_our_bundle_carries_names_and_no_code() -> None:
    content = flower.bundle()
    assert flower.bundle_files(content) == ("pyproject.toml", ".info/CONTENT")
    assert hashlib.sha256(content).digest() == hashlib.sha256(flower.bundle()).digest()


def test_a_bundle_is_looked_into_without_being_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("bract_client/__init__.py", "raise SystemExit")
        archive.writestr("../escape.py", "")
    assert flower.bundle_files(buffer.getvalue()) == ("bract_client/__init__.py", "../escape.py")
    assert list(tmp_path.iterdir()) == []
    assert flower.bundle_files(b"no archive") == ()


def test_a_line_that_breaks_is_tried_again_whatever_broke_it() -> None:
    cut = httpx.ConnectError("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol")
    expired = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired")
    refused = httpx.HTTPStatusError(
        "no", request=httpx.Request("POST", "https://hub"), response=httpx.Response(httpx.codes.NOT_FOUND)
    )
    stock, ours = make_simple_http_retry_invoker().should_giveup, flower.patient_retries().should_giveup
    assert stock is not None and ours is not None
    assert [stock(error) for error in (cut, expired, refused)] == [True, True, True], (
        "the control: Flower's own gives up"
    )
    assert [ours(error) for error in (cut, expired, refused)] == [False, False, True]
    stale = httpx.HTTPStatusError(
        "no", request=httpx.Request("POST", "https://hub"), response=httpx.Response(httpx.codes.UNAUTHORIZED)
    )
    calm = flower.patient_retries(interrupts=False).should_giveup
    assert calm is not None and calm(stale), "a stale token ends a task, not the process: nobody sent SIGINT"
    assert hasattr(fleet_http_connection, "make_simple_http_retry_invoker"), "where `become_supernode` puts it"


@given(st.lists(st.booleans(), max_size=60))
def test_a_node_waits_short_after_a_message_and_never_longer_than_flower_would(messages: list[bool]) -> None:
    slept: list[float] = []
    pauses = flower.Pauses(slept.append)
    for message in messages:
        pauses.sleep(0.5 if message else 3)  # the executor works on one, or there was none
        waited = sum(itertools.takewhile(lambda wait: wait != -1, reversed(slept[:-1])))
        assert slept[-1] <= (0.1 if message else min(3.0, 0.1 + waited / 4 + 1e-9))
        if message:
            slept.append(-1)
    for _ in range(20):
        pauses.sleep(3)
    assert slept[-1] == 3, "an idle node asks as seldom as Flower's own"


def test_the_waits_that_are_shortened_are_where_they_were() -> None:
    tree = ast.parse(Path(start_client_internal.__file__).read_text(encoding="utf-8"))
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    assert {node.attr for node in named if node.value.id == "time"} == {"sleep"}  # type: ignore[attr-defined]
    for module in (start_client_internal, http_grid):
        assert module.pull_objects is inflatable_utils.pull_objects
    assert "pull_and_inflate_object_from_tree" in vars(run_clientapp)
    for function in (inflatable_utils.pull_objects, inflatable_utils.pull_and_inflate_object_from_tree):
        assert "initial_backoff" in inspect.signature(function).parameters


@pytest.fixture
def in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of Flower's that works on a task: its messages are of that run."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


class Node:
    """Flower's own state of a node, and a hub whose run ends while the node takes its message."""

    def __init__(self, ends_in: str) -> None:
        self._ends_in = ends_in
        objects = ObjectStoreFactory()
        self.state, self._objects = NodeStateFactory(objects).state(), objects.store()
        self.state.set_node_id(1)
        self._message = Message(flower._content({"plan": b"x"}), dst_node_id=1, message_type=MessageType.TRAIN)
        self._message.metadata.__dict__["_message_id"] = self._message.object_id

    def take(self, pull_and_store: Callable[..., int | None]) -> int | None:
        fab = Fab("", flower.bundle(), {})
        return pull_and_store(
            state=self.state,
            object_store=self._objects,
            node_config={},
            receive=lambda: (self._message, get_object_tree(self._message)),
            get_run=Run.create_empty,
            get_fab=lambda *_: fab,
            pull_object=self._pull_object,
            confirm_message_received=self._confirm,
            trusted_entities=None,
        )

    def _pull_object(self, _run_id: int, object_id: str) -> bytes:
        if self._ends_in == "pull_object":
            raise RunNotRunningException
        return get_all_nested_objects(self._message)[object_id].deflate()

    def _confirm(self, _run_id: int, _message_id: str) -> None:
        if self._ends_in == "confirm_message_received":
            raise RunNotRunningException

    def waiting(self) -> tuple[int, int]:
        """Tasks that an executor may take, and messages."""
        tasks = self.state.get_tasks(statuses=[Status.PENDING])
        return len(tasks), len(self.state.get_messages_legacy(is_reply=False))


@pytest.mark.usefixtures("in_a_task")
@pytest.mark.parametrize("ends_in", ["pull_object", "confirm_message_received"])
def test_a_message_whose_run_ends_before_it_is_whole_leaves_no_task_that_holds_the_site(ends_in: str) -> None:
    node = Node(ends_in)
    assert node.take(flower.giving_up(start_client_internal._pull_and_store_message)) is None
    assert node.waiting() == (0, 0)
    whole = Node("never")
    assert whole.take(flower.giving_up(start_client_internal._pull_and_store_message)) == 7
    assert whole.waiting() == (1, 1)


@pytest.mark.usefixtures("in_a_task")
def test_flower_itself_leaves_such_a_task() -> None:
    """Once it does not, `flower.giving_up` can go."""
    node = Node("pull_object")
    assert node.take(start_client_internal._pull_and_store_message) is None
    assert node.waiting() == (1, 1)


def test_a_task_whose_message_never_becomes_whole_is_given_up_with_its_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(_: object) -> None:
        raise ObjectPullError("an object", "not preregistered")

    monkeypatch.setattr(run_clientapp, "pull_task_input", gone)
    with pytest.raises(BractError) as refused:
        flower.ClientTask("127.0.0.1:1", "token")
    assert refused.value.code == UNREACHABLE
    assert "heartbeat" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("trouble", [ValueError("nonsense"), AttributeError("head only"), RecursionError()])
def test_an_answer_that_is_no_message_ends_nobody_elses_round(trouble: Exception) -> None:
    class Broken:
        def pull_messages(self, _: list[str]) -> list[Message]:
            raise trouble

    grid: Any = Broken()
    assert flower.pull(grid, "an id") == flower.Reply({}, failed=False)


def test_a_line_that_broke_is_no_answer() -> None:
    class Away:
        def pull_messages(self, _: list[str]) -> list[Message]:
            raise httpx.ConnectError("away")

    grid: Any = Away()
    with pytest.raises(httpx.ConnectError):
        flower.pull(grid, "an id")
