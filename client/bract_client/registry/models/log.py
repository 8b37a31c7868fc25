"""The tables of the log."""

from bract.log import book
from bract_client.registry.models.base import Base

LOG = book.tables(Base.metadata)
