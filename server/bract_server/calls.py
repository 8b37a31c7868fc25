"""What the hub answers to one call: who is calling, may it, and what is said back.

Rules:
    1. Only who holds a certificate of the hub's own authority gets past the handshake.
    2. A certificate speaks for the one site that it names, if the registry knows that very certificate for that site.
    3. A certificate that expired after the handshake speaks for nobody.
    4. What a site signs may speak of that site only.
    5. A site gets and puts only the arrays that the registry lets it.
    6. No site takes more than its limits (`bract_server.limits`); they hold from before its request is read.
    7. A refusal carries its code and no text; any other error carries `hub-failed` and stays in the hub's log.
    8. A site whose log does not continue what the hub saw of it clears and reserves nothing until somebody lifts that.
    9. Nor does a site clear or reserve by a clock that is minutes ahead of the hub's.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

import grpc
from cryptography import x509
from google.protobuf.message import DecodeError, Message

import bract
from bract.digest import parse_digest
from bract.errors import CERTIFICATE, CLOCK, HUB_FAILED, MALFORMED, UNKNOWN_SITE, BractError
from bract.identity import SKEW, certificate_fingerprint, certificate_site, check_issued, load_certificate
from bract.model import DatasetTerms
from bract.signing import Envelope
from bract.update import Clearance, Refusal, Relinquishment, Reservation, WithdrawalNotice
from bract.value import decode
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS, REGISTRY, UNARY, request_handler
from bract.wire.chunks import packed, unpack_put
from bract.wire.refusals import refuse
from bract.wire.witnessing import reply_message, word_value
from bract_server.arrays import ArrayStore
from bract_server.door import HubDoor, speaking_for
from bract_server.limits import Share

_LOG = logging.getLogger(__name__)

LONGEST_WAIT_S = 20.0
_LOOK_EVERY_S = 0.25
_NO_INTEGER = 1 << 63

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")
_Frames = Iterator[bytes]
"""A call's request messages, as they come off the wire: one, but for `Put`."""


