"""The site's line to its hub: arrays by digest, proposals, signed answers, receipts; over mutual TLS.

The hub is trusted only as far as its certificate is of the authority that was confirmed at enrolment. A call that
finds the hub away, or itself too early, is tried again for a bounded time; a transfer that was cut goes on where it
stopped, and one that stalls is cut.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc

from bract.digest import Digest
from bract.errors import CONCURRENT, DIGEST_MISMATCH, UNKNOWN_SITE, UNREACHABLE, BractError
from bract.files import read_private
from bract.identity import check_time, load_certificate
from bract.log.witness import Reply, Word
from bract.signing import Envelope, parse_envelope
from bract.value import utc
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS, CLIENT_OPTIONS, unary_call
from bract.wire.chunks import pack_header, packed, unpack
from bract.wire.incoming import receive
from bract.wire.progress import watched
from bract.wire.refusals import refusal
from bract.wire.witnessing import reply_value, word_message
from bract_client.home import SiteHome
from bract_client.patience import refusals, retried

_T = TypeVar("_T")
_Bytes = TypeVar("_Bytes", bytes, memoryview)

CALL_S = 30.0
"""Longest time of a short call, in seconds."""
STALL_S = 120.0
"""Longest time in which a further MiB of a transfer must pass, in seconds."""
_BUSY_TIMES = 5
"""How often a part that another line holds is waited for, before the array is sent from its start."""


@dataclass(frozen=True)
class HubStatus:
    """What the hub says of itself."""

    hub: str
    version: str
    at: datetime


@dataclass(frozen=True)
class Offer:
    """A proposed round and the campaign that it belongs to, both as the hub signed them."""

    proposal: Envelope
    campaign: Envelope


@dataclass(frozen=True)
class Receipt:
    """A signed `RoundReceipt` and its number in the hub's list for this site."""

    number: int
    envelope: Envelope


