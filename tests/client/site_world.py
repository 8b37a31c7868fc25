"""A small site for tests: a table of persons on disk, a registry over it, and plans that fit both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from bract.consent import Purpose
from bract.database import open_engine
from bract.digest import digest
from bract.encoders.spec import TableSpec
from bract.objectives.spec import MaskedTableSpec
from bract.plan import CampaignPlan, Place, RoundPlan, SitePlan
from bract.privacy.spec import PrivacySpec
from bract.retention import RetentionRule
from bract.tables import schema
from bract.value import digest_value
from bract_client.registry import MIGRATIONS
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import TableLocation
from tests.migrated import migrated

T0 = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
KEY = bytes(range(32))
SIGNING = Ed25519PrivateKey.from_private_bytes(bytes(32))
PRETRAINING = Purpose.PRETRAINING


@dataclass(frozen=True)
class Person:
    """One row of the table."""

    record_id: object
    subject_id: object
    purposes: object = (PRETRAINING.value,)
    collected_at: object = "2026-01-01T00:00:00+00:00"
    features: Mapping[str, Any] = field(default_factory=dict)


def persons(count: int, purposes: Sequence[str] = (PRETRAINING.value,)) -> list[Person]:
    """Persons P-0 … with one record each; a person's age is 20 plus its number, so rows can be told apart."""
    return [Person(f"r{n}", f"P-{n}", purposes, features={"age": 20 + n}) for n in range(count)]


def write_table(path: Path, rows: Sequence[Person], label: bool = False) -> Path:
    """The persons as the Parquet file that a table source reads."""
    adult = schema("adult")
    columns: dict[str, list[Any]] = {
        "record_id": [row.record_id for row in rows],
        "subject_id": [row.subject_id for row in rows],
        "collected_at": [row.collected_at for row in rows],
        "purposes": [None if row.purposes is None else list(row.purposes) for row in rows],  # type: ignore[call-overload]
    }
    for number in adult.numeric:
        columns[number.name] = [row.features.get(number.name, number.low) for row in rows]
    for category in adult.categorical:
        columns[category.name] = [row.features.get(category.name, category.values[0]) for row in rows]
    if label:
        columns[adult.label] = [adult.labels[0] for _ in rows]
    arrays = {
        name: pa.array(values, pa.list_(pa.string()) if name == "purposes" else None)
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays), path)
    return path


def open_registry(url: str) -> tuple[Engine, SiteRegistry]:
    """A registry at the newest schema on an empty database."""
    engine = open_engine(url)
    migrated(engine, MIGRATIONS)
    return engine, SiteRegistry(engine, KEY, SIGNING, "ward")


def add_table(
    registry: SiteRegistry,
    path: Path,
    name: str = "adult",
    *,
    retention: RetentionRule | None = None,
    cap: float = 8.0,
) -> None:
    """Declares the table as a data set."""
    location = TableLocation("table", str(path), "adult")
    registry.add_dataset(
        name, location, retention=retention or RetentionRule(), subjects_floor=1000, epsilon_cap=cap, delta=1e-6, at=T0
    )


def campaign(records_per_subject: int = 1, **changes: Any) -> CampaignPlan:
    """A campaign over the table."""
    values: dict[str, Any] = {
        "name": "trial",
        "purpose": PRETRAINING,
        "dataset": "adult",
        "encoder": TableSpec("table", "adult"),
        "objective": MaskedTableSpec("masked-table"),
        "privacy": PrivacySpec(1.0, 1.0, 0.1, 10, 1e-6, records_per_subject),
        "sites": (SitePlan("ward"),),
        "rounds": 5,
        "quorum": 1,
    }
    return CampaignPlan(**{**values, **changes})


def round_of(plan: CampaignPlan, number: int, clearance: str, at: datetime, site: str = "ward") -> RoundPlan:
    """A round in which the site has this clearance."""
    place = Place(site, digest(b"x") if clearance == "" else clearance, digest(b"reservation"))  # type: ignore[arg-type]
    return RoundPlan(digest_value(plan), number, digest(b"p"), digest(b"a"), 1, (place,), at, at + HOUR)
