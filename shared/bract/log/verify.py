"""Verify a bundle offline: public keys, hashes and nothing else. No database, no network, no trust in who made it.

    python -m bract.log.verify BUNDLE.zip --key FINGERPRINT [--since OLDER] [--json]

Rules, in this order; the first that does not hold is told, with the entry or the file:
    1. The archive holds what its manifest says, byte for byte, and nothing else; the owner sealed the manifest.
    2. The owner is the one whose fingerprint is given. Without one, a bundle is consistent with itself and no more.
    3. The newest checkpoint is the owner's, as a note and as an envelope; every cosignature on it is by a witness named here.
    4. Entries are numbered from 1 without gaps, and the root made anew from them is the signed one; so is every tile.
    5. Every body opens its entry's commitment. One that is not there was erased by an entry that says so, or is of a
       kind that the manifest names as withheld.
    6. Every signed thing is by the one of whom its entry tells, has its entry, and cites only what is there
       (`bract.log.references`).
    7. The log continues an older checkpoint, if one is given.

What it cannot tell: that something was never logged, and that a site said the truth about its people.
"""

import argparse
import json
import sys
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bract.consent import RULE_DIGEST
from bract.digest import digest
from bract.errors import LOG, MALFORMED, BractError
from bract.log.bundle import CHECKPOINT, COSIGNED, HUB, LINEAGE, RULE, SIGNED_CHECKPOINT, is_canonical
from bract.log.checkpoint import Checkpoint, root_digest
from bract.log.note import COSIGNED as COSIGNED_BY
from bract.log.note import (
    MAX_NOTE,
    SIGNED,
    Head,
    Note,
    Signature,
    check_cosignature,
    key_id,
    open_note,
    parse_note,
    vkey,
)
from bract.log.opened import OpenBundle, inside
from bract.log.recount import Recount
from bract.signing import parse_envelope, unseal, verify_key


@dataclass(frozen=True)
class Verified:
    """What was verified.

    Attributes:
        fingerprint: the owner's, to be compared when it was not given.
        pinned: whether it was given: else the bundle is only consistent with itself.
        witnesses: who cosigned, and up to which entry, by the names and keys that the owner gives.
        witness_keys: their verifier keys, to be compared with what the witnesses themselves say.
        strangers: witnesses whose key is neither a site's nor a registered person's: at the release gate they do not count.
        erased: bodies that are gone by an entry that says so.
        withheld: bodies that the owner keeps to itself.
        rules: consent rules that clearances name beside the one enclosed.
        since: size of the older checkpoint that the log continues.
    """

    side: str
    origin: str
    fingerprint: str
    pinned: bool
    size: int
    root: str
    at: str
    witnesses: dict[str, int]
    witness_keys: dict[str, str]
    strangers: tuple[str, ...]
    bodies: int
    erased: int
    withheld: int
    signed: int
    rules: int
    since: int | None
    verified: bool = True


def verify(path: Path, *, fingerprint: str | None = None, since: Path | None = None) -> Verified:
    """Every rule over a bundle.

    Args:
        path: the bundle.
        fingerprint: the owner's, known from elsewhere: a hub's as sites confirm it, or that of a signing key.
        since: an older bundle, or an older checkpoint as a note or as an envelope, of the same log.

    Raises:
        BractError: `log-inconsistent`, naming the first bad entry (number and kind) or file; `untrusted` for another
            owner than the one given; `malformed` for what is no checkpoint.
    """
    with _opened(path) as bundle:
        pinned = bundle.pin(fingerprint)
        head, point, seen = _heads(bundle)
        older = None if since is None else _older(since, bundle)
        wanted = {one.size: one for one in seen}
        if older is not None:
            if older.size > head.size:
                raise BractError(LOG, f"the log has {head.size} entries, and had {older.size}: it was cut back")
            wanted.setdefault(older.size, older)
        count = Recount(bundle)
        for size, root in count.roots(sorted(wanted)):
            if root != wanted[size].root and size != head.size:
                raise BractError(LOG, f"the log was rewritten: entry {size} or one before it")
        count.end(head)
        if older is not None and wanted[older.size].root != older.root:
            raise BractError(LOG, f"the log was rewritten: entry {older.size} or one before it")
        _rule(bundle)
        if bundle.seal.side == HUB:
            _lineage(bundle, count)
        bundle.unchanged()
        return Verified(
            side=bundle.seal.side,
            origin=head.origin,
            fingerprint=bundle.fingerprints[0],
            pinned=pinned,
            size=head.size,
            root=root_digest(head.root),
            at=point.at.isoformat(),
            witnesses=(cosigned := _witnesses(bundle)),
            witness_keys={
                one.name: vkey(one.name, COSIGNED_BY, verify_key(one.key))
                for one in bundle.keys.witnesses
                if one.name in cosigned
            },
            strangers=_strangers(bundle, cosigned),
            bodies=count.bodies,
            erased=count.erased,
            withheld=count.withheld,
            signed=count.signed,
            rules=len(count.references.rules - {RULE_DIGEST, str(digest(bundle.read(RULE)))}),
            since=None if older is None else older.size,
        )


