"""Hostile inputs made from valid ones, and a judge that counts what becomes of each.

A reader may refuse an input with a coded error. What it accepts, an oracle that shares no code with it must find right.
Anything else that it raises is a crash. hypothesis draws the inputs: a valid one, and a number that says what is changed.
"""

import copy
import json
import resource
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import rfc8785
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bract.errors import BractError

X = TypeVar("X")
Y = TypeVar("Y")

RESULTS: dict[str, "Tally"] = {}
"""What was tried in this process, by class; `conftest` prints it."""

HUGE = 10**400
DEEP = "\x01deep"
"""Stands for arrays within arrays, thousands of them, until it becomes bytes."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**64, -(2**63), HUGE, 0.5, -0.0, 1e-320, 1e308, float("nan"),
    float("inf"), float("-inf"), "", "0", "x" * 5000, "\0", "\ud800", "\u202e", "ä", "NaN", "sha256:" + "0" * 64,
    "SHA256:" + "0" * 64, "sha256:" + "0" * 64 + "\n", "2026-01-01T00:00:00", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00", "../../etc/passwd", "north", [], {}, [[]], [None] * 300, {"": {}}, DEEP,
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\r\n", b"\n", b'"', b",", b"{", b"[" * 3000, b"9" * 5000, b"1e999", b"NaN", b"-0",
    b'{"a":' * 2000, b"\\ud800", b"\xef\xbb\xbf", b"..%2f", b"=", b"\x00" * 64, b"\x7f\xff\xff\xff\xff\xff\xff\xff",
)  # fmt: skip


@dataclass
class Tally:
    """One class of inputs: how many were tried and what became of them; the first few that went wrong, in words."""

    name: str
    tried: int = 0
    refused: int = 0
    right: int = 0
    wrong: int = 0
    crashed: int = 0
    grown_mb: float = 0.0
    examples: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    def judge(
        self, one: X, read: Callable[[X], Y], right: Callable[[X, Y], bool], refusals: tuple[type[BaseException], ...]
    ) -> None:
        self.tried += 1
        try:
            value = read(one)
        except refusals:
            self.refused += 1
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            self.crashed += 1
            self._keep(f"{type(error).__name__}: {error}"[:200], one)
            return
        if right(one, value):
            self.right += 1
        else:
            self.wrong += 1
            self._keep("accepted", one)

    def _keep(self, what: str, one: object) -> None:
        if len(self.examples) < 5:
            self.examples.append(f"{what} <- {one!r}"[:700])


def strike(
    name: str,
    inputs: st.SearchStrategy[X],
    read: Callable[[X], Y],
    right: Callable[[X, Y], bool],
    *,
    count: int,
    refusals: tuple[type[BaseException], ...] = (BractError,),
    record: bool = True,
) -> Tally:
    """Try `count` inputs on a reader; the same ones every time."""
    tally, before = Tally(name), _peak_mb(anew=True)

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(inputs)
    def each(one: X) -> None:
        tally.judge(one, read, right, refusals)

    each()
    tally.grown_mb = _peak_mb() - before
    if record:
        RESULTS[name] = tally
    return tally


def held(tally: Tally, most_mb: float = 96.0) -> None:
    """That nothing went wrong, memory stayed bounded, and the reader refuses some and takes some."""
    assert (tally.wrong, tally.crashed) == (0, 0), "\n".join([str(tally.plain())[:300], *tally.examples])
    assert tally.grown_mb < most_mb, f"memory grew by {tally.grown_mb:.0f} MB"
    assert tally.refused > 0 and tally.right > 0


def seen(tally: Tally) -> None:
    """The positive control: a reader that is broken on purpose lets something wrong through, and it is counted."""
    assert tally.wrong > 0


def broken(valid: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Valid bytes, changed in one to four places."""
    return st.builds(lambda data, seed: _break(data, valid, Random(seed)), st.sampled_from(valid), _SEEDS)


def bent(valid: Sequence[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Valid JSON objects, changed in one to three places, anywhere within."""
    return st.builds(lambda value, seed: _bend(value, Random(seed)), st.sampled_from(valid), _SEEDS)


def json_bytes(value: object) -> bytes:
    """JSON of whatever the value holds: in canonical form where there is one, else as a careless program writes it."""
    try:
        data: bytes = rfc8785.dumps(value)  # type: ignore[arg-type]
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(
            "utf-8", "surrogatepass"
        )
    return data.replace(json.dumps(DEEP).encode(), b"[" * 5000 + b"]" * 5000)


_SEEDS = st.integers(0, 2**64 - 1)


def _break(data: bytes, valid: Sequence[bytes], random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        _CUTS[random.randrange(len(_CUTS))](out, valid, random)
    return bytes(out)


def _place(out: bytearray, random: Random) -> int:
    return random.randrange(len(out)) if out else 0


def _flip_bit(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    if out:
        out[_place(out, random)] ^= 1 << random.randrange(8)


def _set_byte(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    if out:
        out[_place(out, random)] = random.randrange(256)


def _truncate(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    del out[_place(out, random) :]


def _delete(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    at = _place(out, random)
    del out[at : at + random.choice((1, 2, 8, 64))]


def _double(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    at = _place(out, random)
    out[at:at] = out[at : at + random.choice((1, 8, 64, 4096))]


def _insert(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    at = _place(out, random)
    out[at:at] = random.choice(TOKENS)


def _number(out: bytearray, _: Sequence[bytes], random: Random) -> None:
    digits = [at for at, byte in enumerate(out) if 0x30 <= byte <= 0x39]
    if digits:
        at = random.choice(digits)
        out[at : at + 1] = random.choice((b"9" * 30, b"-1", b"0", b"1e999", b"0.1", b"18446744073709551616"))


def _splice(out: bytearray, valid: Sequence[bytes], random: Random) -> None:
    other = random.choice(valid)
    at = _place(out, random)
    out[at:] = other[min(at, len(other)) :]


_CUTS: tuple[Callable[[bytearray, Sequence[bytes], Random], None], ...] = (
    _flip_bit, _set_byte, _truncate, _delete, _double, _insert, _number, _splice,
)  # fmt: skip


def _bend(value: dict[str, Any], random: Random) -> dict[str, Any]:
    out = copy.deepcopy(value)
    for _ in range(random.choice((1, 1, 2, 3))):
        places = list(_places(out))
        if not places:
            break
        owner, key = random.choice(places)
        match random.randrange(7):
            case 0:
                del owner[key]
            case 1 if isinstance(owner, dict):
                owner[random.choice(("extra", "", "\0", "site", "__class__"))] = random.choice(VALUES)
            case 2:
                there, other = random.choice(places)
                owner[key], there[other] = there[other], owner[key]
                if _endless(out):
                    return copy.deepcopy(value)
            case 3 if isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
                owner[key] = random.choice(
                    (owner[key] + 1, -owner[key], owner[key] * 1e9, float(owner[key]), str(owner[key]))
                )
            case 4 if isinstance(owner, list):
                owner.append(copy.deepcopy(owner[key]))
            case _:
                owner[key] = copy.deepcopy(random.choice(VALUES))
    return out


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from _places(part) if not isinstance(part, list) or len(part) < 50 else ()


def _endless(value: Any) -> bool:
    try:
        json.dumps(value)
    except (ValueError, RecursionError):
        return True
    return False


def _peak_mb(*, anew: bool = False) -> float:
    """The process's largest memory in MB, of late where Linux can begin to count anew."""
    forget, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not forget.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if anew:
        forget.write_text("5")
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
