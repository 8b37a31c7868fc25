"""`bract-site`: the steward's command line. Thin: each verb calls one function elsewhere and shows its answer."""

from bract_client.cli.main import main

__all__ = ["main"]
