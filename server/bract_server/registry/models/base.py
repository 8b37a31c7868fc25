"""What every table of the hub's registry shares."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase

from bract.database import Json, Utc, metadata

NameText = String(63)
CodeText = String(64)


class Base(DeclarativeBase):
    """The hub's schema."""

    metadata = metadata()
    type_annotation_map = {datetime: Utc(), bytes: LargeBinary, float: Float(53), dict[str, Any]: Json}  # noqa: RUF012