class Calls:
    """One method a call; each is told the calling site, which `_caller` has verified."""

    def __init__(
        self,
        door: HubDoor,
        store: ArrayStore,
        *,
        hub: str,
        authority: x509.Certificate,
        clock: Callable[[], datetime],
        share: Share,
        waiting: int,
    ) -> None:
        self._door, self._store, self._hub = door, store, hub
        self._authority, self._clock, self._share = authority, clock, share
        self._waiting = threading.BoundedSemaphore(max(1, waiting))
        self.stopping = threading.Event()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Both services, by the names in `hub.proto`."""
        one: dict[str, Callable[[Any, str, grpc.ServicerContext], Message]] = {
            "Proposals": self._proposals,
            "Receipts": self._receipts,
            "Wanted": self._wanted,
            "Witness": self._witness,
            "Status": self._status,
            "Stat": self._stat,
            "Clear": self._taking(Clearance, self._unforked(self._door.clear), dated="issued_at"),
            "Reserve": self._taking(Reservation, self._unforked(self._door.reserve), dated="reserved_at"),
            "Refuse": self._taking(Refusal, self._door.refuse),
            "Withdraw": self._taking(WithdrawalNotice, self._door.withdraw),
            "Relinquish": self._taking(Relinquishment, self._door.relinquish),
            "Declare": self._taking(DatasetTerms, self._door.declare),
        }
        methods: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {REGISTRY: {}, ARRAYS: {}}
        for name, call in one.items():
            methods[UNARY[name][0]][name] = request_handler(name, self._guarded(self._reading(name, call)))
        methods[ARRAYS]["Put"] = grpc.stream_unary_rpc_method_handler(
            self._guarded(self._put), None, pb.PutReply.SerializeToString
        )
        methods[ARRAYS]["Get"] = grpc.stream_stream_rpc_method_handler(self._get)
        return tuple(grpc.method_handlers_generic_handler(service, named) for service, named in methods.items())

    def _caller(self, context: grpc.ServicerContext) -> str:
        """The site whose certificate was verified in the handshake (rules 2, 3 and 6)."""
        at = self._clock()
        certificate = load_certificate(_peer_pem(context))
        check_issued(certificate, self._authority, at)
        site = certificate_site(certificate)
        self._share.call(site)
        if self._door.site_of_certificate(certificate_fingerprint(certificate)) != site:
            raise BractError(UNKNOWN_SITE)
        with suppress(BractError):  # when a site was last seen is nice to know, and no reason to refuse it
            self._door.seen(site, at)
        return site

    def _guarded(
        self, call: Callable[[_Frames, str, grpc.ServicerContext], _Reply]
    ) -> Callable[[_Frames, grpc.ServicerContext], _Reply]:
        def answer(frames: _Frames, context: grpc.ServicerContext) -> _Reply:
            with _refusing(context):
                site = self._caller(context)
                with self._share.turn(site):
                    return call(frames, site, context)
            raise AssertionError("a refusal returned")

        return answer

    def _reading(
        self, name: str, call: Callable[[_Request, str, grpc.ServicerContext], _Reply]
    ) -> Callable[[_Frames, str, grpc.ServicerContext], _Reply]:
        """Takes a method's one request off the wire; the site already holds its turn, and the request has its time."""
        cls: Any = UNARY[name][1]

        def answer(frames: _Frames, site: str, context: grpc.ServicerContext) -> _Reply:
            with self._share.moving(context.cancel):
                frame = next(frames, None)
            return call(_parsed(cls.FromString, frame), site, context)

        return answer

    def _taking(
        self, cls: type[Any], take: Callable[[str, Envelope, datetime], None], *, dated: str = ""
    ) -> Callable[[pb.Signed, str, grpc.ServicerContext], pb.Done]:
        """Takes a signed `cls`; what is `dated` in the hub's future was dated by a wrong clock (rule 9)."""

        def call(request: pb.Signed, site: str, _: grpc.ServicerContext) -> pb.Done:
            envelope, at = speaking_for(site, cls, request.envelope), self._clock()
            if dated and getattr(decode(cls, envelope.payload), dated) > at + SKEW:
                raise BractError(CLOCK, f"{dated} is ahead of the hub's clock")
            take(site, envelope, at)
            return pb.Done()

        return call

    def _unforked(self, take: Callable[[str, Envelope, datetime], None]) -> Callable[[str, Envelope, datetime], None]:
        """A site takes part in no new round while a fork of its log stands (rule 8)."""

        def call(site: str, envelope: Envelope, at: datetime) -> None:
            self._door.check_fork(site)
            take(site, envelope, at)

        return call

    def _proposals(self, request: pb.ProposalsRequest, site: str, context: grpc.ServicerContext) -> pb.ProposalsReply:
        waits = self._waiting.acquire(blocking=False)
        try:
            until = time.monotonic() + (min(max(request.wait_s, 0.0), LONGEST_WAIT_S) if waits else 0.0)
            found = self._door.proposals(site, self._clock())
            while not found and time.monotonic() < until and context.is_active():
                if self.stopping.wait(_LOOK_EVERY_S):
                    break
                found = self._door.proposals(site, self._clock())
        finally:
            if waits:
                self._waiting.release()
        return pb.ProposalsReply(proposals=[pb.Proposal(proposal=p, campaign=c) for p, c in found])

    def _receipts(self, request: pb.ReceiptsRequest, site: str, _: grpc.ServicerContext) -> pb.ReceiptsReply:
        found = self._door.receipts(site, request.after)
        return pb.ReceiptsReply(receipts=[pb.Receipt(number=n, envelope=e) for n, e in found])

    def _wanted(self, request: pb.WantedRequest, _: str, __: grpc.ServicerContext) -> pb.WantedReply:
        return pb.WantedReply(wanted=self._door.wanted(parse_digest(request.campaign), request.number))

    def _witness(self, request: pb.WitnessRequest, site: str, _: grpc.ServicerContext) -> pb.WitnessReply:
        return reply_message(self._door.witness(site, word_value(request), self._clock()))

    def _status(self, _: pb.StatusRequest, __: str, ___: grpc.ServicerContext) -> pb.StatusReply:
        return pb.StatusReply(hub=self._hub, version=bract.__version__, at=self._clock().isoformat())

    def _stat(self, request: pb.StatRequest, _: str, __: grpc.ServicerContext) -> pb.StatReply:
        # open to every site: who can name a digest has seen the array, and one that may put must see how much arrived
        held = self._store.stat(parse_digest(request.digest))
        return pb.StatReply(complete=held.complete, bytes=held.bytes)

    def _put(self, frames: _Frames, site: str, context: grpc.ServicerContext) -> pb.PutReply:
        with self._share.moving(context.cancel) as moved:
            header = _parsed(unpack_put, next(frames, None))
            if not isinstance(header, pb.PutHeader):
                raise BractError(MALFORMED, "a put opens with its header")
            digest = parse_digest(header.digest)
            self._door.may_put(site, digest, header.size, self._clock())
            with self._share.upload(site, digest, header.size):
                self._store.receive(digest, header.size, _data(frames, moved), header.offset)
        return pb.PutReply(bytes=header.size)

    def _get(self, frames: _Frames, context: grpc.ServicerContext) -> Iterator[bytes]:
        with _refusing(context):
            site = self._caller(context)
            with self._share.turn(site), self._share.moving(context.cancel) as moved:
                request = _parsed(pb.GetRequest.FromString, next(frames, None))
                digest = parse_digest(request.digest)
                self._door.may_get(site, digest, self._clock())
                for message in packed(self._store.read(digest), request.offset):
                    yield message
                    moved(len(message))


