"""One person's consent as a receipt of ISO/IEC TS 27560:2023 in the JSON-LD of W3C DPV's profile `dpv-27560`.

For the person whom it is about, made at the site and kept there no longer than it takes to hand it over. Each decision is
told as it was recorded, also one that a later one corrected; the consent rule is named by its digest and not applied. Fields
that the profile asks for and the registry does not have are `dpv:NotAvailable`.

The profile: "Consent Records and Receipts as per ISO/IEC TS 27560:2023 using DPV", DPVCG; terms are of DPV 2.2.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bract.consent import RULE_DIGEST, Capacity, ConsentEvent, Decision, ends
from bract.export.names import duo_iri, moment
from bract.vocabulary.legal import legal_basis
from bract.vocabulary.purposes import term

CONTEXT = {
    "dpv": "https://w3id.org/dpv#",
    "dct": "http://purl.org/dc/terms/",
    "schema": "https://schema.org/",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "bract": "urn:bract:",
}

PROFILE = "https://w3id.org/dpv/schema/dpv-27560#"

_STATUS = {
    Decision.PERMIT: "dpv:ConsentGiven",
    Decision.DENY: "dpv:ConsentRefused",
    Decision.OBJECT: "dpv:ConsentRefused",
    Decision.WITHDRAW: "dpv:ConsentWithdrawn",
    Decision.EXPIRE: "dpv:ConsentExpired",
    Decision.CORRECT: "dpv:ConsentInvalidated",
}


@dataclass(frozen=True)
class Decided:
    """A decision as the site learnt it; `seq` is its number among all of the site's."""

    seq: int
    event: ConsentEvent
    recorded_at: datetime


def receipt(
    identifier: str,
    subject_id: str,
    site: str,
    decided: Iterable[Decided],
    at: datetime,
    keeps_days: Mapping[str, int | None],
) -> dict[str, Any]:
    """The receipt as JSON-LD.

    Args:
        identifier: a random UUID, so that no digest of the receipt can be found by guessing whose it is.
        subject_id: as the person knows it; it stands in the receipt and nowhere else.
        site: the site's name.
        decided: everything that is known of the person's decisions.
        at: when the receipt is made.
        keeps_days: of each data set, how long a record is kept from its collection; None for no end.
    """
    known = sorted(decided, key=lambda one: one.seq)
    places = {one.seq: place for place, one in enumerate(known, start=1)}
    controller = f"bract:site/{site}"
    groups: dict[tuple[str, str], list[Decided]] = {}
    for one in known:
        groups.setdefault((str(one.event.purpose), one.event.dataset or ""), []).append(one)
    record = {
        "@id": f"urn:uuid:{identifier}#record",
        "@type": "dpv:ConsentRecord",
        "dct:identifier": f"{identifier}#record",
        "dct:conformsTo": f"{PROFILE}record",
        "dpv:hasDataSubject": {"@type": "dpv:DataSubject", "dct:identifier": subject_id},
        "dpv:hasDataController": controller,
        "dpv:hasEntity": {controller: {"@type": ["dpv:DataController"], "dpv:hasName": site}},
        "dpv:hasProcess": [
            _process(purpose, dataset, events, places, controller, keeps_days)
            for (purpose, dataset), events in sorted(groups.items())
        ],
        "bract:consentRule": RULE_DIGEST,
    }
    return {
        "@context": CONTEXT,
        "@id": f"urn:uuid:{identifier}",
        "@type": "dpv:ConsentReceipt",
        "dct:identifier": identifier,
        "dct:conformsTo": f"{PROFILE}receipt",
        "dct:created": moment(at),
        "dct:publisher": controller,
        "schema:recipient": "dpv:DataSubject",
        "dpv:hasRecordOfActivity": record,
    }


def _process(
    purpose: str,
    dataset: str,
    events: list[Decided],
    places: Mapping[int, int],
    controller: str,
    keeps_days: Mapping[str, int | None],
) -> dict[str, Any]:
    about = term(purpose)
    bases = sorted({one.event.evidence.legal_basis for one in events if one.event.evidence.legal_basis})
    concerned = {dataset: keeps_days.get(dataset)} if dataset else dict(keeps_days)
    return {
        "@type": "dpv:Process",
        "dpv:hasPurpose": {"@id": about.iri, "@type": ["dpv:Purpose"], "skos:prefLabel": about.label},
        "dpv:hasScope": f"data set {dataset}" if dataset else "all data sets of the site",
        "dpv:hasLegalBasis": [{"@id": legal_basis(code).iri} for code in bases] or ["dpv:NotAvailable"],
        "dpv:hasPersonalData": ["dpv:NotAvailable"],
        "dpv:hasDataController": [controller],
        # what leaves the site are noised sums over many persons
        "dpv:hasRecipient": [controller],
        "dpv:hasStorageCondition": [_kept(name, days) for name, days in sorted(concerned.items())],
        "dpv:hasConsentStatus": [_status(one, places) for one in events],
    }


def _kept(dataset: str, days: int | None) -> dict[str, Any]:
    duration: dict[str, Any] = {"@type": ["dpv:IndeterminateDuration"]}
    if days is not None:
        duration = {"@type": ["dpv:TemporalDuration"], "rdf:value": f"P{days}D"}
    return {"@type": ["dpv:StorageDuration"], "dpv:hasScope": f"data set {dataset}", "dpv:hasDuration": duration}


def _status(one: Decided, places: Mapping[int, int]) -> dict[str, Any]:
    event, shown = one.event, one.event.evidence
    until = ends(event)
    told: dict[str, Any] = {
        "@type": [_STATUS[event.decision]],
        "skos:prefLabel": event.decision.value,
        "dct:identifier": str(places[one.seq]),
        "dpv:isIndicatedAtTime": moment(event.valid_from),
        "dct:created": moment(one.recorded_at),
    }
    if event.decision is Decision.PERMIT:
        told["dpv:hasDuration"] = (
            {"@type": ["dpv:EndlessDuration"]}
            if until is None
            else {"@type": ["dpv:UntilTimeDuration"], "rdf:value": moment(until)}
        )
    if event.modifiers:
        told["bract:conditions"] = [
            {"@id": duo_iri(modifier.code), "rdf:value": list(modifier.values)} for modifier in event.modifiers
        ]
    if shown.notice is not None:
        told["dpv:hasNotice"] = {"@type": ["dpv:ConsentNotice"], "dpv:hasIdentifier": shown.notice}
    if shown.capacity is not None:
        own = shown.capacity is Capacity.SELF
        told["dpv:isIndicatedBy"] = "dpv:DataSubject" if own else f"bract:capacity/{shown.capacity.value}"
    if shown.digest is not None:
        told["bract:evidence"] = shown.digest
    if event.supersedes is not None:
        told["dct:replaces"] = str(places.get(event.supersedes, "an earlier statement"))
    return told
