"""Runs the revisions in `versions/` (see `bract.database.migrate`)."""

from alembic import context

from bract.database import run_migrations
from bract_client.registry.models import Base

run_migrations(context, Base.metadata)
