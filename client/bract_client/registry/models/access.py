"""Who read what about persons."""

from datetime import datetime

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from bract_client.registry.models.base import Base


class AccessRow(Base):
    """One reading of what persons' data gave. `subject_no` says whose, where it was one person known here.

    There is no foreign key: the row outlives the subject's.
    """

    __tablename__ = "access_log"
    seq: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    principal: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(16))
    asked: Mapped[str] = mapped_column(String(64))
    purpose: Mapped[str] = mapped_column(Text)
    subject_no: Mapped[int | None] = mapped_column(index=True)
