"""A certificate is what the falsifier finds in this very code; without a fresh one an objective has no bound."""

import dataclasses
import subprocess
import sys

import pytest

from bract.errors import NO_CERTIFICATE, BractError
from bract.objectives.certificate import (
    FALSIFIER,
    Source,
    certificate,
    certificates,
    check_fresh,
    page,
    source_digest,
)
from bract.objectives.spec import CATALOGUE
from bract.value import decode, encode
from tests.privacy.measured import RENEW


def test_every_objective_of_the_catalogue_has_one_and_nothing_else_has() -> None:
    assert sorted(certificates()) == sorted(CATALOGUE), RENEW


@pytest.mark.parametrize("kind", CATALOGUE)
def test_no_certificate_is_stale(kind: str) -> None:
    try:
        found = certificate(kind)
    except BractError as error:
        pytest.fail(f"{error}; {RENEW}")
    assert found.structure is CATALOGUE[kind].structure
    assert {"dpsgd/engine.py", "dpsgd/bookkeeping/clipper.py", "objectives/batch.py"} <= {s.path for s in found.sources}


def test_changed_code_an_older_falsifier_or_an_unknown_objective_has_none() -> None:
    good = next(iter(certificates().values()))
    first = good.sources[0]
    changed = Source(first.path, source_digest("errors.py"))
    gone = Source("objectives/gone.py", first.digest)
    for bad in (
        dataclasses.replace(good, sources=(changed, *good.sources[1:])),
        dataclasses.replace(good, sources=(*good.sources, gone)),
        dataclasses.replace(good, falsifier=FALSIFIER - 1),
    ):
        with pytest.raises(BractError) as refused:
            check_fresh(bad)
        assert refused.value.code == NO_CERTIFICATE
    with pytest.raises(BractError) as refused:
        certificate("in-batch-contrast")
    assert refused.value.code == NO_CERTIFICATE


def test_a_certificate_survives_its_file() -> None:
    for one in certificates().values():
        assert decode(type(one), encode(one)) == one
    assert page(list(certificates().values())).endswith(b"]\n")


def test_reading_one_loads_no_torch() -> None:
    kind = next(iter(CATALOGUE))
    words = f"import sys; from bract.objectives.certificate import certificates; certificates()[{kind!r}]; "
    subprocess.run([sys.executable, "-c", f"{words}assert 'torch' not in sys.modules"], check=True)
