"""Options that many verbs share: which hub, and whether a script is reading."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

HubFolder = Annotated[Path, typer.Option("--hub", envvar="BRACT_HUB", help="The hub's folder.", show_default="here")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def now() -> datetime:
    """The command line's clock."""
    return datetime.now(UTC)
