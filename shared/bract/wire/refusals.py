"""Refusals across gRPC: the code travels in the trailing metadata `bract-code`, and nothing else does."""

from typing import NoReturn

import grpc

from bract.errors import (
    CERTIFICATE,
    CODES,
    CONCURRENT,
    DIGEST_MISMATCH,
    DISK,
    HUB_FAILED,
    MALFORMED,
    TOO_LARGE,
    TOO_OFTEN,
    UNKNOWN_SITE,
    UNREACHABLE,
    UNTRUSTED,
    BractError,
)

KEY = "bract-code"
_BUSY = "Concurrent RPC limit exceeded"

_STATUS = {
    CERTIFICATE: grpc.StatusCode.UNAUTHENTICATED,
    UNKNOWN_SITE: grpc.StatusCode.UNAUTHENTICATED,
    UNTRUSTED: grpc.StatusCode.PERMISSION_DENIED,
    MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    DIGEST_MISMATCH: grpc.StatusCode.DATA_LOSS,
    TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DISK: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TOO_OFTEN: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CONCURRENT: grpc.StatusCode.ABORTED,
    HUB_FAILED: grpc.StatusCode.INTERNAL,
}


def refuse(context: grpc.ServicerContext, code: str) -> NoReturn:
    """Ends the call with this code."""
    context.set_trailing_metadata(((KEY, code),))
    context.abort(_STATUS.get(code, grpc.StatusCode.FAILED_PRECONDITION), code)
    raise AssertionError("abort returned")


def refusal(error: grpc.RpcError | grpc.Call) -> BractError:
    """The refusal that the other side meant; `unreachable` when it did not answer at all."""
    if not isinstance(error, grpc.Call):
        return BractError(UNREACHABLE)
    code = str(dict(error.trailing_metadata() or ()).get(KEY, ""))
    if code in CODES:
        return BractError(code, "the hub refuses")
    return _without_code(error.code(), error.details() or "")


def _without_code(status: grpc.StatusCode, text: str) -> BractError:
    """What grpc itself answered, ours or the other side's."""
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return BractError(CERTIFICATE, "the hub's certificate is not of the authority we enrolled with, or expired")
    if "ALERT" in text and "handshake" in text.lower():
        return BractError(CERTIFICATE, "the hub refuses this site's certificate")
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED and _BUSY not in text:
        return BractError(TOO_LARGE, "a message is over the limit")
    return BractError(UNREACHABLE, status.name.lower())
