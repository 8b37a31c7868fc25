"""Coverage-guided fuzzing of each parser: `python -m tests.hostile.fuzz TARGET [flags of libFuzzer]`, with atheris installed.

A target takes bytes and may refuse them with a coded error; any other exception ends the run with its input.
"""

import importlib
import io
import itertools
import sys
from collections.abc import Callable
from typing import Any

atheris: Any = importlib.import_module("atheris")  # an extra that is not everywhere, without stubs

with atheris.instrument_imports(include=["bract", "bract_client"]):
    import tomllib

    from google.protobuf.message import DecodeError

    from bract.arrays import from_bytes
    from bract.enrolment import open_request
    from bract.errors import BractError
    from bract.log.note import parse_note, parse_vkey
    from bract.plan import CampaignPlan, RoundPlan
    from bract.signing import parse_envelope
    from bract.update import Contribution
    from bract.value import decode, encode
    from bract.wire import hub_pb2 as pb
    from bract.wire.chunks import unpack, unpack_put
    from bract_client.sources.images import decode_png
    from bract_client.sources.json_lines import json_object
    from bract_client.sources.lines import physical
    from bract_client.sources.record import BadLine


def _envelope(data: bytes) -> None:
    assert parse_envelope(parse_envelope(data).to_json()) == parse_envelope(data)


def _values(data: bytes) -> None:
    for cls in (Contribution, RoundPlan, CampaignPlan):
        try:
            value: Any = decode(cls, data)
            assert decode(cls, encode(value)) == value
        except BractError:
            continue


def _frames(data: bytes) -> None:
    for parse in (unpack, unpack_put, pb.WitnessRequest.FromString):
        try:
            parse(data)
        except DecodeError:
            continue


def _note(data: bytes) -> None:
    try:
        assert parse_note(data).to_bytes() == data
    except BractError:
        parse_vkey(data.decode("utf-8", "surrogateescape"), 4)


def _arrays(data: bytes) -> None:
    from_bytes(data, {"a": (2, 3), "b": (1,)})


def _plan(data: bytes) -> None:
    try:
        plain = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return
    decode(CampaignPlan, plain).check()


def _lines(data: bytes) -> None:
    for line in physical(io.BytesIO(data)):
        if line:
            json_object(line)


def _image(data: bytes) -> None:
    decode_png(data, (1, 6, 9))


def _request(data: bytes) -> None:
    open_request(data)


def _control(data: bytes) -> None:
    """Falls when two bytes are equal: what a fuzzer must find."""
    for one, other in itertools.pairwise(data):
        1 // (one - other)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "envelope": _envelope,
    "values": _values,
    "frames": _frames,
    "note": _note,
    "arrays": _arrays,
    "plan": _plan,
    "lines": _lines,
    "image": _image,
    "request": _request,
    "control": _control,
}


def main() -> None:
    """Fuzz one target until libFuzzer's flags end it."""
    target = TARGETS[sys.argv.pop(1)]

    def one(data: bytes) -> None:
        try:
            target(data)
        except (BractError, BadLine):
            return

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
