"""Conditions that a permit may carry, and what must be known of a use for them to hold.

Codes are GA4GH DUO's data use modifiers (EBISPOT/DUO `duo.csv` at commit 726b06e, CC BY 4.0), and DUO:0000007 with the
diseases that it names. A condition holds only if it is known to hold: what is not known of a use does not satisfy it. Codes
of diseases, regions and names are compared as they are written; a region does not contain another.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field

from bract.errors import MALFORMED, BractError
from bract.value import strict, utc
from bract.vocabulary.purposes import ANCESTRY, ANY_USE, DISEASE, HEALTH, term

TIME_LIMIT = "DUO:0000025"
"""Its value is the ISO 8601 moment at which the permit ends; it becomes the event's own end."""

Word = Annotated[str, Field(min_length=1, max_length=128)]


@strict
@dataclass(frozen=True)
class Modifier:
    """One condition of a permit: a code, and what it names (diseases, regions, users …)."""

    code: Word
    values: tuple[Word, ...] = ()


@strict
@dataclass(frozen=True)
class UseContext:
    """What is known of a use of data: stated by the site, which answers for it. Nothing stated satisfies no condition.

    Attributes:
        kinds: purposes of the vocabulary that the use is an instance of, such as `DUO:0000006` or `dpv:ScientificResearch`.
        diseases: what it is about, in the codes that consents name (MONDO, ICD …); empty when not known.
        regions: ISO 3166 codes of everywhere that it takes place; empty when not known.
        users: names of all who use the data; empty when not known.
        projects: names of the projects that it belongs to.
        institutions: names of all institutions that use the data.
        methods: whether it is methods development. Pretraining an encoder is, so this is true unless a site knows better.
        ancestry: whether it studies population origins or ancestry.
        genetic: whether it is a genetic study.
        non_profit: whether only not-for-profit organisations use the data.
        commercial: whether the use is commercial.
        met: codes of obligations that are met (ethics approval, publication, collaboration, return of results, moratorium).
    """

    kinds: tuple[Word, ...] = ()
    diseases: tuple[Word, ...] = ()
    regions: tuple[Word, ...] = ()
    users: tuple[Word, ...] = ()
    projects: tuple[Word, ...] = ()
    institutions: tuple[Word, ...] = ()
    methods: bool | None = True
    ancestry: bool | None = None
    genetic: bool | None = None
    non_profit: bool | None = None
    commercial: bool | None = None
    met: tuple[Word, ...] = ()


Test = Callable[[tuple[str, ...], UseContext], bool]


@dataclass(frozen=True)
class ModifierTerm:
    """A condition of the vocabulary: its DUO code, short name and label, and when it holds.

    `values` says whether a modifier of this code must name something.
    """

    code: str
    short: str
    label: str
    holds: Test
    values: bool = False


def _within(known: tuple[str, ...], allowed: tuple[str, ...]) -> bool:
    return bool(known) and set(known) <= set(allowed)


def _met(code: str) -> Test:
    return lambda _, use: code in use.met


def _never(_: tuple[str, ...], __: UseContext) -> bool:
    return False


def _always(_: tuple[str, ...], __: UseContext) -> bool:
    return True


MODIFIERS: tuple[ModifierTerm, ...] = (
    ModifierTerm(DISEASE, "DS", "disease specific research", lambda v, u: _within(u.diseases, v), values=True),
    ModifierTerm("DUO:0000012", "RS", "research specific restrictions", _never, values=True),
    ModifierTerm("DUO:0000015", "NMDS", "no general methods research", lambda _, u: u.methods is False),
    ModifierTerm("DUO:0000016", "GSO", "genetic studies only", lambda _, u: u.genetic is True),
    ModifierTerm(
        "DUO:0000018",
        "NPUNCU",
        "not for profit, non commercial use only",
        lambda _, u: u.non_profit is True and u.commercial is False,
    ),
    ModifierTerm("DUO:0000019", "PUB", "publication required", _met("DUO:0000019")),
    ModifierTerm("DUO:0000020", "COL", "collaboration required", _met("DUO:0000020")),
    ModifierTerm("DUO:0000021", "IRB", "ethics approval required", _met("DUO:0000021")),
    ModifierTerm("DUO:0000022", "GS", "geographical restriction", lambda v, u: _within(u.regions, v), values=True),
    ModifierTerm("DUO:0000024", "MOR", "publication moratorium", _met("DUO:0000024")),
    # The rule ends the permit at the limit; until then it holds.
    ModifierTerm(TIME_LIMIT, "TS", "time limit on use", _always, values=True),
    ModifierTerm("DUO:0000026", "US", "user specific restriction", lambda v, u: _within(u.users, v), values=True),
    ModifierTerm("DUO:0000027", "PS", "project specific restriction", lambda v, u: _within(u.projects, v), values=True),
    ModifierTerm(
        "DUO:0000028", "IS", "institution specific restriction", lambda v, u: _within(u.institutions, v), values=True
    ),
    ModifierTerm("DUO:0000029", "RTN", "return to database or resource", _met("DUO:0000029")),
    # Allows care as well, and restricts nothing.
    ModifierTerm("DUO:0000043", "CC", "clinical care use", _always),
    ModifierTerm(
        "DUO:0000044", "NPOA", "population origins or ancestry research prohibited", lambda _, u: u.ancestry is False
    ),
    ModifierTerm("DUO:0000045", "NPU", "not for profit organisation use only", lambda _, u: u.non_profit is True),
    ModifierTerm("DUO:0000046", "NCU", "non-commercial use only", lambda _, u: u.commercial is False),
)
"""Every condition."""

_BY_CODE = {one.code: one for one in MODIFIERS}


def modifier_term(code: str) -> ModifierTerm:
    """The condition of that code.

    Raises:
        BractError: `malformed` for a code that the vocabulary does not have.
    """
    if code not in _BY_CODE:
        raise BractError(MALFORMED, "modifier: not in the vocabulary")
    return _BY_CODE[code]


def modifier(code: str, values: Iterable[str] = ()) -> Modifier:
    """The condition with what it names, sorted.

    Raises:
        BractError: `malformed` for an unknown code, for one that must name something and does not or the other way round,
            and for a time limit that is not one moment.
    """
    about, found = modifier_term(code), tuple(sorted(set(values)))
    if about.values != bool(found) or any(not 0 < len(value) <= 128 for value in found):
        raise BractError(MALFORMED, f"modifier {about.short}: {'names nothing' if about.values else 'names something'}")
    if code == TIME_LIMIT:
        if len(found) != 1:
            raise BractError(MALFORMED, "modifier TS: more than one moment")
        utc(found[0])
    return Modifier(code, found)


def limit(modifiers: Iterable[Modifier]) -> datetime | None:
    """When the first time limit among the conditions is reached, None without one."""
    return min((utc(value) for one in modifiers if one.code == TIME_LIMIT for value in one.values), default=None)


def satisfied(purpose: str, modifiers: Iterable[Modifier], use: UseContext) -> bool:
    """Whether a permit of this purpose under these conditions counts for a use.

    Raises:
        BractError: `malformed` for a purpose or condition that the vocabulary does not have.
    """
    conditions = tuple(modifiers)
    if not all(modifier_term(one.code).holds(one.values, use) for one in conditions):
        return False
    if not term(purpose).stated:
        return True
    if purpose == ANY_USE:
        return False
    if purpose == DISEASE:
        return any(one.code == DISEASE for one in conditions)
    if purpose == HEALTH:
        return (HEALTH in use.kinds or bool(use.diseases)) and ANCESTRY not in use.kinds
    return purpose in use.kinds
