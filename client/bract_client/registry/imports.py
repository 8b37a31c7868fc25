"""Taking in what other systems know of people's decisions: in batches, in one transaction, and twice changes nothing.

A line that its source names (a reference) is found again by that name. Says the name something else than before:
    1. A decision that begins later than what it said about the same purpose is a new one; the old one counts until then.
    2. Otherwise what it said was an error, and what it says now takes its place; of a refusal only with evidence.
    3. A permit that the name has said before, and replaced since, is set aside: an old file brings nobody back.
    4. A permit that takes the place of a refusal, or goes beyond what the name permitted before (longer, from earlier on, for
       another purpose, data set or person, without a condition), counts only if it was written after we recorded what the name
       said last: any other may be the older one of the two. FHIR's versions say when; of a CSV file whoever imports it does.
       Until then only that counts of which both tell: what else the line says (refusals, ends, shorter permits) is recorded,
       and what it permitted before and does not any more is taken back. The report counts the line as set aside.
    5. Says it something that cannot be read, what it said before stays; if that permits, the report names the line, as
       somebody has to look.
A line without a name is known by what it says.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path

from sqlalchemy.orm import Session

from bract.digest import canonical
from bract.errors import MALFORMED, BractError
from bract_client.handles import event_reference
from bract_client.registry import decisions, members
from bract_client.registry.consent import ConsentVerbs
from bract_client.registry.decisions import NewEvent
from bract_client.registry.imported import Content, Past, changes, content, name_of, pasts
from bract_client.sources.consent_csv import read_consent
from bract_client.sources.consent_mapping import OURS, ConsentMapping
from bract_client.sources.fhir import NDJSON, read_fhir
from bract_client.sources.record import Reason, Unreadable
from bract_client.sources.statement import Statement

CSV, FHIR = "csv", "fhir"
BATCH = 5_000
KEPT = 100_000
"""How many set-aside lines a report names; beyond them they are only counted."""


@dataclass(frozen=True)
class ImportReport:
    """What an import of decisions did, in lines: taken, known before, or set aside.

    Attributes:
        unreadable: the first of the lines that were set aside (at most `KEPT`), and why.
        set_aside: all of them by reason; what such a line takes away may have been recorded (rule 4).
        doubtful: the first of the lines that were set aside while what they said before still permits something.
    """

    taken: int
    known: int
    unreadable: tuple[Unreadable, ...]
    set_aside: dict[Reason, int]
    doubtful: tuple[int, ...] = ()


class ImportVerbs(ConsentVerbs):
    """Decisions from files. Identifiers become handles at the door."""

    def import_consent(
        self,
        path: Path,
        at: datetime,
        *,
        mapping: ConsentMapping | None = None,
        fhir: bool | None = None,
        exported: datetime | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> ImportReport:
        """Records the decisions in a file or folder; the same again, in whatever order, changes nothing.

        A subject that no data set has yet is remembered by handle, so that a refusal counts when its data come later.

        Args:
            path: CSV; FHIR as NDJSON, a bundle, a resource or a folder of them.
            at: now.
            mapping: how to read it; None for our own CSV.
            fhir: whether it is FHIR; None to tell by the name.
            exported: when a CSV file was written by its source; None if nobody knows (rule 4).
            progress: hears how many lines were read.

        Raises:
            BractError: `bad-record` when the file as a whole cannot be read; `malformed` without the mapping that it needs, for
                an export after now or of FHIR, which dates itself; `not-installed` for FHIR without its extra. Nothing is
                recorded then.
        """
        used = mapping or OURS
        if exported is not None and exported > at:
            raise BractError(MALFORMED, "exported: after now")
        if is_fhir(path) if fhir is None else fhir:
            if used.fhir is None:
                raise BractError(
                    MALFORMED, "FHIR needs a mapping with [fhir]: which of a patient's names is the subject's"
                )
            if exported is not None:
                raise BractError(MALFORMED, "exported: FHIR's resources say themselves when they were changed")
            return self.import_statements(read_fhir(path, used.fhir), FHIR, used.source, at, progress)
        if used.csv is None:
            raise BractError(MALFORMED, "the mapping has no [csv]")
        return self.import_statements(
            read_consent(path, None if mapping is None else used.csv, exported), CSV, used.source, at, progress
        )

    def import_statements(
        self,
        items: Iterable[Statement | Unreadable],
        form: str,
        source: str,
        at: datetime,
        progress: Callable[[int], None] | None = None,
    ) -> ImportReport:
        """Records what any reader gives, in one transaction.

        Args:
            items: lines; `BATCH` of them are in memory at a time.
            form: what kind of file it is, at most 16 characters; stands in every event.
            source: which system it comes from; references count within it.
            at: now.
            progress: hears how many lines were read.

        Raises:
            BractError: whatever the reader raises; nothing is recorded then.
        """
        tally = _Tally()
        with self._write() as session:
            for batch in _batches(items):
                self._aside(session, [item for item in batch if isinstance(item, Unreadable)], (form, source), tally)
                self._batch(session, [item for item in batch if isinstance(item, Statement)], (form, source), at, tally)
                if progress is not None:
                    progress(tally.lines)
            aside = sum(tally.reasons.values())
            body = {"taken": tally.taken, "known": tally.known, "unreadable": aside, "source": source}
            self._log(session, "consent.import", form, body, at)
        return ImportReport(
            tally.taken, tally.known, tuple(tally.kept), dict(tally.reasons), tuple(sorted(tally.doubtful))
        )

    def _aside(self, session: Session, lines: list[Unreadable], origin: tuple[str, str], tally: "_Tally") -> None:
        """Counts lines that cannot be read, and looks whether what they said before still permits something."""
        tally.aside(lines)
        named = {line.line: self._base(line.reference, origin) for line in lines if line.reference is not None}
        before = pasts(session, origin[0], named.values())
        tally.doubt(number for number, base in named.items() if before.get(base, Past()).permits)

    def _batch(
        self, session: Session, lines: list[Statement], origin: tuple[str, str], at: datetime, tally: "_Tally"
    ) -> None:
        form, _ = origin
        people = (one.subject_id for one in lines if one.subject_id is not None)
        numbers = members.subjects(session, self._keys, people, at)
        named = {line.reference: self._base(line.reference, origin) for line in lines if line.reference is not None}
        before = pasts(session, form, named.values())
        here: dict[str, frozenset[Content]] = {}
        told, less = list[list[NewEvent]](), list[NewEvent]()
        for line in lines:
            number = numbers.get(line.subject_id or "", 0)
            if line.reference is None:
                told.append([self._event(number, line.subject_id or "", event, form) for event in line.events])
                continue
            base = named[line.reference]
            past = before.get(base, Past())
            now = frozenset(content(number, event) for event in line.events)
            if now == here.get(base, past.last):
                told.append([])
            elif tally.again(base):
                tally.aside([Unreadable(line.line, Reason.SAID_TWICE)])
                tally.doubt([line.line] if past.permits else [])
            else:
                here[base] = now
                change, generation = changes(past, number, line, at), len(past.generations)
                events = [
                    NewEvent(subject_no, event, form, name_of(base, generation, place))
                    for place, (subject_no, event) in enumerate(change.events)
                ]
                if change.aside is None:
                    told.append(events)
                else:
                    tally.aside([Unreadable(line.line, change.aside)])
                    less += events
            tally.seen.add(_mark(base))
        self._record(session, told, less, at, tally)

    def _record(
        self, session: Session, told: list[list[NewEvent]], less: list[NewEvent], at: datetime, tally: "_Tally"
    ) -> None:
        """Adds what is new, and counts the lines that brought something; `less` is of lines that are counted as set aside."""
        recorded = decisions.record(session, [*(event for events in told for event in events), *less], at)
        fresh: set[str] = set()
        if recorded is not None:
            self._decided(session, recorded, at)
            fresh.update(event.reference for event in recorded.events)
        for events in told:
            names = {event.reference for event in events}
            tally.count(taken=not names.isdisjoint(fresh))
            fresh -= names

    def _base(self, reference: str, origin: tuple[str, str]) -> str:
        """The keyed name of a line; the source's own name of it is not kept."""
        return event_reference(self._keys.subject, canonical(["line", *origin, reference]))


