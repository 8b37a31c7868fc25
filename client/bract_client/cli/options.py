"""Options that many verbs share: which site, and whether a script is reading."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

SiteFolder = Annotated[
    Path, typer.Option("--site", envvar="BRACT_SITE", help="The site's folder.", show_default="here")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def now() -> datetime:
    """The command line's clock."""
    return datetime.now(UTC)
