"""Each rule for a contribution refuses what it is for, by its code, and nothing that another rule is for."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save

from bract.arrays import Layout, layout_of, to_bytes
from bract.digest import digest
from bract.errors import (
    BAD_ARRAYS,
    NO_CLEARANCE,
    NO_RESERVATION,
    NOT_FINITE,
    OVERSPEND,
    POLICY,
    REPLAY,
    STALE_CLEARANCE,
    TOO_LARGE,
    UNKNOWN_SITE,
    UNTRUSTED,
    BractError,
)
from bract.plan import Place
from bract.privacy.spec import Mechanism
from bract.signing import sign
from bract.update import Contribution
from bract.value import digest_value
from bract_server import verify as rules
from bract_server.arrays import HEADER_ROOM
from bract_server.verify import RULES, Expected

KEY, OTHER_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
P, C, R, X = (digest(text) for text in (b"plan", b"clearance", b"reservation", b"something else"))
ARRAYS = {"bias": np.ones(3, np.float32), "weight": np.ones((2, 3), np.float32)}
FILE = to_bytes(ARRAYS)
LAYOUT: Layout = layout_of(ARRAYS)
GOOD = Contribution("north", P, C, R, Mechanism(1.0, 0.1, 5), digest(FILE), len(FILE))
EXPECTED = Expected(
    place=Place("north", C, R),
    plan=P,
    mechanism=GOOD.spent,
    arrays_bytes=len(FILE),
    max_norm=3.0,
    layout=LAYOUT,
    key=KEY.public_key(),
    live=True,
    taken=frozenset({X}),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """What is wrong; everything that is not named is right."""

    rule: Callable[..., object]
    code: str
    contribution: Contribution = GOOD
    file: bytes | None = FILE
    key: Ed25519PrivateKey = KEY
    expected: Expected = EXPECTED


def said(**wrong: object) -> Contribution:
    return dataclasses.replace(GOOD, **wrong)  # type: ignore[arg-type]


def spent(sigma: float = 1.0, rate: float = 0.1, steps: int = 5) -> Contribution:
    return said(spent=Mechanism(sigma, rate, steps))


def with_bias(value: float) -> bytes:
    return bytes(save({**ARRAYS, "bias": np.full(3, value, np.float32)}))


def hoping(**other: object) -> Expected:
    return dataclasses.replace(EXPECTED, **other)  # type: ignore[arg-type]


CASES = {
    "signed by another key": Case(rules.signed, UNTRUSTED, key=OTHER_KEY),
    "of another site": Case(rules.from_its_site, UNKNOWN_SITE, said(site="south")),
    "for another plan": Case(rules.for_this_round, UNTRUSTED, said(plan=X)),
    "sent again": Case(rules.no_replay, REPLAY, expected=hoping(taken=frozenset({digest_value(GOOD)}))),
    "under another clearance": Case(rules.under_its_clearance, NO_CLEARANCE, said(clearance=X)),
    "under a clearance that ended": Case(rules.still_cleared, STALE_CLEARANCE, expected=hoping(live=False)),
    "under another reservation": Case(rules.under_its_reservation, NO_RESERVATION, said(reservation=X)),
    "with less noise": Case(rules.not_overspent, OVERSPEND, spent(sigma=0.999)),
    "at a higher rate": Case(rules.not_overspent, OVERSPEND, spent(rate=0.101)),
    "in more steps": Case(rules.not_overspent, OVERSPEND, spent(steps=6)),
    "seeded": Case(rules.private, POLICY, said(private=False)),
    "not seeded in a seeded test": Case(rules.private, POLICY, expected=hoping(seeded=True)),
    "larger": Case(rules.not_too_large, TOO_LARGE, said(update_bytes=len(FILE) + HEADER_ROOM + 1)),
    "never arrived": Case(rules.has_arrived, BAD_ARRAYS, file=None),
    "larger than signed": Case(rules.of_its_size, BAD_ARRAYS, said(update_bytes=len(FILE) - 1)),
    "smaller than signed": Case(rules.of_its_size, BAD_ARRAYS, said(update_bytes=len(FILE) + 1)),
    "of other names": Case(
        rules.of_its_form, BAD_ARRAYS, file=to_bytes({"bia5": ARRAYS["bias"], "weight": ARRAYS["weight"]})
    ),
    "of other shapes": Case(
        rules.of_its_form, BAD_ARRAYS, file=to_bytes({**ARRAYS, "weight": ARRAYS["weight"].T.copy()})
    ),
    "of other dtypes": Case(rules.of_its_form, BAD_ARRAYS, file=bytes(save({**ARRAYS, "bias": np.ones(3, np.int32)}))),
    "of too few": Case(rules.of_its_form, BAD_ARRAYS, file=to_bytes({"bias": ARRAYS["bias"]})),
    "with more behind": Case(rules.of_its_form, BAD_ARRAYS, file=FILE + b"x"),
    "cut off": Case(rules.of_its_form, BAD_ARRAYS, file=FILE[:-1]),
    "NaN": Case(rules.finite_and_bounded, NOT_FINITE, file=with_bias(np.nan)),
    "infinite": Case(rules.finite_and_bounded, NOT_FINITE, file=with_bias(np.inf)),
    "of too large a norm": Case(rules.finite_and_bounded, TOO_LARGE, file=with_bias(1.0 + 1e-6)),
}


def verdicts(case: Case, folder: Path) -> dict[str, str]:
    """The code of each rule that refuses."""
    file, found = folder / "update", {}
    if case.file is not None:
        file.write_bytes(case.file)
    for rule in RULES:
        about = sign(case.contribution, case.key) if rule is rules.signed else case.contribution
        try:
            rule(*((file, about) if rule in rules.ARRAYS else (about,)), case.expected)
        except BractError as error:
            found[rule.__name__] = error.code
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_rule_refuses_what_it_is_for_and_no_other_does(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = verdicts(case, tmp_path)
    # of a file that is not there or not of the form nothing more can be said, nor of one that is larger than it may be
    unreadable = {
        rules.has_arrived: {rule.__name__ for rule in rules.ARRAYS},
        rules.of_its_form: {rule.__name__ for rule in rules.ARRAYS},
        rules.not_too_large: {rules.of_its_size.__name__},
    }
    assert found.pop(case.rule.__name__) == case.code
    assert set(found) <= unreadable.get(case.rule, set())


def test_what_is_right_passes_every_rule(tmp_path: Path) -> None:
    norm = float(np.sqrt(sum(float(np.square(one).sum()) for one in ARRAYS.values())))
    assert verdicts(Case(rules.signed, "", expected=hoping(max_norm=norm)), tmp_path) == {}
    assert verdicts(Case(rules.signed, "", spent(sigma=2.0, rate=0.05, steps=1)), tmp_path) == {}


def test_every_rule_has_a_case() -> None:
    assert {case.rule for case in CASES.values()} == set(RULES)
