"""A version is bounded only if every part of the site in it is."""

import pytest

from bract.objectives.spec import PrivacyStructure
from bract_server.withdrawal import Effect, effect

PRIVATE, SEEDED = (PrivacyStructure.PER_RECORD, True), (PrivacyStructure.PER_RECORD, False)
PLAIN = (PrivacyStructure.NONE, True)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([PRIVATE], Effect.BOUNDED),
        ([PRIVATE, PRIVATE], Effect.BOUNDED),
        ([SEEDED], Effect.UNBOUNDED),
        ([PRIVATE, PLAIN], Effect.UNBOUNDED),
        ([PLAIN, PRIVATE], Effect.UNBOUNDED),
    ],
)
def test_one_part_without_a_guarantee_is_enough(parts: list[tuple[PrivacyStructure, bool]], expected: Effect) -> None:
    assert effect(parts) is expected
