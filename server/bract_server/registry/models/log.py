"""The tables of the log."""

from bract.log import book
from bract_server.registry.models.base import Base

LOG = book.tables(Base.metadata)
