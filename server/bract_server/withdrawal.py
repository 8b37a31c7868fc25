"""What a withdrawal means for a model that was trained before it.

Nothing is ever called erased. A version either carries a bound on what it can have learnt of the subject, or not.
"""

from collections.abc import Iterable
from enum import StrEnum

from bract.objectives.spec import PrivacyStructure


class Effect(StrEnum):
    """What is known of a withdrawn subject's influence on a version."""

    BOUNDED = "bounded-by-dp"
    """Every part that this site has in the version was trained privately: (ε, δ) of its mechanisms bounds it."""
    UNBOUNDED = "without-dp"
    """At least one part has no guarantee."""


def effect(parts: Iterable[tuple[PrivacyStructure, bool]]) -> Effect:
    """The effect on a version, from all contributions of the subject's site in it.

    Args:
        parts: of each, how a subject moves the sum under its objective, and whether its noise was really random.
    """
    private = all(noisy and structure is not PrivacyStructure.NONE for structure, noisy in parts)
    return Effect.BOUNDED if private else Effect.UNBOUNDED