def _parsed(parse: Callable[[bytes], _Request], frame: bytes | None) -> _Request:
    """The message in a frame.

    Raises:
        BractError: `malformed` when there is no frame, or another thing in it, or a number that no database holds.
    """
    if frame is None:
        raise BractError(MALFORMED, "the call ended before its request")
    try:
        found = parse(frame)
    except DecodeError as error:
        raise BractError(MALFORMED, "not a message of this method") from error
    if isinstance(found, Message):
        _bounded(found)
    return found


def _bounded(message: Message) -> None:
    """No number is 2^63 or more: the wire's are unsigned, a database's are not."""
    for _, value in message.ListFields():
        if isinstance(value, Message):
            _bounded(value)
        elif isinstance(value, int) and value >= _NO_INTEGER:
            raise BractError(MALFORMED, "a number is 2^63 or more")


def _data(frames: _Frames, moved: Callable[[int], None]) -> Iterator[memoryview]:
    for frame in frames:
        part = _parsed(unpack_put, frame)
        if isinstance(part, pb.PutHeader):
            raise BractError(MALFORMED, "a put has one header")
        moved(len(part))
        yield part


def _peer_pem(context: grpc.ServicerContext) -> bytes:
    # the stubs give these values another type than grpc does
    values: Mapping[str, Sequence[Any]] = context.auth_context()
    match values.get("x509_pem_cert"):
        case [bytes() as pem]:
            return pem
    raise BractError(CERTIFICATE)


@contextmanager
def _refusing(context: grpc.ServicerContext) -> Iterator[None]:
    """Turns errors into refusals (rule 7)."""
    try:
        yield
    except BractError as error:
        _LOG.info("refused: %s", error.code)
        refuse(context, error.code)
    except grpc.RpcError:
        raise  # the caller has gone; there is nobody to tell
    except Exception:  # noqa: BLE001 - the rim: whatever it is, a site must not read it
        _LOG.exception("a call failed")
        refuse(context, HUB_FAILED)
