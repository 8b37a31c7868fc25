"""Purposes: bract's own uses, and the broader terms of GA4GH DUO and W3C DPV that people's consent is often given in.

A purpose covers those below it: a permit of general research covers pretraining, a refusal of it refuses pretraining.
Pinned: DUO as of its `duo.csv` at EBISPOT/DUO commit 726b06e (CC BY 4.0), from no restriction down to one disease as DUO's
matching orders them; the DPV 2.2 module `purposes` (w3c/dpv, `hasbroader`). What places our uses under them is our own
reading. A change here is a change of the consent rule (`bract.consent.RULE_DIGEST`) and needs a migration of both sides.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from bract.errors import MALFORMED, BractError


class Purpose(StrEnum):
    """What a plan may use data for; everything else in the vocabulary is broader."""

    PRETRAINING = "ssl-pretraining"
    FINETUNING = "supervised-finetuning"
    DISTILLATION = "distillation"
    EVALUATION = "evaluation"
    RELEASE_INTERNAL = "release-internal"
    RELEASE_PUBLIC = "release-public"


class Scheme(StrEnum):
    """Whose term it is."""

    LOCAL = "bract"
    DUO = "duo"
    DPV = "dpv"


@dataclass(frozen=True)
class Term:
    """One purpose.

    Attributes:
        code: what events and plans call it.
        parents: codes of the next broader ones; none for the root.
        stated: a permit of it counts only for a use that is known to be of this kind (`UseContext.kinds`); a refusal of
            it counts for every use below it all the same.
    """

    code: str
    label: str
    scheme: Scheme
    parents: tuple[str, ...]
    stated: bool = False

    @property
    def iri(self) -> str:
        """The term's name in the world."""
        match self.scheme:
            case Scheme.DUO:
                return f"http://purl.obolibrary.org/obo/{self.code.replace(':', '_')}"
            case Scheme.DPV:
                return f"https://w3id.org/dpv#{self.code.removeprefix('dpv:')}"
            case Scheme.LOCAL:
                return f"urn:bract:purpose:{self.code}"


ANY_USE = "any-use"
"""The root. A refusal of it refuses everything; a permit of it names no purpose and permits nothing."""
RESEARCH = "research"
RELEASE = "release"
NO_RESTRICTION, GENERAL, HEALTH = "DUO:0000004", "DUO:0000042", "DUO:0000006"
DISEASE, ANCESTRY = "DUO:0000007", "DUO:0000011"
DEVELOPMENT = "dpv:ResearchAndDevelopment"

_DPV_KINDS = {
    "dpv:ScientificResearch": "Scientific Research",
    "dpv:AcademicResearch": "Academic Research",
    "dpv:NonCommercialResearch": "Non-Commercial Research",
    "dpv:CommercialResearch": "Commercial Research",
}
_LOCAL = {
    Purpose.PRETRAINING: "self-supervised pretraining of an encoder",
    Purpose.FINETUNING: "supervised fine-tuning of an encoder",
    Purpose.DISTILLATION: "training of a student from an encoder",
    Purpose.EVALUATION: "evaluation of an encoder",
}

TERMS: tuple[Term, ...] = (
    Term(ANY_USE, "any use", Scheme.LOCAL, (), stated=True),
    Term(NO_RESTRICTION, "no restriction", Scheme.DUO, (ANY_USE,)),
    Term(GENERAL, "general research use", Scheme.DUO, (NO_RESTRICTION,)),
    Term(HEALTH, "health or medical or biomedical research", Scheme.DUO, (GENERAL,), stated=True),
    Term(DISEASE, "disease specific research", Scheme.DUO, (HEALTH,), stated=True),
    Term(ANCESTRY, "population origins or ancestry research only", Scheme.DUO, (GENERAL,), stated=True),
    Term(DEVELOPMENT, "Research and Development", Scheme.DPV, (ANY_USE,)),
    *(Term(code, label, Scheme.DPV, (DEVELOPMENT,), stated=True) for code, label in _DPV_KINDS.items()),
    Term(RESEARCH, "research on models", Scheme.LOCAL, (DISEASE, ANCESTRY, *_DPV_KINDS)),
    *(Term(code.value, label, Scheme.LOCAL, (RESEARCH,)) for code, label in _LOCAL.items()),
    Term(RELEASE, "handing an encoder on", Scheme.LOCAL, (NO_RESTRICTION,)),
    Term(Purpose.RELEASE_INTERNAL.value, "release within the federation", Scheme.LOCAL, (RELEASE,)),
    Term(Purpose.RELEASE_PUBLIC.value, "release to everybody", Scheme.LOCAL, (RELEASE,)),
)
"""Every purpose; broader ones come first."""

_BY_CODE = {term.code: term for term in TERMS}


def known(code: str) -> bool:
    """Whether the vocabulary has this purpose."""
    return code in _BY_CODE


def term(code: str) -> Term:
    """The purpose of that code.

    Raises:
        BractError: `malformed` for a code that the vocabulary does not have.
    """
    if code not in _BY_CODE:
        raise BractError(MALFORMED, "purpose: not in the vocabulary")
    return _BY_CODE[code]


def named(code: str) -> str:
    """The code as a `Purpose` where it is one of our uses.

    Raises:
        BractError: `malformed` for a code that the vocabulary does not have.
    """
    term(code)
    return Purpose(code) if code in _USES else code


@cache
def closure() -> tuple[tuple[str, str, int], ...]:
    """(ancestor, descendant, depth) for every pair where one covers the other, by the shortest way; depth 0 is itself."""
    depths: dict[str, dict[str, int]] = {}
    for one in TERMS:
        above = {one.code: 0}
        for parent in one.parents:
            for code, depth in depths[parent].items():
                above[code] = min(above.get(code, depth + 1), depth + 1)
        depths[one.code] = above
    return tuple((ancestor, code, depth) for code, above in depths.items() for ancestor, depth in sorted(above.items()))


@cache
def ancestors(code: str) -> frozenset[str]:
    """The purpose itself and all that cover it.

    Raises:
        BractError: `malformed` for a code that the vocabulary does not have.
    """
    term(code)
    return frozenset(ancestor for ancestor, descendant, _ in closure() if descendant == code)


@cache
def uses(code: str) -> frozenset[Purpose]:
    """The uses that a purpose covers.

    Raises:
        BractError: `malformed` for a code that the vocabulary does not have.
    """
    term(code)
    return frozenset(Purpose(below) for ancestor, below, _ in closure() if ancestor == code and below in _USES)


_USES = frozenset(one.value for one in Purpose)
