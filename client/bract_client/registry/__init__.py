"""The site's registry: consent, membership, clearances and the privacy ledger. What leaves it is signed."""

from pathlib import Path

MIGRATIONS = Path(__file__).parent / "migrations"
"""The schema's history, for `bract.migrations.migrate`."""
