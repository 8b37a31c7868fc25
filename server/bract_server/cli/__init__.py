"""`bract`: the operator's and auditor's command line. Thin: each verb calls one function elsewhere and shows its answer."""

from bract_server.cli.main import main

__all__ = ["main"]
