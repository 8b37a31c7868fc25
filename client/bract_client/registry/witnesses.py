"""The site and its hub watch each other's logs: each remembers the other's last head and signs only what continues it.

A fork, of the hub's log or of our own as the hub saw it, ends rounds until a named person lifts it: behind it may be a
registry that was restored from an old copy and has forgotten privacy that is spent, or a hub that tells two stories.
"""

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import func, select

from bract.errors import LOG_FORKED, STATE, UNTRUSTED, BractError
from bract.log import book, exchange, forks, shelf
from bract.log.entry import LogEntry
from bract.log.forks import Fork
from bract.log.note import COSIGNED, Head, parse_note, parse_signature, parse_vkey
from bract.log.proof import Proof
from bract.log.witness import Reply, Word
from bract.signing import key_text
from bract_client.registry.desk import Desk
from bract_client.registry.models import LOG

_NEEDED = ("consent.record", forks.FOUND, forks.ACCEPTED)
"""Entries whose bodies stay: what is derived is checked against them, and none of them names a person."""


class WitnessVerbs(Desk):
    """The part of the registry that shows the site's log and watches the hub's."""

    def word(
        self, hub: Ed25519PublicKey, at: datetime, begin: int | None = None, *, every: timedelta = timedelta()
    ) -> Word | None:
        """What to say to the hub: a head of our log, signed now if one is due, and our word on its last one.

        How long the log is, and when it grew, would tell how many people decided something and when. So a head is
        shown once in an interval of a public grid, as withdrawal notices are, and only after the log was filled up to
        a whole step.

        Args:
            hub: its key, pinned at enrolment.
            at: now.
            begin: the size that the hub said it remembers, if it is another than we thought.
            every: the grid; zero shows at once.

        Returns:
            None while there is nothing to show.
        """
        self._step(at, every)
        with self._read() as session:
            point = exchange.newest_step(session, LOG)
            if point is None:
                return None
            old = exchange.cosigned(session, LOG, hub) if begin is None else begin
            known = exchange.remembered(session, LOG, key_text(hub))
            shown = exchange.show(session, LOG, self._keys.signing, old, exchange.head_in(point))
        return Word(shown, 0 if known is None else known.head.size, "" if known is None else known.cosignature)

    def _step(self, at: datetime, every: timedelta) -> None:
        """Signs the log at a whole step, if it grew and one is due."""
        due = at - (at - datetime(1970, 1, 1, tzinfo=UTC)) % every if every else at
        with self._read() as session:
            entries = session.scalar(select(func.max(LOG.entry.c.seq))) or 0
            last = exchange.newest_step(session, LOG)
        if entries == (0 if last is None else last.size) or (last is not None and every and last.at >= due):
            return
        with self._write() as session:
            exchange.pad(session, LOG, actor=self.site, at=at)
            book.checkpoint(session, LOG, self._keys.signing, self._keys.site, at)

    def heed(self, reply: Reply, hub: Ed25519PublicKey, at: datetime) -> None:
        """Keep the hub's cosignature of our log, and judge, remember and cosign its own.

        Raises:
            BractError: `untrusted` for what the hub did not sign; `log-forked` when its log does not continue what we
                saw, which is kept and logged.
        """
        head = parse_note(reply.shown.note).head
        with self._read() as session:
            known = exchange.remembered(session, LOG, key_text(hub))
            signed = exchange.cosigned(session, LOG, hub)
        if known is None or known.head != head:
            self._watch(reply, hub, at)  # first: a bad cosignature must not keep us from looking
        if reply.cosignature and reply.remembered > signed:
            with self._write() as session:
                exchange.keep(session, LOG, parse_signature(reply.cosignature), hub, reply.remembered, at)

    def _watch(self, reply: Reply, hub: Ed25519PublicKey, at: datetime) -> None:
        fork: BractError | None = None
        with self._write() as session:
            try:
                exchange.watch(session, LOG, reply.shown, hub, name=self._keys.site, key=self._keys.signing, at=at)
            except BractError as error:
                if error.code == LOG_FORKED:
                    fork = error
                    forks.find(session, LOG, reply.shown.note, hub, error.detail, actor=self.site, at=at)
                elif error.code != STATE:  # the proof begins elsewhere: the next exchange asks from there
                    raise
        if fork is not None:
            raise fork

    def disowned(self, at: datetime) -> None:
        """Note that the hub says of our own log that it does not continue what it saw."""
        with self._write() as session:
            shown = exchange.show(session, LOG, self._keys.signing, 0)
            key = self._keys.signing.public_key()
            cause = "the hub saw another history of this log"
            forks.find(session, LOG, shown.note, key, cause, actor=self.site, at=at)

    def check_forks(self) -> None:
        """That no fork stands.

        Raises:
            BractError: `log-forked`.
        """
        with self._read() as session:
            found = forks.standing(session, LOG)
        if found:
            raise BractError(LOG_FORKED, found[0].cause)

    def forks(self) -> tuple[Fork, ...]:
        """Every fork that was found, in the hub's log or in ours, lifted or not, oldest first."""
        with self._read() as session:
            return forks.found(session, LOG)

    def accept_fork(self, person: str, reason: str, at: datetime) -> None:
        """Lift every standing fork on a named person's word.

        Raises:
            BractError: `wrong-state` when none stands; `malformed` without a name or a reason.
        """
        with self._write() as session:
            lifted = forks.standing(session, LOG)
            forks.accept(session, LOG, lifted, person, reason, actor=self.site, at=at)

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
        with self._write() as session:
            if not lines or exchange.head_of(session, LOG, read.head.size) != read.head:
                raise BractError(UNTRUSTED, "the note is not of this log, or without that witness' line")
            return exchange.keep(session, LOG, lines[-1], key, read.head.size, at)

    @property
    def verify_key(self) -> Ed25519PublicKey:
        """The key with which everything that the site signs verifies."""
        return self._keys.signing.public_key()

    def head(self) -> Head | None:
        """The newest signed head, None before there is one."""
        with self._read() as session:
            last = exchange.newest(session, LOG)
            return None if last is None else last[0]

    def note(self) -> bytes:
        """The newest signed head as a C2SP note, with the cosignatures of that size.

        Raises:
            BractError: `wrong-state` before anything is signed.
        """
        with self._read() as session:
            last = exchange.newest(session, LOG)
            if last is None:
                raise BractError(STATE, "the log is empty")
            return exchange.note_of(session, LOG, self._keys.signing, last[0]).to_bytes()

    def proof(self, seq: int) -> Proof:
        """The proof that the log has an entry, under the newest checkpoint.

        Raises:
            BractError: `wrong-state` when there is no such entry, or none has been signed since: `checkpoint` first.
        """
        with self._read() as session:
            return exchange.prove(session, LOG, self._keys.signing, seq)

    def entry_about(self, kind: str, about: str) -> LogEntry | None:
        """The newest entry of a kind about a name or digest."""
        with self._read() as session:
            return shelf.newest_about(session.connection(), LOG, kind, about)

    def erase_body(self, seq: int, person: str, reason: str, at: datetime) -> int:
        """Delete an entry's body for good; a new entry says so, by whom and why. The tree still verifies.

        Raises:
            BractError: `wrong-state` when there is no such body, or what is derived is checked against it.
        """
        with self._write() as session:
            return book.erase(session, LOG, seq, actor=self.site, person=person, reason=reason, at=at, needed=_NEEDED)
