"""One FHIR Consent resource, R4B or R5, as what it says of one person; its structure is checked before (`fhir`).

Status [HL7 FHIR R4B and R5, ConsentState]: an active one is read; of an inactive one (ended, or replaced by another) the
refusals stand and the permits end when the resource was last changed; one entered in error never said anything. A
draft, proposed, rejected or unknown one is not in force and is set aside.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from hashlib import sha1
from typing import Any

from bract.consent import Evidence
from bract.digest import Digest, digest
from bract_client.handles import plausible
from bract_client.sources.consent_mapping import FhirMapping, zone
from bract_client.sources.fhir_provision import About, Provision, Window, events
from bract_client.sources.fhir_subject import People
from bract_client.sources.fhir_terms import ACT_CODE, BASES, purposes, table
from bract_client.sources.fhir_time import Edge, fhir_time
from bract_client.sources.record import BadLine, Reason
from bract_client.sources.statement import Moment, Statement

R4B, R5 = "R4B", "R5"

_KINDS: dict[str, bool] = {"permit": True, "deny": False}
_DEPTH = 8
_NOTICE = 128
_HARMLESS = frozenset({"id", "extension", "type", "period", "purpose", "provision"})
_FORMAL = frozenset({"meta", "text", "language"})

Json = Mapping[str, Any]


class ConsentReader:
    """Reads resources by one mapping."""

    def __init__(self, mapping: FhirMapping) -> None:
        self._mapping = mapping
        self._zone: tzinfo | None = zone(mapping.zone)
        self._own = table(mapping.codings)

    def statement(self, number: int, resource: Json, version: str, people: People) -> Statement:
        """What the resource says.

        Args:
            number: its line.
            resource: its JSON, sound in structure.
            version: `R4B` or `R5`.
            people: finds whom it is about.

        Raises:
            BadLine: when it says nothing that we understand, or says it in a way that our rule cannot express.
        """
        if "implicitRules" in resource or _modified(resource):
            raise BadLine(Reason.NOT_EXPRESSIBLE)
        reference = _reference(resource.get("id"))
        evidence = _evidence(resource, self._mapping.legal_basis)
        status = resource.get("status")
        if status == "entered-in-error":
            if reference is None:
                raise BadLine(Reason.BAD_REFERENCE)
            return Statement(number, None, (), reference, evidence)
        if status not in ("active", "inactive"):
            raise BadLine(Reason.NOT_IN_FORCE)
        person = people.subject(resource.get("patient" if version == R4B else "subject"), resource)
        root = self._r4b(resource) if version == R4B else self._r5(resource)
        window = self._window(resource, root, inactive=status == "inactive")
        said = events(root, window, About(self._mapping.dataset, evidence))
        if not said and (status == "active" or reference is None):
            raise BadLine(Reason.NO_PURPOSE)
        return Statement(number, person, said, reference, evidence, ordered=True, changed=self._changed(resource))

    def _changed(self, resource: Json) -> datetime | None:
        """When the server made this version, at the earliest."""
        told = (resource.get("meta") or {}).get("lastUpdated")
        return None if told is None else fhir_time(told, self._zone, Edge.POINT).first

    def _window(self, resource: Json, root: Provision, *, inactive: bool) -> Window:
        """From the period's begin, or when somebody decided; an inactive one permits until its last change."""
        decided = resource.get("dateTime", resource.get("date"))
        begin = root.begin
        if begin is None:
            begin = fhir_time(decided, self._zone, Edge.POINT)
        end = root.end
        if inactive:
            changed = (resource.get("meta") or {}).get("lastUpdated")
            last = begin if changed is None else fhir_time(changed, self._zone, Edge.POINT)
            end = last if end is None else Moment(min(end.first, last.first), min(end.last, last.last))
        return Window(begin, end)

    def _r4b(self, resource: Json) -> Provision:
        """The root's type, or where it has none (as R4B has it) the base policy that the resource names."""
        raw = resource.get("provision") or {}
        codings = (resource.get("policyRule") or {}).get("coding") or ()
        base = {BASES.get(one.get("code")) for one in codings if one.get("system") == ACT_CODE}
        permit = base.pop() if "type" not in raw and len(base) == 1 else _KINDS.get(raw.get("type", ""))
        if permit is None:
            raise BadLine(Reason.NO_DECISION)
        return self._provision(raw, permit, None, 0)

    def _r5(self, resource: Json) -> Provision:
        """A base decision, whose exceptions are all of the opposite kind."""
        permit = _KINDS.get(resource.get("decision") or "")
        if permit is None:
            raise BadLine(Reason.NO_DECISION)
        root = {"period": resource.get("period"), "provision": resource.get("provision") or ()}
        return self._provision({key: value for key, value in root.items() if value}, permit, not permit, 0)

    def _provision(self, raw: Json, permit: bool, inner: bool | None, depth: int) -> Provision:
        """A provision and those within it; `inner` is what R5 says those are, None where each says it itself."""
        if depth > _DEPTH:
            raise BadLine(Reason.NOT_EXPRESSIBLE)
        period = raw.get("period") or {}
        start, end = period.get("start"), period.get("end")
        found, understood = self._purposes(raw)
        return Provision(
            permit,
            found,
            None if start is None else fhir_time(start, self._zone, Edge.START),
            None if end is None else fhir_time(end, self._zone, Edge.END),
            understood,
            tuple(self._inner(raw.get("provision") or (), inner, depth + 1)),
        )

    def _inner(self, children: Any, kind: bool | None, depth: int) -> Iterator[Provision]:
        for child in children:
            permit = _KINDS.get(child.get("type") or "") if kind is None else kind
            if permit is None:
                raise BadLine(Reason.NO_DECISION)
            yield self._provision(child, permit, None if kind is None else not kind, depth)

    def _purposes(self, raw: Json) -> tuple[frozenset[str] | None, bool]:
        """The purposes that a provision names (None: none at all), and whether nothing else limits it."""
        limits = {key for key in raw if not key.startswith("_")} - _HARMLESS
        if "code" in limits and "purpose" not in raw and self._listed(raw["code"]):
            named = [self._concept(concept) for concept in raw["code"]]
            return frozenset(one for part in named for one in part), limits == {"code"}
        if "purpose" not in raw:
            return None, not limits
        codes: set[str] = set()
        for coding in raw["purpose"]:
            meant = purposes(self._own, "purpose", coding.get("system"), coding.get("code"))
            if meant is None:
                raise BadLine(Reason.UNKNOWN_PURPOSE)
            codes.update(meant)
        return frozenset(codes), not limits

    def _listed(self, concepts: Any) -> bool:
        """Whether the mapping says that codes of one of these systems are purposes."""
        systems = {system for element, system, _ in self._own if element == "code"}
        return any(one.get("system") in systems for concept in concepts for one in concept.get("coding") or ())

    def _concept(self, concept: Json) -> tuple[str, ...]:
        """A concept's codings all say the same thing; one that is known is enough, two that differ are not."""
        found = [
            meant
            for one in concept.get("coding") or ()
            if (meant := purposes(self._own, "code", one.get("system"), one.get("code"))) is not None
        ]
        if len({frozenset(one) for one in found}) != 1:
            raise BadLine(Reason.UNKNOWN_PURPOSE)
        return found[0]


