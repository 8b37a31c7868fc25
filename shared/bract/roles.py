"""Who may ask what: one table of roles, for both sides. What is not in it is refused.

At a command line the role is `owner` (hub) or `site` (steward): whoever can run it holds that side's keys anyway, so there the
table keeps honest people honest and says in the access log who they were. Over HTTP the role is the token's.
"""

from enum import StrEnum

from bract.errors import FORBIDDEN, BractError
from bract.question import QUESTIONS


class Role(StrEnum):
    """What somebody is to the registry."""

    OWNER = "owner"
    """Holds a hub's folder: gives and takes access."""
    OPERATOR = "operator"
    """Runs campaigns."""
    AUDITOR = "auditor"
    """Asks everything; changes nothing."""
    DPO = "dpo"
    """A data protection officer: an auditor who may also see what a site holds of one person."""
    SITE = "site"
    """At its own registry, the steward; at the hub, a site that sees what it said itself and nothing of the others."""


class Verb(StrEnum):
    """What can be done besides asking one of the fifteen."""

    TOKENS = "tokens"
    """Give out and revoke access tokens."""
    LINEAGE = "lineage"
    PROOFS = "proofs"
    """Checkpoints and proofs of the log."""
    PERSON = "person"
    """At a site: what the registry holds of one person, and lists by number."""


_ALL = frozenset(QUESTIONS)
_BY_SITE = frozenset({3, 5, 8, 9, 13})

_HUB: dict[Role, frozenset[int | Verb]] = {
    Role.OWNER: _ALL | frozenset({Verb.TOKENS, Verb.LINEAGE, Verb.PROOFS}),
    Role.AUDITOR: _ALL | frozenset({Verb.LINEAGE, Verb.PROOFS}),
    Role.DPO: _ALL | frozenset({Verb.LINEAGE, Verb.PROOFS}),
    Role.OPERATOR: frozenset({3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 15, Verb.LINEAGE, Verb.PROOFS}),
    Role.SITE: _BY_SITE | frozenset({Verb.PROOFS}),
}

_SITE: dict[Role, frozenset[int | Verb]] = {
    Role.SITE: _ALL | frozenset({Verb.PERSON, Verb.PROOFS}),
    Role.DPO: _ALL | frozenset({Verb.PERSON, Verb.PROOFS}),
    Role.AUDITOR: _ALL | frozenset({Verb.PROOFS}),
    Role.OPERATOR: frozenset({3, Verb.PROOFS}),
    Role.OWNER: frozenset({3, Verb.PROOFS}),
}


def may(role: Role, what: int | Verb, *, at_site: bool = False) -> bool:
    """Whether the role may ask that question, or do that, at a hub or at a site."""
    return what in (_SITE if at_site else _HUB)[role]


def check(role: Role, what: int | Verb, *, at_site: bool = False) -> None:
    """The same, as a refusal.

    Raises:
        BractError: `forbidden`.
    """
    if not may(role, what, at_site=at_site):
        told = f"question {what}" if isinstance(what, int) else str(what)
        raise BractError(FORBIDDEN, f"{told} is not for the role {role}")
