"""What every table of the site registry shares."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import Float, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase

from bract.database import Number, Utc, metadata

NAME = String(63)
EVERYWHERE = ""
"""The scope of a decision that holds for all of the site's data sets."""


class Base(DeclarativeBase):
    """All tables of the site registry."""

    metadata = metadata()
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Utc(),
        bytes: LargeBinary(),
        int: Number,
        float: Float(53),
    }