def _modified(value: Any) -> bool:
    """Whether an extension anywhere changes what the resource means; whoever does not know it must not read on."""
    if isinstance(value, dict):
        return "modifierExtension" in value or any(_modified(one) for one in value.values())
    return isinstance(value, list) and any(_modified(one) for one in value)


def _reference(name: object) -> str | None:
    if name is None:
        return None
    if not isinstance(name, str) or not plausible(name):
        raise BadLine(Reason.BAD_REFERENCE)
    return name


def _evidence(resource: Json, legal_basis: str | None) -> Evidence:
    """The signed form where it is inside, otherwise the resource itself without what a server adds."""
    content = {key: value for key, value in resource.items() if key not in _FORMAL}
    shown = _form(resource.get("sourceAttachment"))
    if shown is None:
        shown = digest(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())
    named = [one.get("uri") for one in resource.get("policy") or ()]
    basis = resource.get("policyBasis") or {}
    notices = [one for one in (*named, basis.get("url")) if isinstance(one, str)]
    notice = notices[0] if len(notices) == 1 and len(notices[0]) <= _NOTICE and notices[0].isprintable() else None
    return Evidence(legal_basis, shown, notice)


def _form(attachment: Any) -> Digest | None:
    """The digest of an attached form. What FHIR attaches itself is a SHA-1, which must at least fit [Attachment.hash]."""
    first = attachment[0] if isinstance(attachment, list) and len(attachment) == 1 else attachment
    if not isinstance(first, dict) or not isinstance(first.get("data"), str):
        return None
    try:
        data = base64.b64decode(first["data"], validate=True)
        stated = base64.b64decode(first["hash"], validate=True) if isinstance(first.get("hash"), str) else None
    except ValueError as error:
        raise BadLine(Reason.BAD_EVIDENCE) from error
    if stated is not None and stated != sha1(data, usedforsecurity=False).digest():
        raise BadLine(Reason.BAD_EVIDENCE)
    return digest(data)
