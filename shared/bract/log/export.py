"""A bundle for an auditor out of the database: the files of `bract.log.bundle`, in one transaction, in one order."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, Row, func, select
from sqlalchemy.orm import Session

from bract.consent import RULE_TEXT
from bract.digest import canonical, digest
from bract.errors import STATE, BractError
from bract.log import exchange, shelf
from bract.log.bundle import (
    CHECKPOINT,
    COSIGNED,
    FORMAT,
    HUB,
    KEYS,
    LINEAGE,
    MANIFEST,
    RULE,
    SEAL,
    SIGNED_CHECKPOINT,
    FileFact,
    Keys,
    Manifest,
    Party,
    Seal,
    block_names,
    blocks,
    body_line,
    signed_line,
)
from bract.log.checkpoint import root_digest
from bract.log.entry import entry_data
from bract.log.merkle import leaf_hash
from bract.log.note import Head
from bract.log.schema import LogTables
from bract.log.tiles import WIDTH, path, tiles
from bract.signing import key_text, sign
from bract.value import encode


@dataclass(frozen=True)
class Contents:
    """What a side adds to its log.

    Attributes:
        side: `hub` or `site`.
        parties: who else signs what the log is about.
        people: who decides and approves.
        authority: PEM of a hub's authority, empty at a site.
        things: by kind of entry, what somebody signed or named, by what the entry is about; envelopes but for `named`.
        named: kinds whose things are values that nobody signed.
        disclosed: whether the body of an entry of this kind may leave.
        harmless: whether one body of a disclosed kind may leave, too.
        lineage: the edges of lineage, None at a site.
    """

    side: str
    parties: tuple[Party, ...]
    people: tuple[Party, ...]
    authority: str
    things: Mapping[str, Mapping[str, bytes]]
    named: frozenset[str]
    disclosed: Callable[[str], bool]
    harmless: Callable[[str, bytes], bool]
    lineage: list[dict[str, Any]] | None


def files(session: Session, log: LogTables, key: Ed25519PrivateKey, contents: Contents) -> Iterator[tuple[str, bytes]]:
    """Every file of the bundle, the seal last. The same log gives the same bytes.

    Args:
        session: one that sees one state.
        log: the tables.
        key: the owner's; it signs the note and the seal.
        contents: what the side adds.

    Raises:
        BractError: `wrong-state` before anything is signed; `log-inconsistent` when an entry or tile is missing.
    """
    last = exchange.newest(session, log)
    if last is None:
        raise BractError(STATE, "the log is empty")
    head, envelope = last
    facts: dict[str, FileFact] = {}
    kinds = sorted(session.scalars(select(log.entry.c.kind).where(log.entry.c.seq <= head.size).distinct()))
    kept: list[int] = []

    def file(name: str, data: bytes) -> tuple[str, bytes]:
        facts[name] = FileFact(len(data), digest(data))
        return name, data

    yield file(CHECKPOINT, exchange.note_of(session, log, key, head).to_bytes())
    yield file(SIGNED_CHECKPOINT, envelope.to_json())
    for older in _cosigned(session, log, head.size):
        yield file(f"{COSIGNED}/{older.size}", exchange.note_of(session, log, key, older).to_bytes())
    yield file(KEYS, encode(_keys(session, log, key, head, contents)))
    yield file(RULE, RULE_TEXT)
    if contents.side == HUB:
        yield file(LINEAGE, canonical({"edges": contents.lineage or []}))
    tree = shelf.tree(session.connection(), log, head.size)
    for tile in tiles(head.size):
        if tile.level:
            data = tree.read(tile.level, tile.number)
            yield file(f"log/{path(tile.level, tile.number, tile.width)}", data)
    for number, width in blocks(head.size):
        rows = _rows(session.connection(), log, number * WIDTH, width)
        for name, data in zip(block_names(number, width), _block(rows, contents, kept), strict=True):
            yield file(name, data)
    withheld = tuple(kind for kind in kinds if not contents.disclosed(kind))
    manifest = encode(Manifest(FORMAT, facts, withheld, tuple(kept)))
    yield MANIFEST, manifest
    seal = Seal(head.origin, contents.side, head.size, root_digest(head.root), digest(manifest))
    yield SEAL, sign(seal, key).to_json()


def _block(rows: list[Row[*tuple[Any, ...]]], contents: Contents, kept: list[int]) -> tuple[bytes, bytes, bytes, bytes]:
    """A block's tile of leaves, entries, bodies and signed things; numbers of bodies that stay are put into `kept`."""
    leaves, entries, bodies, things = list[bytes](), list[bytes](), list[bytes](), list[bytes]()
    for seq, kind, at, actor, about, commitment, salt, body in rows:
        data = entry_data(seq, kind, at, actor, about, commitment)
        leaves.append(leaf_hash(data))
        entries.append(len(data).to_bytes(2) + data)
        if body is not None and contents.disclosed(kind):
            if contents.harmless(kind, body):
                bodies.append(body_line(seq, salt, body))
            else:
                kept.append(seq)
        thing = contents.things.get(kind, {}).get(about)
        if thing is not None:
            things.append(signed_line(seq, thing, envelope=kind not in contents.named))
    return b"".join(leaves), b"".join(entries), b"".join(bodies), b"".join(things)


def _rows(connection: Connection, log: LogTables, after: int, width: int) -> list[Row[*tuple[Any, ...]]]:
    e, b = log.entry.c, log.body.c
    wanted = select(e.seq, e.kind, e.at, e.actor, e.about, e.commitment, b.salt, b.body).select_from(
        log.entry.outerjoin(log.body, b.seq == e.seq)
    )
    rows = connection.execute(wanted.where(e.seq > after, e.seq <= after + width).order_by(e.seq)).all()
    return list(rows)


def _cosigned(session: Session, log: LogTables, size: int) -> list[Head]:
    """Older heads that are some witness' newest."""
    c = log.cosignature.c
    newest = select(func.max(c.size)).where(c.size <= size).group_by(c.witness)
    return [exchange.head_of(session, log, one) for one in sorted(set(session.scalars(newest))) if one != size]


def _keys(session: Session, log: LogTables, key: Ed25519PrivateKey, head: Head, contents: Contents) -> Keys:
    c = log.cosignature.c
    told = session.execute(select(c.witness, c.verify_key).where(c.size <= head.size).distinct().order_by(c.witness))
    witnesses = tuple(Party(name, text) for name, text in told)
    owner = Party(head.origin, key_text(key.public_key()))
    return Keys(owner, contents.parties, contents.people, witnesses, contents.authority)
