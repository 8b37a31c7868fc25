"""What the door of `bract_server.calls` asks of the registry, and the check of a signed word that it hands on."""

from datetime import datetime
from typing import Any, Protocol

from bract.digest import Digest
from bract.errors import UNTRUSTED, BractError
from bract.log.witness import Reply, Word
from bract.signing import Envelope, parse_envelope, payload_type
from bract.value import decode


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

    def declare(self, site: str, envelope: Envelope, at: datetime) -> None:
        """Takes signed `DatasetTerms`."""
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
