"""The tables of retention."""

from bract.disposal import tables
from bract_client.registry.models.base import Base

RETENTION = tables.tables(Base.metadata)
