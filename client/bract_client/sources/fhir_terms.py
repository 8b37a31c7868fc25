"""What codes in FHIR Consent resources mean in our vocabulary: pinned, cited, and no more than is certain.

HL7's ActReason (terminology.hl7.org, CodeSystem v3-ActReason) is what R4B and R5 suggest for purposes; DUO and DPV terms
are our own vocabulary's. A code that neither this table nor the site's mapping has is unknown: its resource is set aside.
"""

from collections.abc import Iterable

from bract.vocabulary.purposes import TERMS, Scheme, known, named
from bract_client.sources.consent_mapping import Coding

ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
OURS = "urn:bract:purpose"

_DUO = frozenset({"http://purl.obolibrary.org/obo/duo.owl", "http://purl.obolibrary.org/obo/"})
_DPV = frozenset({"https://w3id.org/dpv", "https://w3id.org/dpv#"})

_REASONS: dict[str, tuple[str, ...]] = {
    # healthcare research; what DUO calls health or medical or biomedical research
    "HRESCH": ("DUO:0000006",),
    # nothing of these is a use of ours
    "TREAT": (),
    "ETREAT": (),
    "HPAYMT": (),
    "HMARKT": (),
}

BASES: dict[str, bool] = {"OPTIN": True, "OPTINR": True, "OPTOUT": False, "OPTOUTE": False}
"""Of ActCode's base policies (R4B `policyRule`) whether they permit."""

_WORDS = frozenset(one.code for one in TERMS if one.scheme is Scheme.LOCAL)

Table = dict[tuple[str, str, str], tuple[str, ...]]


def table(codings: Iterable[Coding]) -> Table:
    """(element, system, code) to purposes, as the site's mapping states it."""
    return {(one.element, one.system, one.code): tuple(named(code) for code in one.purposes) for one in codings}


def purposes(own: Table, element: str, system: object, code: object) -> tuple[str, ...] | None:
    """The purposes that a coding stands for; none of ours is an empty tuple, an unknown coding None."""
    if not isinstance(system, str) or not isinstance(code, str):
        return None
    if (element, system, code) in own:
        return own[element, system, code]
    if element != "purpose":
        return None
    if system == ACT_REASON:
        found = _REASONS.get(code)
        return None if found is None else tuple(named(one) for one in found)
    if system in _DUO:
        code = code.replace("DUO_", "DUO:", 1)
    elif system in _DPV:
        code = f"dpv:{code}"
    elif system != OURS or code not in _WORDS:
        return None
    return (named(code),) if known(code) else None
