"""The tables of retention."""

from bract.disposal import tables
from bract_server.registry.models.base import Base

RETENTION = tables.tables(Base.metadata)
