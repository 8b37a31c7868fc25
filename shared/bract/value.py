"""Frozen dataclasses to and from JSON: one strict way in, one canonical way out.

Every public value (plan, clearance, contribution, receipt …) is a frozen dataclass of JSON-able fields. `decode` refuses
unknown and missing fields, so a typo is an error and never a silent default.
"""

import dataclasses
import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from bract.digest import Digest, canonical, digest
from bract.errors import MALFORMED, BractError

T = TypeVar("T")

strict = with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
"""Class decorator of every public value, applied above `@dataclass(frozen=True)`."""


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(cls: type[Any]) -> TypeAdapter[Any]:
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    return _ADAPTERS[cls]


def decode(cls: type[T], data: bytes | dict[str, Any]) -> T:
    """A value of type `cls` from JSON bytes or plain data (as a TOML file gives).

    Raises:
        BractError: `malformed`, naming each wrong field and why, never its value.
    """
    try:
        plain = json.loads(data) if isinstance(data, bytes) else data
        value: T = _adapter(cls).validate_python(plain)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
        raise BractError(MALFORMED, f"{cls.__name__}: {wrong}") from error
    except (ValueError, RecursionError) as error:
        raise BractError(MALFORMED, f"{cls.__name__}: not JSON") from error
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """The plain data in a TOML file.

    Raises:
        BractError: `malformed`, saying what is wrong and where, when it is none or cannot be read.
    """
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError as error:
        raise BractError(MALFORMED, f"{path.name}: no such file") from error
    except OSError as error:
        raise BractError(MALFORMED, f"{path.name}: cannot be read") from error
    except UnicodeDecodeError as error:
        raise BractError(MALFORMED, f"{path.name}: not TOML, as it is not UTF-8") from error
    except ValueError as error:
        raise BractError(MALFORMED, f"{path.name}: not TOML: {error}") from error
    except RecursionError as error:
        raise BractError(MALFORMED, f"{path.name}: not TOML that we read: too deep") from error


def plain(value: Any) -> dict[str, Any]:
    """The value as plain JSON data (tuples become lists, datetimes ISO 8601 in UTC)."""
    data: dict[str, Any] = _adapter(type(value)).dump_python(value, mode="json")
    return data


def encode(value: Any) -> bytes:
    """Canonical JSON of the value; decoded again, it is the same value."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"not a value: {type(value).__name__}")
    return canonical(plain(value))


def digest_value(value: Any) -> Digest:
    """The digest that names this value."""
    return digest(encode(value))


def utc(text: str) -> datetime:
    """An ISO 8601 time as an aware datetime in UTC.

    Raises:
        BractError: `malformed` when it is not a time or has no zone.
    """
    try:
        # Python takes any one character between date and time
        at = datetime.fromisoformat(text if text.isascii() else "")
    except ValueError as error:
        raise BractError(MALFORMED, "not an ISO 8601 time") from error
    if at.tzinfo is None:
        raise BractError(MALFORMED, "a time without a zone")
    return at.astimezone(UTC)
