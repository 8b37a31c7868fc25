"""What publishers say about mining is kept as it was said, and read anew each time."""

from datetime import UTC, datetime

import pytest

from bract.model import Signal

AT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("source", "raw", "reserved"),
    [
        # W3C TDM Reservation Protocol: a header, and /.well-known/tdmrep.json
        ("tdmrep", "tdm-reservation: 1", True),
        ("tdmrep", "TDM-Reservation: 0", False),
        ("tdmrep", '[{"location": "/a", "tdm-reservation": 0}, {"location": "/b", "tdm-reservation": 1}]', True),
        ("tdmrep", "<html>not found</html>", None),
        # IETF aipref: Content-Usage
        ("aipref", "Content-Usage: train-ai=n", True),
        ("aipref", "Content-Usage: train-ai=y, search=y", False),
        ("aipref", "Content-Usage: bots=n", None),
        ("none", "", None),
    ],
)
def test_reservations_are_read_from_the_raw_words(source: str, raw: str, reserved: bool | None) -> None:
    assert Signal(source, raw, AT).reserved is reserved  # type: ignore[arg-type]
