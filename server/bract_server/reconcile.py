"""The two ledgers side by side: what a site's signed export and the hub's accounts do not say alike."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bract.digest import Digest
from bract.errors import MALFORMED, BractError
from bract.privacy.spec import Mechanism
from bract.signing import Envelope, parse_envelope, unseal
from bract.update import LedgerExport, LedgerLine
from bract.value import decode
from bract_server.accounts import ABORTED, RESERVED, Charge, LedgerAccount

ONLY_HUB, ONLY_SITE = "only at the hub", "only at the site"
OTHER_MECHANISM, OTHER_STATE = "another mechanism", "another state"
UNDERSTATED = "the site says it has spent less"

_OPEN, _SPENT, _BACK = "open", "spent", "given back"


@dataclass(frozen=True)
class Difference:
    """One reservation on which two ledgers differ, or a site's word about its ε; what each says, in words."""

    kind: str
    site: str
    dataset: str
    campaign: Digest
    number: int
    at_hub: str
    at_site: str


@dataclass(frozen=True)
class SiteLedger:
    """A site's whole ledger as it signed it."""

    site: str
    at: datetime
    lines: tuple[LedgerLine, ...]


def read_export(data: bytes, keys: Mapping[str, Ed25519PublicKey]) -> SiteLedger:
    """A site's export: one signed envelope a line, all parts of one moment.

    Args:
        data: the file.
        keys: each site's enrolled key.

    Raises:
        BractError: `malformed` unless it is whole; `untrusted` unless the site that it names signed every part.
    """
    sealed = [parse_envelope(line) for line in data.splitlines() if line.strip()]
    parts = [_part(one, keys) for one in sealed]
    if not parts:
        raise BractError(MALFORMED, "the export is empty")
    first = parts[0]
    if [(p.site, p.at, p.part, p.parts) for p in parts] != [
        (first.site, first.at, place, len(parts)) for place in range(1, len(parts) + 1)
    ]:
        raise BractError(MALFORMED, "the export lacks a part, or has parts of several")
    return SiteLedger(first.site, first.at, tuple(line for part in parts for line in part.lines))


def _part(sealed: Envelope, keys: Mapping[str, Ed25519PublicKey]) -> LedgerExport:
    named = decode(LedgerExport, sealed.payload).site
    if named not in keys:
        raise BractError(MALFORMED, "the export is of a site that is not enrolled here")
    return unseal(LedgerExport, sealed, keys[named])


def differences(accounts: Iterable[LedgerAccount], theirs: SiteLedger, at: datetime) -> tuple[Difference, ...]:
    """What the hub's accounts of one site and the site's own ledger do not say alike, by data set, campaign and round.

    States are compared by what they mean for the budget at `at`: open, spent (committed, settled or expired) or given
    back. A reservation whose time is over is spent, whether or not its ledger has noted it yet.
    """
    hub = {
        (account.dataset, charge.campaign, charge.number): charge
        for account in accounts
        if account.site == theirs.site
        for charge in account.charges
    }
    site = {(line.dataset, line.campaign, line.number): line for line in theirs.lines}
    found = []
    for key in sorted(hub.keys() | site.keys()):
        dataset, campaign, number = key
        charge, line = hub.get(key), site.get(key)
        kind = _kind(charge, line, at)
        if kind is not None:
            told = ("nothing" if charge is None else _told(charge), "nothing" if line is None else _told(line))
            found.append(Difference(kind, theirs.site, dataset, campaign, number, *told))
    return tuple(found)


def _kind(charge: Charge | None, line: LedgerLine | None, at: datetime) -> str | None:
    if charge is None:
        # What never came here and was given back costs nothing, here and there.
        return None if line is None or line.state == ABORTED else ONLY_SITE
    if line is None:
        return ONLY_HUB
    if (charge.mechanism, charge.reservation) != (line.mechanism, line.reservation):
        return OTHER_MECHANISM
    if charge.spent is not None and line.spent is not None and charge.spent != line.spent:
        return OTHER_MECHANISM
    return OTHER_STATE if _meaning(charge, at) != _meaning(line, at) else None


def _meaning(one: Charge | LedgerLine, at: datetime) -> str:
    if one.state == ABORTED:
        return _BACK
    return _OPEN if one.state == RESERVED and one.expires_at > at else _SPENT


def _told(one: Charge | LedgerLine) -> str:
    return f"{one.state}: {_words(one.mechanism)}" + ("" if one.spent is None else f", spent {one.spent.steps} steps")


def _words(mechanism: Mechanism) -> str:
    return f"σ {mechanism.noise_multiplier:g}, q {mechanism.sampling_rate:g}, {mechanism.steps} steps"
