"""The hub's registry: sites, campaigns, rounds, what sites signed, versions, lineage, withdrawals, and the log."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
"""The schema's history, for `bract.migrations.migrate`."""