@dataclass
class _Tally:
    """What came of the lines so far; `seen` holds 60 bits of each line's name, about 70 bytes in memory."""

    taken: int = 0
    known: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)
    kept: list[Unreadable] = field(default_factory=list)
    doubtful: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    @property
    def lines(self) -> int:
        return self.taken + self.known + sum(self.reasons.values())

    def again(self, base: str) -> bool:
        return _mark(base) in self.seen

    def count(self, *, taken: bool) -> None:
        self.taken += taken
        self.known += not taken

    def doubt(self, lines: Iterable[int]) -> None:
        self.doubtful.extend(islice(lines, KEPT - len(self.doubtful)))

    def aside(self, lines: Iterable[Unreadable]) -> None:
        for line in lines:
            self.reasons[line.reason] += 1
            if len(self.kept) < KEPT:
                self.kept.append(line)


def is_fhir(path: Path) -> bool:
    """Whether the name says that it is FHIR: JSON, NDJSON or a folder."""
    return path.suffix.lower() in {".json", *NDJSON} or path.is_dir()


def _mark(base: str) -> int:
    return int(base[:15], 16)


def _batches(items: Iterable[Statement | Unreadable]) -> Iterator[list[Statement | Unreadable]]:
    rest = iter(items)
    while batch := list(islice(rest, BATCH)):
        yield batch
