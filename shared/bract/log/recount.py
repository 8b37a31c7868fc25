"""A bundle's log made anew, block by block: leaves, tree, bodies and signed things. It holds one block at a time."""

import json
import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

from bract.digest import digest
from bract.errors import LOG, BractError
from bract.log.bundle import HUB, SITE, block_names, blocks, canonical_lines, read_body, read_signed
from bract.log.merkle import SIZE
from bract.log.note import Head
from bract.log.opened import OpenBundle, inside
from bract.log.references import (
    FROM_HUB,
    HUB_SIGNS,
    PEOPLE_SIGN,
    REGISTERED,
    REQUIRED,
    SITES_SIGN,
    UNSIGNED,
    References,
)
from bract.log.tiles import WIDTH, fold, path
from bract.signing import Envelope, check_signature, key_id, parse_envelope, verify_key

_TEXT = rb'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"'
_TIME = rb'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?Z"'
_ENTRY = re.compile(
    rb'\{"about":' + _TEXT + rb',"actor":' + _TEXT + rb',"at":' + _TIME + rb',"commitment":"sha256:([0-9a-f]{64})"'
    rb',"kind":"([a-z][a-z-]*\.[a-z][a-z-]*)","seq":([1-9][0-9]{0,15})\}'
)
_ERASED, _ENROLLED, _RECEIPT = b"log.erase", b"site.add", FROM_HUB.encode()

_Entry = tuple[bytes, bytes, bytes, bytes]
"""About, actor, commitment in hexadecimal, kind; as they stand in the entry."""


