"""The two services' methods and the settings of a connection, the same for both ends."""

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf.message import Message

from bract.wire import hub_pb2 as pb
from bract.wire.chunks import MAX_MESSAGE

ARRAYS = "bract.wire.Arrays"
REGISTRY = "bract.wire.Registry"

UNARY: dict[str, tuple[str, type[Message], type[Message]]] = {
    "Stat": (ARRAYS, pb.StatRequest, pb.StatReply),
    "Proposals": (REGISTRY, pb.ProposalsRequest, pb.ProposalsReply),
    "Clear": (REGISTRY, pb.Signed, pb.Done),
    "Reserve": (REGISTRY, pb.Signed, pb.Done),
    "Refuse": (REGISTRY, pb.Signed, pb.Done),
    "Withdraw": (REGISTRY, pb.Signed, pb.Done),
    "Relinquish": (REGISTRY, pb.Signed, pb.Done),
    "Declare": (REGISTRY, pb.Signed, pb.Done),
    "Receipts": (REGISTRY, pb.ReceiptsRequest, pb.ReceiptsReply),
    "Wanted": (REGISTRY, pb.WantedRequest, pb.WantedReply),
    "Witness": (REGISTRY, pb.WitnessRequest, pb.WitnessReply),
    "Status": (REGISTRY, pb.StatusRequest, pb.StatusReply),
}
"""Methods with one request and one reply: service, request, reply. A test holds them against `hub.proto`."""

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.optimization_target", "throughput"),
    ("grpc.http2.max_frame_size", 1 << 20),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # this, a minute by default, is what a ping really waits
]
SERVER_OPTIONS: list[tuple[str, Any]] = [
    *_OPTIONS,
    ("grpc.so_reuseport", 0),  # a second hub on the same port must fail, not share it
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
    ("grpc.max_metadata_size", 16_384),
    ("grpc.max_concurrent_streams", 64),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 600_000),
]
CLIENT_OPTIONS: list[tuple[str, Any]] = [
    *_OPTIONS,
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.enable_retries", 0),  # the caller retries: only it knows where a transfer stopped
    ("grpc.enable_http_proxy", 0),  # a proxy would end the TLS that names the site
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
]


def with_keepalive(options: list[tuple[str, Any]], every_s: float) -> list[tuple[str, Any]]:
    """The options with another time of silence before the other end is probed; it has a third of that to answer."""
    answer = ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    changed = {"grpc.keepalive_time_ms": every_s * 1000, **dict.fromkeys(answer, every_s * 1000 / 3)}
    return [(name, int(changed[name]) if name in changed else value) for name, value in options]


def request_handler(
    name: str, call: Callable[[Iterator[bytes], grpc.ServicerContext], Message]
) -> "grpc.RpcMethodHandler[Any, Any]":
    """The server's side of a method in `UNARY`: the call is given its request as a stream of one message, not yet parsed.

    On the wire that is the same. But grpc would have a thread wait for a single request before the call hears of it: a
    client that opens calls and sends no request could take every thread.
    """
    return grpc.stream_unary_rpc_method_handler(call, None, UNARY[name][2].SerializeToString)


def unary_call(channel: grpc.Channel, name: str) -> "grpc.UnaryUnaryMultiCallable[Any, Any]":
    """The client's side of a method in `UNARY`."""
    service, request, reply = UNARY[name]
    return channel.unary_unary(f"/{service}/{name}", request.SerializeToString, reply.FromString)
