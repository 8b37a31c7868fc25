"""Whatever order people, imports, the clock and rounds come in: who is admitted has consented, at the moment of use.

One interleaving is one person's own random history (permits, refusals, withdrawals, ends, corrections, imports that come
late or speak of later, their record coming and going) among a site's random freezes, clearances, reservations and rounds.
Hundreds of people share a site, so that thousands fit into a minute. What is right is told by `consented`: brute
force over what each person was made to say here; it has nothing from `bract.consent` but the words.
"""

import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from bract.consent import ConsentEvent, Decision, Evidence, Purpose
from bract.digest import Digest, digest
from bract.errors import NO_ADMITTED, STALE_CLEARANCE, BractError
from bract.value import digest_value
from bract_client.registry.store import SiteRegistry
from tests.client.site_world import (
    HOUR,
    PRETRAINING,
    T0,
    Person,
    add_table,
    campaign,
    open_registry,
    write_table,
)

USE = PRETRAINING.value
WIDER = "research"  # covers pretraining [GA4GH DUO:0000042 and what it holds]
OTHER = Purpose.EVALUATION.value
MINUTE = timedelta(minutes=1)
HEAD = "subject_id,purpose,decision,valid_from,valid_to,dataset\n"
SHOWN = Evidence(digest=digest(b"letter"))
REFUSALS = ("deny", "withdraw", "object")


class Said(NamedTuple):
    """One statement of one person, as the test made it."""

    purpose: str
    scope: str | None
    decision: str
    begins: datetime
    ends: datetime | None = None


@dataclass
class Subject:
    """A person: what was said so far, what of it was taken back, and whether a record is there (and which one)."""

    name: str
    said: list[Said] = field(default_factory=list)
    gone: set[Said] = field(default_factory=set)
    there: bool = True
    record: int = 0

    def say(self, *statements: Said) -> None:
        self.said += [one for one in statements if one not in self.said]

    def refuse(self, *statements: Said) -> None:
        """A refusal at the desk also meets what was announced for later."""
        later = [
            one._replace(begins=known.begins)
            for one in statements
            for known in self.said
            if known.decision == "permit"
            and known.begins > one.begins
            and (known.purpose, known.scope) == (one.purpose, one.scope)
        ]
        self.say(*statements, *later)


def consented(person: Subject, at: datetime) -> bool:
    """Whether a person permits pretraining on the table at a moment, by all that was said."""
    live = [
        one
        for one in person.said
        if one not in person.gone and one.purpose in (USE, WIDER) and one.scope in (None, "adult") and one.begins <= at
    ]
    yes = False
    for key in {(one.purpose, one.scope) for one in live}:
        decided = [one for one in live if (one.purpose, one.scope) == key and one.decision != "expire"]
        if not decided:
            continue
        newest = max(one.begins for one in decided)
        last = [one for one in decided if one.begins == newest]
        if any(one.decision in REFUSALS for one in last):
            return False
        lapsed = any(
            one.decision == "expire" and (one.purpose, one.scope) == key and one.begins >= newest for one in live
        )
        yes = yes or (not lapsed and (last[-1].ends is None or last[-1].ends > at))
    return yes


