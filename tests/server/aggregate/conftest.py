"""Blocks of a few numbers, so that small updates take several."""

from collections.abc import Iterator

import pytest

from bract_server.aggregate import updates


@pytest.fixture(scope="package")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updates, "BLOCK", 40)
        yield
