"""Runs the revisions in `versions/` (see `bract.migrations.migrate`)."""

from alembic import context

from bract.migrations import run_migrations
from bract_client.registry.models import Base

run_migrations(context, Base.metadata)