def _opened(path: Path) -> OpenBundle:
    try:
        return OpenBundle(path)
    except OSError as error:
        raise BractError(MALFORMED, f"{path.name}: cannot be read") from error


def _heads(bundle: OpenBundle) -> tuple[Head, Checkpoint, list[Head]]:
    """The newest head, the checkpoint that says it, and every head that is in the bundle (rule 3)."""
    heads = [_noted(bundle, name) for name in (CHECKPOINT, *bundle.names(COSIGNED))]
    with inside(SIGNED_CHECKPOINT):
        data = bundle.read(SIGNED_CHECKPOINT)
        point = unseal(Checkpoint, parse_envelope(data), bundle.key)
        told = (point.origin, point.size, point.root)
        if told != (heads[0].origin, heads[0].size, root_digest(heads[0].root)) or not is_canonical(data):
            raise BractError(LOG, f"not the head of {CHECKPOINT}")
    seal = bundle.seal
    if told != (seal.origin, seal.size, seal.root):
        raise BractError(LOG, f"{CHECKPOINT}: not the head that the bundle was sealed with")
    for name, head in zip(bundle.names(COSIGNED), heads[1:], strict=True):
        if name != f"{COSIGNED}/{head.size}" or head.origin != seal.origin or head.size >= seal.size:
            raise BractError(LOG, f"{name}: not an older head of this log")
    return heads[0], point, heads


def _noted(bundle: OpenBundle, name: str) -> Head:
    with inside(name):
        note = parse_note(bundle.read(name))
        head = open_note(note, bundle.key)
        witnesses = {party.name: verify_key(party.key) for party in bundle.keys.witnesses}
        for one in _others(note, bundle):
            if one.name not in witnesses:
                raise BractError(LOG, f"a line of {one.name}, whose key is not here")
            check_cosignature(head, one, one.name, witnesses[one.name])
        return head


def _others(note: Note, bundle: OpenBundle) -> tuple[Signature, ...]:
    """Every line of a note but the owner's own, wherever it stands."""
    own = (note.head.origin, key_id(note.head.origin, SIGNED, bundle.key))
    return tuple(one for one in note.signatures if (one.name, one.key_id) != own)


def _witnesses(bundle: OpenBundle) -> dict[str, int]:
    """The newest head that each witness cosigned."""
    found: dict[str, int] = {}
    for name in (CHECKPOINT, *bundle.names(COSIGNED)):
        note = parse_note(bundle.read(name))
        for one in _others(note, bundle):
            found[one.name] = max(found.get(one.name, 0), note.head.size)
    return dict(sorted(found.items()))


def _strangers(bundle: OpenBundle, cosigned: Container[str]) -> tuple[str, ...]:
    known = {party.key for party in (*bundle.keys.parties, *bundle.keys.people)}
    return tuple(sorted(one.name for one in bundle.keys.witnesses if one.name in cosigned and one.key not in known))