class Recount:
    """Everything that a bundle's log says, checked as it is read."""

    def __init__(self, bundle: OpenBundle) -> None:
        self._bundle = bundle
        side = bundle.seal.side
        parties = {party.name: party.key for party in bundle.keys.parties}
        self._parties = {name: verify_key(key) for name, key in parties.items()}
        people = {party.name: party.key for party in bundle.keys.people}
        self._named = {**self._parties, **{name: verify_key(key) for name, key in people.items()}}
        self._required = {kind.encode() for kind in REQUIRED[side]}
        self._withheld_kinds = {kind.encode() for kind in bundle.manifest.withheld}
        self._withheld_entries = set(bundle.manifest.withheld_entries)
        self.references = References(side, parties if side == HUB else {}, people)
        self.bodies = self.signed = self.withheld = 0
        self._absent: dict[int, bytes] = {}
        self._there = bytearray(bundle.seal.size + 1)
        self._erasures: set[int] = set()
        self._rows: list[list[bytes]] = []
        self._odd_entry: str | None = None
        self._odd_tile: str | None = None
        self._trouble: BractError | None = None

    @property
    def erased(self) -> int:
        """How many bodies an entry says were erased."""
        return len(self._absent)

    def roots(self, sizes: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Goes through the whole log once; gives the root of the tree at each of these sizes, which ascend.

        Raises:
            BractError: `log-inconsistent`, naming the first bad entry or file.
        """
        waiting = list(sizes)
        for number, width in blocks(self._bundle.seal.size):
            leaves = self._block(number, width)
            begin = number * WIDTH
            while waiting and waiting[0] <= begin + width:
                size = waiting.pop(0)
                yield size, self._root(leaves[: size - begin])
            self._grow(leaves)

    def end(self, head: Head) -> None:
        """What can be told only when all is read: the root, tiles at the edge, bodies that are missing.

        Raises:
            BractError: `log-inconsistent`.
        """
        for level, row in enumerate(self._rows):
            if row:
                self._compare(level, row)
        if self._root([]) != head.root:
            raise BractError(LOG, f"{self._odd_entry or 'the entries'}: not what the signed root is made of")
        if self._trouble is not None:
            raise self._trouble
        if self._odd_tile is not None:
            raise BractError(LOG, f"{self._odd_tile}: not the tree of the entries")
        lost = {seq: kind for seq, kind in self._absent.items() if seq not in self._erasures}
        if lost:
            first = min(lost)
            raise BractError(
                LOG, f"log entry {first} ({lost[first].decode()}): its body is missing and was never erased"
            )
        for seq in sorted(self._erasures):
            if seq < len(self._there) and self._there[seq]:
                raise BractError(LOG, f"log entry {seq}: its body was erased by a later entry, and is here")
        self.references.end()

    def _block(self, number: int, width: int) -> list[bytes]:
        """The leaves of a block; its bodies and signed things are checked on the way."""
        tile_name, entries_name, bodies_name, signed_name = block_names(number, width)
        first = number * WIDTH + 1
        entries, leaves = self._entries(entries_name, first, width)
        self._match(self._bundle.read(tile_name), tile_name, leaves, first, entries)
        try:
            bodies = self._bodies(bodies_name, first, entries)
            self._signed(signed_name, first, entries, bodies)
        except BractError as error:
            # An entry that was changed is told first: its body does not fit it either.
            self._trouble = self._trouble or error
        return leaves

    def _entries(self, name: str, first: int, width: int) -> tuple[list[_Entry], list[bytes]]:
        data = self._bundle.read(name)
        entries: list[_Entry] = []
        leaves: list[bytes] = []
        place, match, end = 0, _ENTRY.fullmatch, len(data)
        for seq in range(first, first + width):
            begin = place + 2
            place = begin + int.from_bytes(data[place:begin])
            raw = data[begin:place]
            found = match(raw)
            if found is None or place > end:
                raise BractError(LOG, f"log entry {seq}: not of its form ({name})")
            about, actor, commitment, kind, told = found.groups()
            if int(told) != seq:
                raise BractError(LOG, f"log entry {seq} is missing: {int(told)} ({kind.decode()}) stands in its place")
            entries.append((about, actor, commitment, kind))
            leaves.append(sha256(b"\x00" + raw).digest())
        if place != end:
            raise BractError(LOG, f"{name}: more than {width} entries")
        return entries, leaves

    def _match(self, tile: bytes, name: str, leaves: list[bytes], first: int, entries: list[_Entry]) -> None:
        """Notes the first leaf that is not in its tile: the entry or the tile was changed, the root will tell."""
        if tile == b"".join(leaves):
            return
        self._odd_tile = self._odd_tile or name
        for place, leaf in enumerate(leaves):
            if tile[place * SIZE : (place + 1) * SIZE] != leaf:
                kind = entries[place][3].decode()
                self._odd_entry = self._odd_entry or f"log entry {first + place} ({kind})"
                return

    def _bodies(self, name: str, first: int, entries: list[_Entry]) -> dict[int, bytes]:
        """The bodies of a block, each of which opens its commitment (rule 5)."""
        with inside(name):
            lines = canonical_lines(self._bundle.read(name))
        found: dict[int, bytes] = {}
        place, count = 0, len(lines)
        for seq, (about, _, commitment, kind) in enumerate(entries, start=first):
            if kind == _ERASED and about.isdigit() and len(about) < 17:
                self._erasures.add(int(about))
            line = lines[place] if place < count else b""
            tail = b'","seq":%d}' % seq
            if not line.endswith(tail):
                self._without(seq, kind)
                continue
            place += 1
            salt, body = read_body(line, len(tail))
            if sha256(salt + body).hexdigest().encode() != commitment:
                raise BractError(LOG, f"log entry {seq} ({kind.decode()}): the body is not the one it commits to")
            if kind in self._withheld_kinds or seq in self._withheld_entries:
                raise BractError(LOG, f"log entry {seq} ({kind.decode()}): its body is called withheld and is here")
            found[seq] = body
            self._there[seq] = 1
            if kind == _ENROLLED and self._bundle.seal.side == HUB:
                with inside(f"log entry {seq} ({kind.decode()})"):
                    self.references.enrol(_plain(about), body)
        if place != count:
            raise BractError(LOG, f"{name}: line {place + 1} is the body of no entry here")
        self.bodies += len(found)
        return found

    def _without(self, seq: int, kind: bytes) -> None:
        if kind in self._withheld_kinds or seq in self._withheld_entries:
            self.withheld += 1
        else:
            self._absent[seq] = kind

    def _signed(self, name: str, first: int, entries: list[_Entry], bodies: dict[int, bytes]) -> None:
        """The signed things of a block: one for each entry that tells of one, by whom it says (rule 6)."""
        with inside(name):
            lines = [read_signed(line) for line in canonical_lines(self._bundle.read(name))]
            numbers = [seq for seq, _, _ in lines]
            if numbers != sorted(set(numbers)) or any(not first <= seq < first + len(entries) for seq in numbers):
                raise BractError(LOG, "a signed thing is of no entry here, or not in its place")
        there = set(numbers)
        for seq, (_, _, _, kind) in enumerate(entries, start=first):
            if kind in self._required and seq not in there:
                raise BractError(LOG, f"log entry {seq} ({kind.decode()}): what it tells of is missing")
        for seq, data, sealed in lines:
            about, actor, _, kind = entries[seq - first]
            with inside(f"log entry {seq} ({kind.decode()})"):
                payload = self._payload(kind.decode(), _plain(actor), data, sealed=sealed)
                # a receipt is told of by its contribution, and by its whole text in the body
                told = bodies.get(seq, payload) if kind == _RECEIPT else None
                if payload != told and digest(payload) != _plain(about):
                    raise BractError(LOG, "the signed thing is not the one that it tells of")
                self.references.take(kind.decode(), _plain(about), _plain(actor), _fields(payload))
        self.signed += len(lines)

    def _payload(self, kind: str, actor: str, data: bytes, *, sealed: bool) -> bytes:
        if not sealed:
            if kind != UNSIGNED:
                raise BractError(LOG, "nobody signed it")
            return data
        envelope = parse_envelope(data)
        if envelope.to_json() != data:
            raise BractError(LOG, "the envelope is not in canonical form")
        self._check_signer(kind, actor, envelope)
        return envelope.payload

    def _check_signer(self, kind: str, actor: str, envelope: Envelope) -> None:
        side = self._bundle.seal.side
        if side == HUB and kind in SITES_SIGN:
            key = self._parties.get(actor)
        elif kind == FROM_HUB:
            key = next((key for name, key in self._parties.items() if name == HUB), None)
        elif kind in HUB_SIGNS or kind in REGISTERED or kind in REQUIRED[SITE]:
            key = self._bundle.key
        elif kind in PEOPLE_SIGN:
            key = self._named.get(actor)
        else:
            key = self._named.get(actor)
            if key is None or (actor == HUB and envelope.keyid == key_id(self._bundle.key)):
                key = self._bundle.key
        if key is None:
            raise BractError(LOG, f"the key of {actor} is not here")
        check_signature(envelope, key)

    def _grow(self, leaves: list[bytes]) -> None:
        """The block's leaves go into the tree; full tiles above are compared."""
        if not self._rows:
            self._rows.append([])
        self._rows[0] = leaves
        level = 0
        while len(self._rows[level]) == WIDTH:
            if level:
                self._compare(level, self._rows[level])
            value = fold(self._rows[level])
            self._rows[level] = []
            level += 1
            if level == len(self._rows):
                self._rows.append([])
            self._rows[level].append(value)

    def _root(self, leaves: list[bytes]) -> bytes:
        """The root of all full blocks and these leaves; without any, of what is at the edge."""
        value: list[bytes] = []
        for level, row in enumerate(self._rows or [[]]):
            hashes = [*row, *value] if level else leaves or row
            value = [fold(hashes)] if hashes else []
        return value[0] if value else fold(())

    def _compare(self, level: int, row: list[bytes]) -> None:
        if level == 0:
            return  # `_match` did
        number = 0
        for above in reversed(self._rows[level + 1 :]):
            number = number * WIDTH + len(above)
        name = f"log/{path(level, number, len(row))}"
        if self._bundle.read(name) != b"".join(row):
            self._odd_tile = self._odd_tile or name


def _fields(payload: bytes) -> dict[str, Any]:
    """The fields of a signed thing."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BractError(LOG, "the signed thing is not JSON") from error
    if not isinstance(fields, dict):
        raise BractError(LOG, "the signed thing has no fields")
    return fields


def _plain(text: bytes) -> str:
    """A string as it stands in an entry, read."""
    try:
        return str(json.loads(b'"' + text + b'"')) if b"\\" in text else text.decode()
    except ValueError as error:
        raise BractError(LOG, "a text is not one") from error