class HubClient:
    """A connection to the hub. Use it as a context, or `close` it.

    Args:
        address: `host:port`.
        key: the site's TLS key, PEM.
        certificate: the site's certificate, PEM.
        authority: the hub's authority, PEM; no other is trusted.
        patience_s: how long a call keeps trying while the hub does not answer.
        stall_s: how long a transfer may make no progress.
    """

    def __init__(
        self,
        address: str,
        *,
        key: bytes,
        certificate: bytes,
        authority: bytes,
        patience_s: float = 30.0,
        stall_s: float = STALL_S,
    ) -> None:
        self._address, self._authority = address, authority
        self._patience_s, self._stall_s = patience_s, stall_s
        self._former: list[grpc.Channel] = []
        self._channel = self._opened(key, certificate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and every call on it."""
        for channel in (*self._former, self._channel):
            channel.close()

    def renew(self, key: bytes, certificate: bytes) -> None:
        """Calls with another certificate from now on; a call under way ends as it began."""
        former, self._channel = self._channel, self._opened(key, certificate)
        self._former.append(former)

    def status(self) -> HubStatus:
        """The hub's name, version and clock.

        Raises:
            BractError: `unreachable`, `certificate`, `unknown-site`.
        """
        reply = self._unary("Status", pb.StatusRequest())
        return HubStatus(reply.hub, reply.version, utc(reply.at))

    def proposals(self, wait_s: float = 20.0) -> list[Offer]:
        """Rounds that the hub proposes; waits up to `wait_s` seconds (20 at most) for one.

        Raises:
            BractError: as `status`; `malformed`.
        """
        reply = self._unary("Proposals", pb.ProposalsRequest(wait_s=wait_s), CALL_S + wait_s)
        return [Offer(parse_envelope(p.proposal), parse_envelope(p.campaign)) for p in reply.proposals]

    def clear(self, clearance: Envelope) -> None:
        """Sends a signed `Clearance`."""
        self._say("Clear", clearance)

    def reserve(self, reservation: Envelope) -> None:
        """Sends a signed `Reservation`."""
        self._say("Reserve", reservation)

    def refuse(self, refused: Envelope) -> None:
        """Sends a signed `Refusal`."""
        self._say("Refuse", refused)

    def withdraw(self, notice: Envelope) -> None:
        """Sends a signed `WithdrawalNotice`."""
        self._say("Withdraw", notice)

    def relinquish(self, statement: Envelope) -> None:
        """Sends a signed `Relinquishment`."""
        self._say("Relinquish", statement)

    def declare(self, terms: Envelope) -> None:
        """Sends signed `DatasetTerms`."""
        self._say("Declare", terms)

    def receipts(self, after: int = 0) -> list[Receipt]:
        """This site's receipts with a number above `after`, oldest first; signatures are the caller's to verify.

        Raises:
            BractError: as `status`; `malformed`.
        """
        reply = self._unary("Receipts", pb.ReceiptsRequest(after=after))
        return [Receipt(r.number, parse_envelope(r.envelope)) for r in reply.receipts]

    def witness(self, word: Word) -> Reply:
        """Shows the site's log to the hub, and gets the hub's; tried once, since the next poll comes by itself.

        Raises:
            BractError: `log-forked` when the hub saw another history of this site's log; others as `status`.
        """
        with refusals():
            return reply_value(unary_call(self._channel, "Witness")(word_message(word), timeout=CALL_S))

    def wanted(self, campaign: Digest, number: int) -> bool:
        """Whether a round still runs; yes while the hub is away or has trouble of its own, since it may come back to it."""
        try:
            reply = unary_call(self._channel, "Wanted")(
                pb.WantedRequest(campaign=campaign, number=number), timeout=CALL_S
            )
        except grpc.RpcError as error:
            return refusal(error).code != UNKNOWN_SITE
        return bool(reply.wanted)

    def put(self, path: Path, digest: Digest) -> None:
        """Sends a file that has this digest; what the hub has of it already is not sent again.

        Raises:
            BractError: `digest-mismatch`, `too-large`, `disk` and others as the hub refuses; `unreachable`.
        """
        size = path.stat().st_size
        held, busy = 0, 0

        def attempt() -> None:
            nonlocal held, busy
            there = self._stat(digest)
            if there.complete:
                return
            held = there.bytes if busy < _BUSY_TIMES and there.bytes <= size else 0
            header = pack_header(pb.PutHeader(digest=digest, size=size, offset=held))
            try:
                self._send(header, packed(path, held))
            except grpc.RpcError as error:
                code = refusal(error).code
                busy += code == CONCURRENT
                # the part is still held by the line that broke, or was spoilt and is gone: once more
                if held and code in (CONCURRENT, DIGEST_MISMATCH):
                    raise BractError(UNREACHABLE) from error
                raise

        self._retried(attempt, lambda: held)

    def get(self, digest: Digest, size: int, path: Path) -> None:
        """Fetches an array to `path`, which appears only when every byte is right; a cut one is continued.

        Args:
            digest: of the whole file.
            size: of the whole file, in bytes; more is not kept.
            path: in a folder that is there; `path.part` beside it holds what has arrived.

        Raises:
            BractError: `digest-mismatch`, `too-large`, `disk`, `unreachable` and others as the hub refuses.
        """
        part = path.with_name(f"{path.name}.part")

        def attempt() -> None:
            offset = min(part.stat().st_size, size) if part.exists() else 0
            get: Any = self._channel.unary_stream(f"/{ARRAYS}/Get", pb.GetRequest.SerializeToString, unpack)
            call = get(pb.GetRequest(digest=digest, offset=offset))
            try:
                with watched(call.cancel, self._stall_s, time.monotonic) as moved:
                    receive(part, path, digest, size, _told(call, moved), offset=offset)
            except BractError as error:
                if error.code == DIGEST_MISMATCH and offset:
                    raise BractError(UNREACHABLE) from error  # the kept part was bad and is gone: once more
                raise
            finally:
                call.cancel()

        self._retried(attempt, lambda: part.stat().st_size if part.exists() else 0)

    def stat(self, digest: Digest) -> tuple[bool, int]:
        """Whether the hub has the whole array, and how many bytes of it.

        Raises:
            BractError: as `status`.
        """
        reply = self._retried(lambda: self._stat(digest))
        return reply.complete, reply.bytes

    def _opened(self, key: bytes, certificate: bytes) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self._authority, key, certificate)
        return grpc.secure_channel(self._address, credentials, CLIENT_OPTIONS)

    def _send(self, header: bytes, chunks: Iterator[bytes]) -> None:
        put: grpc.StreamUnaryMultiCallable[bytes, pb.PutReply] = self._channel.stream_unary(
            f"/{ARRAYS}/Put", None, pb.PutReply.FromString
        )

        def cut() -> None:
            call.cancel()

        with watched(cut, self._stall_s, time.monotonic) as moved:
            call = put.future(itertools.chain([header], _told(chunks, moved)))
            try:
                call.result()
            except grpc.FutureCancelledError as error:
                raise BractError(UNREACHABLE, "the hub takes nothing any more") from error

    def _stat(self, digest: Digest) -> pb.StatReply:
        reply: pb.StatReply = unary_call(self._channel, "Stat")(pb.StatRequest(digest=digest), timeout=CALL_S)
        return reply

    def _say(self, method: str, envelope: Envelope) -> None:
        self._unary(method, pb.Signed(envelope=envelope.to_json()))

    def _unary(self, method: str, request: Any, timeout_s: float = CALL_S) -> Any:
        call = unary_call(self._channel, method)
        return self._retried(lambda: call(request, timeout=timeout_s))

    def _retried(self, attempt: Callable[[], _T], progress: Callable[[], int] = lambda: 0) -> _T:
        return retried(attempt, self._patience_s, progress)


def connect(home: SiteHome, at: datetime, patience_s: float = 30.0) -> HubClient:
    """The line to the hub that the site is enrolled with.

    Raises:
        BractError: `not-enrolled`; `certificate` when the site's own has expired; `key-permissions`.
    """
    bundle = home.bundle()
    check_time(load_certificate(bundle.certificate.encode()), at)
    return HubClient(
        bundle.wire,
        key=read_private(home.tls_key_file),
        certificate=bundle.certificate.encode(),
        authority=bundle.authority.encode(),
        patience_s=patience_s,
    )


def _told(chunks: Iterable[_Bytes], moved: Callable[[int], None]) -> Iterator[_Bytes]:
    for chunk in chunks:
        yield chunk
        moved(len(chunk))