def _older(since: Path, bundle: OpenBundle) -> Head:
    """The head of an older bundle or checkpoint, if this log's owner signed it (rule 7)."""
    try:
        with since.open("rb") as file:
            start = file.read(MAX_NOTE + 1)
    except OSError as error:
        raise BractError(MALFORMED, f"{since.name}: cannot be read") from error
    if start.startswith(b"PK"):
        with _opened(since) as other:
            start = other.read(CHECKPOINT)
    if start.startswith(b"{"):
        point = unseal(Checkpoint, parse_envelope(start), bundle.key)
        head = Head(point.origin, point.size, bytes.fromhex(point.root.removeprefix("sha256:")))
    else:
        head = open_note(parse_note(start), bundle.key)
    if head.origin != bundle.seal.origin:
        raise BractError(LOG, f"{since.name}: a checkpoint of another log")
    return head


def _rule(bundle: OpenBundle) -> None:
    if not bundle.read(RULE):
        raise BractError(LOG, f"{RULE}: empty")


def _lineage(bundle: OpenBundle, count: Recount) -> None:
    """The edges are between things that are there: every round was opened, every version added."""
    with inside(LINEAGE):
        data = bundle.read(LINEAGE)
        if not is_canonical(data):
            raise BractError(LOG, "not in canonical form")
        known: dict[str, Container[str]] = {
            "round": count.references.plans,
            "contribution": count.references.contributions,
            "version": count.references.versions,
        }
        derived = set()
        for newer, older in _edges(data):
            for kind, ref in (newer, older):
                if kind in known and ref not in known[kind]:
                    raise BractError(LOG, f"{kind} {ref} is not in the log")
            if newer[0] == "version":
                derived.add(newer[1])
        for name, parts in count.references.versions.items():
            if parts and name not in derived:
                raise BractError(LOG, f"version {name} comes from nowhere")


def _edges(data: bytes) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Newer and older end of every edge: kind and reference."""
    try:
        found = [
            ((edge["from"][0], edge["from"][1]), (edge["to"][0], edge["to"][1])) for edge in json.loads(data)["edges"]
        ]
    except (KeyError, TypeError, IndexError) as error:
        raise BractError(LOG, "an edge has not two ends") from error
    if not all(isinstance(text, str) for edge in found for end in edge for text in end):
        raise BractError(LOG, "an end of an edge is not a kind and a reference")
    return found


def main(argv: Sequence[str]) -> int:
    """The command: 0 when every rule holds, 1 when one does not."""
    parser = argparse.ArgumentParser("python -m bract.log.verify", description="Verify an audit bundle offline.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--key", help="the owner's fingerprint, known from elsewhere")
    parser.add_argument("--since", type=Path, help="an older bundle or checkpoint that the log must continue")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(argv)
    try:
        done = verify(asked.bundle, fingerprint=asked.key, since=asked.since)
    except BractError as error:
        told = {"verified": False, "code": error.code, "detail": error.detail}
        sys.stderr.write(f"{json.dumps(told) if asked.json else error}\n")
        return 1
    sys.stdout.write(f"{json.dumps(asdict(done), indent=2) if asked.json else summary(done)}\n")
    return 0


def summary(done: Verified) -> str:
    """What was verified, for people."""
    lines = [
        f"{done.size} entries of {done.origin} ({done.side}) verify; root {done.root}, signed {done.at}",
        f"{done.bodies} bodies open their commitments, {done.erased} erased, {done.withheld} withheld by the owner",
        f"{done.signed} signed things verify and cite only what is there",
    ]
    if done.witnesses:
        lines.append("cosigned by " + ", ".join(f"{name} up to {size}" for name, size in done.witnesses.items()))
        lines.append("if these keys are theirs: " + " ".join(done.witness_keys.values()))
        if done.strangers:
            lines.append(f"no site or registered person has the key of: {', '.join(done.strangers)}")
    else:
        lines.append("cosigned by nobody: another history may have been shown to others")
    if done.since is not None:
        lines.append(f"it continues the checkpoint of {done.since} entries")
    if done.rules:
        lines.append(f"{done.rules} consent rules that clearances name are not enclosed")
    if done.pinned:
        lines.append(f"the owner is {done.fingerprint}")
    else:
        lines.append(
            f"WITHOUT --key this bundle is only consistent with itself. Its owner says to be {done.fingerprint}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
