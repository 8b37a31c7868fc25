"""What is right, decided again: signatures by the published formats, fields by tables; no reader's code is used here."""

import base64
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import digest

Rule = Callable[[Any], bool]


def pae(kind: bytes, payload: bytes) -> bytes:
    """DSSE v1's pre-authentication encoding, written down anew from its page."""
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])


def sealed(kind: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """An envelope that this key signed over whatever the payload is."""
    name = digest(key.public_key().public_bytes_raw())
    sig = key.sign(pae(kind.encode(), payload))
    parts = {"payloadType": kind, "payload": _b64(payload), "signatures": [{"keyid": name, "sig": _b64(sig)}]}
    return json.dumps(parts).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def text(pattern: str) -> Rule:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def short(most: int) -> Rule:
    return lambda value: isinstance(value, str) and len(value) <= most


def integer(low: int, high: int = 2**53 - 1) -> Rule:
    def rule(value: Any) -> bool:
        whole = isinstance(value, float) and value.is_integer()
        return (type(value) is int or whole) and low <= value <= high

    return rule


def number(low: float = -math.inf, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    def rule(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (value > low if above else value >= low) and (value < high if below else value <= high)

    return rule


def time(value: Any) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() is not None
    except (ValueError, OverflowError):
        return False


def one_of(*values: Any) -> Rule:
    return lambda value: any(type(value) is type(one) and value == one for one in values)


def maybe(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def every(rule: Rule, at_least: int = 0) -> Rule:
    return lambda value: isinstance(value, list) and len(value) >= at_least and all(map(rule, value))


def fields(rules: Mapping[str, Rule]) -> Rule:
    """An object of these fields; one that the table does not know is another part's to judge."""
    return lambda value: (
        isinstance(value, dict) and all(name in value and rule(value[name]) for name, rule in rules.items())
    )


NAME = text("[a-z0-9][a-z0-9-]{0,62}")
DIGEST = text("sha256:[0-9a-f]{64}")
COUNT = integer(1)
WORDS: Rule = lambda value: isinstance(value, str)  # noqa: E731 - a table of rules
MECHANISM = fields(
    {
        "noise_multiplier": number(0, 1e6, above=True),
        "sampling_rate": number(0, 1, above=True),
        "steps": integer(1, 10_000_000),
    }
)
PRIVACY = fields(
    {
        "clip": number(1e-3, 1e6),
        "noise_multiplier": number(0, 1e6, above=True),
        "sampling_rate": number(0, 1, above=True),
        "steps": integer(1, 1_000_000),
        "delta": number(0, 0.1, above=True, below=True),
        "records_per_subject": integer(1, 1024),
        "views_per_record": integer(1, 64),
        "unit": one_of("subject"),
        "relation": one_of("add-or-remove-one"),
    }
)
SITE_PLAN = fields({"name": NAME, "weight": number(0, 1e9, above=True), "subjects_floor": COUNT})
PLACE = fields({"site": NAME, "clearance": DIGEST, "reservation": DIGEST})
DEALT = fields({"peer": NAME, "box": short(1024), "seed_share": DIGEST, "key_share": DIGEST})
REVEALED = fields({"peer": NAME, "share": short(128)})

RULES: dict[str, Rule] = {
    "Clearance": fields(
        {
            "site": NAME, "campaign": DIGEST, "number": COUNT, "dataset": NAME, "purpose": WORDS, "snapshot": DIGEST,
            "rule": DIGEST, "subjects_floor": COUNT, "issued_at": time, "expires_at": time,
        }
    ),
    "Reservation": fields(
        {
            "site": NAME, "campaign": DIGEST, "number": COUNT, "dataset": NAME, "mechanism": MECHANISM, "epsilon": number(),
            "epsilon_cap": number(), "delta": number(), "reserved_at": time, "expires_at": time,
        }
    ),
    "Relinquishment": fields(
        {"site": NAME, "campaign": DIGEST, "number": COUNT, "reservation": DIGEST, "relinquished_at": time}
    ),
    "Refusal": fields({"site": NAME, "campaign": DIGEST, "number": COUNT, "code": WORDS}),
    "WithdrawalNotice": fields(
        {"site": NAME, "notice": text("[A-Za-z0-9-]{1,64}"), "snapshots": every(DIGEST), "noticed_at": time}
    ),
    "Contribution": fields(
        {
            "site": NAME, "plan": DIGEST, "clearance": DIGEST, "reservation": DIGEST, "spent": MECHANISM, "update": DIGEST,
            "update_bytes": COUNT, "private": one_of(True, False),
        }
    ),
    "Advert": fields({"site": NAME, "plan": DIGEST, "channel_key": short(64), "mask_key": short(64)}),
    "Dealing": fields({"site": NAME, "plan": DIGEST, "roster": DIGEST, "seed": DIGEST, "dealt": every(DEALT)}),
    "Agreement": fields(
        {"site": NAME, "plan": DIGEST, "roster": DIGEST, "sharers": every(NAME), "survivors": every(NAME)}
    ),
    "Unmasking": fields({"site": NAME, "plan": DIGEST, "seeds": every(REVEALED), "keys": every(REVEALED)}),
    "Proposal": fields({"campaign": DIGEST, "number": COUNT, "opened_at": time}),
    "RoundPlan": fields(
        {
            "campaign": DIGEST, "number": COUNT, "parent": DIGEST, "arrays": DIGEST, "arrays_bytes": COUNT,
            "cohort": every(PLACE, 1), "opened_at": time, "deadline": time,
        }
    ),
    "CampaignPlan": fields(
        {
            "name": NAME, "dataset": NAME, "purpose": WORDS, "privacy": PRIVACY, "sites": every(SITE_PLAN, 1),
            "rounds": integer(1, 100_000), "quorum": COUNT, "deadline_s": number(0, 86_400, above=True),
            "grace_s": number(0, 86_400), "max_update_norm": number(0, 1e12, above=True), "seed": integer(0, 2**31 - 1),
            "encoder": fields({"kind": one_of("vit", "table")}), "objective": fields({"kind": WORDS}),
            "local": fields({"kind": one_of("adam", "sgd"), "learning_rate": number(0, 10, above=True)}),
        }
    ),
}  # fmt: skip


def fits(plan: Mapping[str, Any]) -> bool:
    """The parts of a campaign's plan agree with one another."""
    names = [site["name"] for site in plan["sites"]]
    floors = [site["subjects_floor"] for site in plan["sites"]]
    return (
        len(set(names)) == len(names)
        and plan["quorum"] <= len(names)
        and plan["grace_s"] < plan["deadline_s"]
        and all(plan["privacy"]["delta"] * floor < 1 for floor in floors)
    )
