"""What the falsifier finds for an objective of the catalogue, once a session."""

from functools import cache

from bract.dpsgd.falsifier import Report
from bract.dpsgd.falsify import certify
from bract.objectives.certificate import Certificate

RENEW = "renew it: python -m bract.dpsgd.falsify --all --write"


@cache
def measured(kind: str) -> tuple[Certificate, list[Report]]:
    """A certificate made now, and the reports behind it."""
    return certify(kind)