class Play:
    """A site and its people, played from a seed."""

    def __init__(self, registry: SiteRegistry, folder: Path, count: int, seed: int) -> None:
        self.chance, self.registry, self.folder = random.Random(seed), registry, folder
        self.people = {f"P-{n}": Subject(f"P-{n}") for n in range(count)}
        self.at, self.number, self.checked, self.admitted = T0, 0, 0, 0
        self.frozen: list[tuple[Digest, set[tuple[str, int]], datetime]] = []
        self.plan = campaign(rounds=10_000)
        add_table(registry, folder / "t.parquet", cap=1e6)
        self.ingest()
        self.told([Said(*self.words(), "permit", T0) for _ in range(count)], list(self.people.values()))

    def tick(self) -> datetime:
        self.at += MINUTE
        return self.at

    def ingest(self) -> None:
        """The table with whoever is there now; nobody's row says anything about consent."""
        rows = [Person(f"r-{one.name}", one.name, ()) for one in self.people.values() if one.there]
        write_table(self.folder / "t.parquet", rows)
        self.registry.ingest("adult", self.tick())

    def leave_and_return(self) -> None:
        for one in self.chance.sample(list(self.people.values()), len(self.people) // 10):
            one.there = not one.there
            one.record += one.there
        self.ingest()

    def words(self) -> tuple[str, str | None]:
        return self.chance.choice((USE, USE, WIDER, OTHER)), self.chance.choice((None, None, "adult"))

    def imported(self) -> None:
        """A file of decisions, some of them of the past or the future."""
        people, said = self.chance.sample(list(self.people.values()), len(self.people) // 4), []
        for _ in people:
            decision = self.chance.choice(("permit", "permit", "permit", "permit", "deny", "withdraw", "expire"))
            begins = T0 + self.chance.randrange(-60, 200) * MINUTE
            ends = begins + self.chance.randrange(1, 200) * MINUTE if decision == "permit" else None
            said.append(Said(*self.words(), decision, begins, self.chance.choice((None, ends))))
        self.told(said, people)

    def told(self, said: list[Said], people: list[Subject]) -> None:
        lines = []
        for one, words in zip(people, said, strict=True):
            one.say(words)
            purpose, scope, decision, begins, ends = words
            until = "" if ends is None else ends.isoformat()
            lines.append(f"{one.name},{purpose},{decision},{begins.isoformat()},{until},{scope or ''}\n")
        path = self.folder / "c.csv"
        path.write_text(HEAD + "".join(lines))
        assert not self.registry.import_consent(path, self.tick()).unreadable

    def at_the_desk(self) -> None:
        """One person decides, withdraws, or has something put right."""
        one, at = self.chance.choice(list(self.people.values())), self.tick()
        verb = self.chance.choice(("permit", "permit", "deny", "object", "expire", "withdraw all", "correct"))
        if verb == "withdraw all":
            self.registry.withdraw(one.name, at)
            one.refuse(*(Said(purpose.value, None, "withdraw", at) for purpose in Purpose))
        elif verb == "correct":
            self.correct(one, at)
        else:
            purpose, scope = self.words()
            ends = at + self.chance.randrange(1, 90) * MINUTE if verb == "permit" else None
            self.registry.decide(one.name, purpose, Decision(verb), at, valid_to=ends, dataset=scope)
            said = Said(purpose, scope, verb, at, ends)
            one.refuse(said) if verb in REFUSALS else one.say(said)

    def correct(self, one: Subject, at: datetime) -> None:
        known = [event for event in self.registry.history(one.name) if event.event.decision is not Decision.CORRECT]
        if not known:
            return
        wrong = self.chance.choice(known)
        was = wrong.event
        instead = None
        if self.chance.random() < 0.5:
            instead = ConsentEvent(USE, Decision.PERMIT, at, at + self.chance.randrange(1, 90) * MINUTE, "adult")
            one.say(Said(USE, "adult", "permit", at, instead.valid_to))
        self.registry.correct(one.name, wrong.seq, SHOWN, at, instead)
        one.gone.add(Said(str(was.purpose), was.dataset, was.decision.value, was.valid_from, was.valid_to))

    def right(self, at: datetime) -> set[tuple[str, int]]:
        return {(one.name, one.record) for one in self.people.values() if one.there and consented(one, at)}

    def freeze(self) -> None:
        """A snapshot and a clearance over it; whoever it holds has consented."""
        at = self.tick()
        snapshot, right = self.registry.freeze("adult", PRETRAINING, at), self.right(at)
        assert self.names(snapshot.root, at) == {name for name, _ in right}
        assert snapshot.subjects == len(right)
        self.frozen.append((snapshot.root, right, at))
        self.number += 1
        try:
            self.registry.clearance(self.plan, self.number, snapshot, HOUR, 1, at)
        except BractError as error:
            assert error.code in (NO_ADMITTED, STALE_CLEARANCE)

    def use(self, given_back: float = 0.3) -> None:
        """A round over some earlier snapshot: at the moment of use only who was in it, is there and consents now."""
        if not self.frozen:
            return
        root, held, _ = self.chance.choice(self.frozen[-4:])
        self.number += 1
        campaign_, at = digest_value(self.plan), self.tick()
        self.registry.reserve(campaign_, self.number, "adult", self.plan.privacy.mechanism, at, HOUR)
        if self.chance.random() < given_back:
            self.registry.relinquish(campaign_, self.number, at)
            return
        self.registry.begin_training(campaign_, self.number, at)
        used, right = self.names(root, at), self.right(at)
        assert used <= {name for name, _ in right}, "admitted ⊆ consented"
        assert used == {name for name, _ in right & held}
        self.checked, self.admitted = self.checked + 1, self.admitted + len(used)

    def names(self, root: Digest, at: datetime) -> set[str]:
        return {member.record_id.removeprefix("r-") for member in self.registry.usable(root, at)}

    def run(self, steps: int) -> None:
        for step in range(1, steps + 1):
            verbs = (self.at_the_desk, self.imported, self.leave_and_return, self.freeze, self.use)
            self.chance.choices(verbs, weights=(50, 5, 2, 3, 6))[0]()
            if step % 12 == 0:
                self.freeze()
                self.use(given_back=0)
        self.registry.check()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Memory, where there is some: what is asked here is not whether a disk keeps its word."""
    memory = Path("/dev/shm")  # noqa: S108
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="bract-", dir=memory) as made:
        yield Path(made)


def test_five_hundred_interleavings_admit_only_who_consents(database_url: str, tmp_path: Path) -> None:
    engine, registry = open_registry(database_url)
    play = Play(registry, tmp_path, 500, seed=7)
    play.run(60)
    assert play.checked >= 5 and play.admitted > 100
    registry.verify_log()
    engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("part", [0, *(pytest.param(part, marks=pytest.mark.nightly) for part in range(1, 10))])
def test_ten_thousand_interleavings_admit_only_who_consents(folder: Path, part: int) -> None:
    engine, _ = open_registry(f"sqlite:///{folder / 'empty.db'}")
    engine.dispose()
    for seed in range(2 * part, 2 * part + 2):
        shutil.copy(folder / "empty.db", folder / "r.db")
        engine, registry = open_registry(f"sqlite:///{folder / 'r.db'}")
        play = Play(registry, folder, 500, seed)
        play.run(60)
        assert play.checked >= 5 and play.admitted > 100
        engine.dispose()
        for left in folder.glob("r.db*"):
            left.unlink()


def test_the_oracle_sees_one_person_who_should_not_be_there(folder: Path) -> None:
    """The positive control: a permit that the site was told of, and the oracle was not, is found at the next freeze."""
    engine, registry = open_registry(f"sqlite:///{folder / 'r.db'}")
    play = Play(registry, folder, 20, seed=3)
    play.run(30)
    silent = next(one for one in play.people.values() if one.there and not consented(one, play.at))
    for purpose in (USE, WIDER):
        for scope in (None, "adult"):
            registry.decide(silent.name, purpose, Decision.PERMIT, play.tick(), dataset=scope)
    with pytest.raises(AssertionError):
        play.freeze()
    engine.dispose()
