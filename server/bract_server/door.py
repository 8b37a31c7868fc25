"""What the hub answers to one call: who is calling, may it, and what is said back.

Rules:
    1. Only who holds a certificate of the hub's own authority gets past the handshake.
    2. A certificate speaks for the one site that it names, if the registry knows that very certificate for that site.
    3. A certificate that expired after the handshake speaks for nobody.
    4. What a site signs may speak of that site only.
    5. A site gets and puts only the arrays that the registry lets it.
    6. No site has more than a few calls under way.
    7. A refusal carries its code and no text; any other error carries `hub-failed` and stays in the hub's log.
    8. A site whose log does not continue what the hub saw of it clears and reserves nothing until somebody lifts that.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol, TypeVar

import grpc
from cryptography import x509

import bract
from bract.digest import Digest, parse_digest
from bract.errors import CERTIFICATE, CONCURRENT, HUB_FAILED, MALFORMED, UNKNOWN_SITE, UNTRUSTED, BractError
from bract.identity import certificate_fingerprint, certificate_site, check_issued, load_certificate
from bract.log.witness import Reply, Word
from bract.signing import Envelope, parse_envelope, payload_type
from bract.update import Clearance, Refusal, Relinquishment, Reservation, WithdrawalNotice
from bract.value import decode
from bract.wire import hub_pb2 as pb
from bract.wire.channel import ARRAYS, REGISTRY, unary_handler
from bract.wire.chunks import packed, unpack_put
from bract.wire.refusals import refuse
from bract.wire.witnessing import reply_message, word_value
from bract_server.arrays import ArrayStore

_LOG = logging.getLogger(__name__)

LONGEST_WAIT_S = 20.0
CALLS_A_SITE = 16
_LOOK_EVERY_S = 0.25

_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")


class HubDoor(Protocol):
    """What the door asks of the registry. Every method may raise `BractError`, and the site is told its code.

    The door has checked that the payload names `site`; the registry checks the signature with that site's key.
    """

    def site_of_certificate(self, fingerprint: Digest) -> str:
        """The site that holds this certificate; `unknown-site` when nobody does or the site was revoked."""
        ...

    def proposals(self, site: str, at: datetime) -> list[tuple[bytes, bytes]]:
        """Open proposals to the site: pairs of signed `Proposal` and signed `CampaignPlan`, as envelopes' JSON."""
        ...

    def clear(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Takes a signed `Clearance`."""
        ...

    def reserve(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Takes a signed `Reservation`."""
        ...

    def refuse(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Takes a signed `Refusal`."""
        ...

    def withdraw(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Takes a signed `WithdrawalNotice`."""
        ...

    def relinquish(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Takes a signed `Relinquishment`."""
        ...

    def receipts(self, site: str, after: int) -> list[tuple[int, bytes]]:
        """The site's receipts numbered above `after`: pairs of number and envelope's JSON, oldest first."""
        ...

    def wanted(self, campaign: Digest, number: int) -> bool:
        """Whether this round of this campaign runs now."""
        ...

    def witness(self, site: str, word: Word, at: datetime) -> Reply:
        """Judges the site's log and shows the hub's; `log-forked` when the site's does not continue what was seen."""
        ...

    def check_fork(self, site: str) -> None:
        """Returns if nothing is held against the site's log; else `log-forked`."""
        ...

    def may_get(self, site: str, digest: Digest, at: datetime) -> None:
        """Returns if the site may read this array now."""
        ...

    def may_put(self, site: str, digest: Digest, size: int, at: datetime) -> None:
        """Returns if the site may send this array now."""
        ...

    def seen(self, site: str, at: datetime) -> None:
        """The site has called."""
        ...


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
        waiting: int,
    ) -> None:
        self._door, self._store, self._hub = door, store, hub
        self._authority, self._clock = authority, clock
        self._waiting = threading.BoundedSemaphore(max(1, waiting))
        self._slots: dict[str, threading.BoundedSemaphore] = {}
        self.stopping = threading.Event()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Both services, by the names in `hub.proto`."""
        registry = {
            "Proposals": unary_handler("Proposals", self._guarded(self._proposals)),
            "Receipts": unary_handler("Receipts", self._guarded(self._receipts)),
            "Wanted": unary_handler("Wanted", self._guarded(self._wanted)),
            "Witness": unary_handler("Witness", self._guarded(self._witness)),
            "Status": unary_handler("Status", self._guarded(self._status)),
        }
        for name, cls, take in (
            ("Clear", Clearance, self._unforked(self._door.clear)),
            ("Reserve", Reservation, self._unforked(self._door.reserve)),
            ("Refuse", Refusal, self._door.refuse),
            ("Withdraw", WithdrawalNotice, self._door.withdraw),
            ("Relinquish", Relinquishment, self._door.relinquish),
        ):
            registry[name] = unary_handler(name, self._guarded(self._taking(cls, take)))
        arrays = {
            "Stat": unary_handler("Stat", self._guarded(self._stat)),
            "Put": grpc.stream_unary_rpc_method_handler(
                self._guarded(self._put), unpack_put, pb.PutReply.SerializeToString
            ),
            "Get": grpc.unary_stream_rpc_method_handler(self._get, pb.GetRequest.FromString),
        }
        return (
            grpc.method_handlers_generic_handler(REGISTRY, registry),
            grpc.method_handlers_generic_handler(ARRAYS, arrays),
        )

    def _caller(self, context: grpc.ServicerContext) -> str:
        """The site whose certificate was verified in the handshake (rules 2 and 3)."""
        at = self._clock()
        certificate = load_certificate(_peer_pem(context))
        check_issued(certificate, self._authority, at)
        site = certificate_site(certificate)
        if self._door.site_of_certificate(certificate_fingerprint(certificate)) != site:
            raise BractError(UNKNOWN_SITE)
        self._door.seen(site, at)
        return site

    @contextmanager
    def _turn(self, site: str) -> Iterator[None]:
        """One of the site's few calls at a time, so that no site can take every thread (rule 6)."""
        slots = self._slots.setdefault(site, threading.BoundedSemaphore(CALLS_A_SITE))
        if not slots.acquire(blocking=False):
            raise BractError(CONCURRENT, "the site has too many calls under way")
        try:
            yield
        finally:
            slots.release()

    def _guarded(
        self, call: Callable[[_Request, str, grpc.ServicerContext], _Reply]
    ) -> Callable[[_Request, grpc.ServicerContext], _Reply]:
        def answer(request: _Request, context: grpc.ServicerContext) -> _Reply:
            with _refusing(context):
                site = self._caller(context)
                with self._turn(site):
                    return call(request, site, context)
            raise AssertionError("a refusal returned")

        return answer

    def _taking(
        self, cls: type[Any], take: Callable[[str, Envelope, datetime], None]
    ) -> Callable[[pb.Signed, str, grpc.ServicerContext], pb.Done]:
        def call(request: pb.Signed, site: str, _: grpc.ServicerContext) -> pb.Done:
            take(site, speaking_for(site, cls, request.envelope), self._clock())
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

    def _put(self, messages: Iterator[memoryview | pb.PutHeader], site: str, _: grpc.ServicerContext) -> pb.PutReply:
        header = next(messages, None)
        if not isinstance(header, pb.PutHeader):
            raise BractError(MALFORMED, "a put opens with its header")
        digest = parse_digest(header.digest)
        self._door.may_put(site, digest, header.size, self._clock())
        self._store.receive(digest, header.size, _data(messages), header.offset)
        return pb.PutReply(bytes=header.size)

    def _get(self, request: pb.GetRequest, context: grpc.ServicerContext) -> Iterator[bytes]:
        with _refusing(context):
            site, digest = self._caller(context), parse_digest(request.digest)
            with self._turn(site):
                self._door.may_get(site, digest, self._clock())
                yield from packed(self._store.read(digest), request.offset)


def speaking_for(site: str, cls: type[Any], data: bytes) -> Envelope:
    """The envelope, if it holds a `cls` that names this site (rule 4); its signature is still to be verified.

    Raises:
        BractError: `malformed`; `untrusted` for another kind of value or another site.
    """
    envelope = parse_envelope(data)
    if envelope.payload_type != payload_type(cls):
        raise BractError(UNTRUSTED, f"expected a signed {cls.__name__}")
    if decode(cls, envelope.payload).site != site:
        raise BractError(UNTRUSTED, "a site speaks for itself only")
    return envelope


def _data(messages: Iterator[memoryview | pb.PutHeader]) -> Iterator[memoryview]:
    for message in messages:
        if isinstance(message, pb.PutHeader):
            raise BractError(MALFORMED, "a put has one header")
        yield message


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
