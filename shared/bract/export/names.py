"""Names that documents of any format can carry. Names, not addresses: nothing answers at them."""

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from bract.model import Node, NodeKind

NAMESPACE = "urn:bract:"
PRODUCER = "urn:bract:software"
"""Who made a document, where a format asks for a URI."""


def safe(text: str) -> str:
    """Any text as letters, digits and -._~:% only; different texts stay different."""
    return "%2E" * len(text) if set(text) == {"."} else quote(text, safe=":")


def local(kind: NodeKind, ref: str) -> str:
    """A node's name below `NAMESPACE`."""
    return f"{kind.value}/{safe(ref)}"


def agent(kind: str, name: str) -> str:
    """An organisation's name below `NAMESPACE`: a `site` or a `hub`."""
    return f"agent/{kind}/{safe(name)}"


def iri(node: Node) -> str:
    """A node's name in the world."""
    return NAMESPACE + local(node.kind, node.ref)


def uuid_of(text: str) -> str:
    """A UUID that is always the same for the same text [RFC 9562 §5.5]."""
    return str(uuid5(NAMESPACE_URL, text))


def moment(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def document(value: Any) -> bytes:
    """A JSON file: keys in order, so that the same value gives the same bytes."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def duo_iri(code: str) -> str:
    """A GA4GH DUO term's IRI from `DUO:0000042`."""
    return f"http://purl.obolibrary.org/obo/{quote(code.replace(':', '_'), safe='')}"
