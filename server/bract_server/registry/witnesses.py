"""The hub and its sites watch each other's logs: each remembers the other's last head and signs only what continues it.

Anybody's cosignature may be kept. At the release gate only those count whom the registry knows by name: sites that are
neither revoked nor set apart, and persons who may sign as auditors, with the key that they were registered by.
"""

from contextlib import suppress
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.orm import Session

from bract.errors import LOG_FORKED, STATE, UNTRUSTED, BractError
from bract.log import book, exchange, forks, shelf
from bract.log.entry import LogEntry
from bract.log.forks import Fork
from bract.log.note import COSIGNED, Head, parse_note, parse_signature, parse_vkey
from bract.log.proof import Proof
from bract.log.witness import Reply, Word
from bract.signing import key_text, verify_key
from bract_server.registry.models import LOG, SiteRow
from bract_server.registry.persons import auditors
from bract_server.registry.quarantine import is_apart
from bract_server.registry.sites import live_site
from bract_server.registry.unit import HUB, Store

_NEEDED = ("site.add", forks.FOUND, forks.ACCEPTED)
"""Entries whose bodies stay: keys of sites, and forks with who lifted them."""


def standing_witnesses(session: Session) -> frozenset[str]:
    """The keys of the witnesses who count now."""
    sites = select(SiteRow.verify_key).where(SiteRow.revoked_at.is_(None), ~is_apart(SiteRow.name))
    return frozenset(session.scalars(sites)) | auditors(session)


class Witnesses(Store):
    """The part of the registry that shows the hub's log and watches those of sites."""

    def witness(self, site: str, word: Word, at: datetime) -> Reply:
        """Judge a site's log, keep its cosignature of ours, and show ours.

        Raises:
            BractError: `unknown-site`; `malformed`; `untrusted` for a head that the site did not sign; `log-forked`
                when its log does not continue what the hub saw, which is kept and logged.
        """
        with self.seeing() as session:
            text = live_site(session, site).verify_key
            known = exchange.remembered(session, LOG, text)
            signed = exchange.cosigned(session, LOG, verify_key(text))
        key, head = verify_key(text), parse_note(word.shown.note).head
        if head.origin != site:
            raise BractError(UNTRUSTED, "a site speaks for its own log only")
        if known is None or known.head != head:
            self._watch(key, word, at)
        if word.cosignature and word.remembered > signed:
            self._keep(site, key, word, at)
        with self.seeing() as session:
            now = exchange.remembered(session, LOG, text)
            line = now.cosignature if now is not None and now.head == head else ""
            shown = exchange.show(session, LOG, self._key, word.remembered)
        return Reply(0 if now is None else now.head.size, line, shown)

    def check_fork(self, site: str) -> None:
        """That nothing is held against a site's log.

        Raises:
            BractError: `log-forked` while a fork of it stands.
        """
        with self.seeing() as session:
            if any(fork.origin == site for fork in forks.standing(session, LOG)):
                raise BractError(LOG_FORKED, site)

    def forks(self) -> tuple[Fork, ...]:
        """Every fork that was found in a site's log, lifted or not, oldest first."""
        with self.seeing() as session:
            return forks.found(session, LOG)

    def accept_fork(self, site: str, person: str, reason: str, at: datetime) -> None:
        """Take a site's new history for the right one, on a named person's word.

        Raises:
            BractError: `wrong-state` when no fork of the site stands; `malformed` without a name or a reason.
        """
        with self.writing(at) as unit:
            lifted = [fork for fork in forks.standing(unit.session, LOG) if fork.origin == site]
            forks.accept(unit.session, LOG, lifted, person, reason, actor=HUB, at=at)

    def take_cosignatures(self, note: bytes, witness: str, at: datetime) -> bool:
        """Keep an auditor's cosignature of one of our checkpoints; False if it was kept before.

        Args:
            note: the checkpoint with the auditor's line.
            witness: the auditor's verifier key (`name+ID+base64`), told by another channel.
            at: now.

        Raises:
            BractError: `malformed`; `untrusted` when the note has no line of that key, or is not of our log.
        """
        name, key = parse_vkey(witness, COSIGNED)
        read = parse_note(note)
        lines = [one for one in read.signatures if one.name == name]
        with self.writing(at) as unit:
            if not lines or exchange.head_of(unit.session, LOG, read.head.size) != read.head:
                raise BractError(UNTRUSTED, "the note is not of this log, or without that witness' line")
            site = unit.session.get(SiteRow, name)
            if site is not None and site.verify_key != key_text(key):
                raise BractError(UNTRUSTED, f"{name} is a site's name")
            return exchange.keep(unit.session, LOG, lines[-1], key, read.head.size, at)

    @property
    def origin(self) -> str:
        """The log's name."""
        return self._origin

    def head(self) -> Head | None:
        """The newest signed head, None before there is one."""
        with self.seeing() as session:
            last = exchange.newest(session, LOG)
            return None if last is None else last[0]

    def note(self) -> bytes:
        """The newest signed head as a C2SP note, with the cosignatures of that size.

        Raises:
            BractError: `wrong-state` before anything is signed.
        """
        with self.seeing() as session:
            last = exchange.newest(session, LOG)
            if last is None:
                raise BractError(STATE, "the log is empty")
            return exchange.note_of(session, LOG, self._key, last[0]).to_bytes()

    def proof(self, seq: int) -> Proof:
        """The proof that the log has an entry.

        Raises:
            BractError: `wrong-state` when there is no such entry.
        """
        with self.seeing() as session:
            return exchange.prove(session, LOG, self._key, seq)

    def entry_about(self, kind: str, about: str) -> LogEntry | None:
        """The newest entry of a kind about a name or digest."""
        with self.seeing() as session:
            return shelf.newest_about(session.connection(), LOG, kind, about)

    def erase_body(self, seq: int, person: str, reason: str, at: datetime) -> int:
        """Delete an entry's body for good; a new entry says so, by whom and why. The tree still verifies.

        Raises:
            BractError: `wrong-state` when there is no such body, or it is needed.
        """
        with self.writing(at) as unit:
            return book.erase(unit.session, LOG, seq, actor=HUB, person=person, reason=reason, at=at, needed=_NEEDED)

    def _keep(self, site: str, key: Ed25519PublicKey, word: Word, at: datetime) -> None:
        # A line that is not on our log, or under another's name, is no reason to hide ours: the site finds out from what
        # it is shown.
        with suppress(BractError), self.writing(at) as unit:
            line = parse_signature(word.cosignature)
            if line.name == site:
                exchange.keep(unit.session, LOG, line, key, word.remembered, at)

    def _watch(self, key: Ed25519PublicKey, word: Word, at: datetime) -> None:
        fork: BractError | None = None
        with self.writing(at) as unit:
            try:
                exchange.watch(unit.session, LOG, word.shown, key, name=self._origin, key=self._key, at=at)
            except BractError as error:
                if error.code == LOG_FORKED:
                    fork = error
                    forks.find(unit.session, LOG, word.shown.note, key, error.detail, actor=HUB, at=at)
                elif error.code != STATE:  # a proof that begins elsewhere is shown again
                    raise
        if fork is not None:
            raise fork
