"""Whom a FHIR resource is about: one person under the one kind of name that the site declared, or nobody."""

from collections.abc import Iterable, Mapping
from typing import Any

from bract_client.handles import plausible
from bract_client.sources.consent_mapping import FhirMapping
from bract_client.sources.record import BadLine, Reason

Json = Mapping[str, Any]


class People:
    """The Patient resources that came along, by the names under which others refer to them."""

    def __init__(self, mapping: FhirMapping, patients: Iterable[tuple[str | None, Json]] = ()) -> None:
        """`patients` are the full URL in a bundle, if there is one, and the resource."""
        self._mapping = mapping
        self._known: dict[str, set[str]] = {}
        for url, patient in patients:
            found = self._values(patient)
            for name in {url, f"Patient/{patient.get('id')}"} - {None}:
                self._known.setdefault(str(name), set()).update(found)

    def subject(self, reference: Any, resource: Json) -> str:
        """The identifier of the person that a reference means.

        Raises:
            BadLine: when it means nobody that we can tell, or might mean two.
        """
        if not isinstance(reference, dict) or reference.get("type") not in (None, "Patient"):
            raise BadLine(Reason.AMBIGUOUS_SUBJECT)
        target = reference.get("reference")
        if target is not None and not isinstance(target, str):
            raise BadLine(Reason.AMBIGUOUS_SUBJECT)
        local = (target or "").partition("/_history/")[0]
        if "/" in local and local.rsplit("/", 2)[-2] != "Patient":
            raise BadLine(Reason.AMBIGUOUS_SUBJECT)
        found = {self._logical(target)} if self._mapping.subject == "reference" else self._named(reference, resource)
        if len(found) != 1:
            raise BadLine(Reason.AMBIGUOUS_SUBJECT)
        person = found.pop()
        if person is None:
            raise BadLine(Reason.AMBIGUOUS_SUBJECT)
        if not plausible(person):
            raise BadLine(Reason.BAD_SUBJECT_ID)
        return person

    def _logical(self, target: str | None) -> str | None:
        """The id in `Patient/ID`, on the declared server or relative to it; a version is the same person's."""
        local = (target or "").partition("/_history/")[0]
        server = (self._mapping.server or "").rstrip("/")
        if server:
            local = local.removeprefix(f"{server}/")
        kind, slash, name = local.partition("/")
        return name if slash and kind == "Patient" and "/" not in name else None

    def _named(self, reference: Json, resource: Json) -> set[str | None]:
        """Every identifier of the declared system that the reference leads to."""
        found: set[str | None] = set(self._values({"identifier": [reference.get("identifier")]}))
        target = (reference.get("reference") or "").partition("/_history/")[0]
        if target.startswith("#"):
            for inner in resource.get("contained") or ():
                if inner.get("resourceType") == "Patient" and f"#{inner.get('id')}" == target:
                    found.update(self._values(inner))
        else:
            found.update(self._known.get(target, ()))
        return found

    def _values(self, patient: Json) -> set[str]:
        return {
            str(one.get("value"))
            for one in patient.get("identifier") or ()
            if isinstance(one, dict) and one.get("system") == self._mapping.system and isinstance(one.get("value"), str)
        }
