"""A site's settings: what `settings.toml` in its folder says, checked once."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bract.dpsgd.engines import EngineName
from bract.plan import Name
from bract.value import decode, plain, read_toml, strict
from bract_client.policy import SitePolicy


@strict
@dataclass(frozen=True)
class SiteSettings:
    """What a steward may set.

    Attributes:
        name: the site's name at its hub.
        subjects_floor: the declared public lower bound on its subjects; a plan's denominators build on it.
        runtime_port: where the site's own executor meets `flower-supernode`, on this machine only.
        database: SQLAlchemy URL of the site's registry; None is the SQLite file in the folder.
        threads: processor threads that training may use.
        engine: how clipped sums are computed (`bract.dpsgd.clipper`). Certificates are made with `bract`, the others are
            slower references.
        max_array_bytes: of the encoder that a hub may have it fetch.
        policy: what the site agrees to run.
    """

    name: Name
    subjects_floor: Annotated[int, Field(ge=1, le=10**12)] = 1000
    runtime_port: Annotated[int, Field(ge=1, le=65_535)] = 9094
    database: str | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    engine: EngineName = "bract"
    max_array_bytes: Annotated[int, Field(ge=1, le=1 << 50)] = 8 << 30
    policy: SitePolicy = field(default_factory=SitePolicy)


def read_settings(path: Path) -> SiteSettings:
    """The settings in a TOML file.

    Raises:
        BractError: `malformed`, naming each unknown, missing or wrong field.
    """
    return decode(SiteSettings, read_toml(path))


def settings_toml(settings: SiteSettings) -> bytes:
    """The settings as the TOML file that `read_settings` reads."""
    values = plain(settings)
    policy = values.pop("policy")
    tables, use = {name: policy.pop(name) for name in ("datasets", "peers")}, policy.pop("use")
    lines = ["# A bract site. Unknown names are refused. Restart the site after a change."]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    lines += ["", "# What this site agrees to run. A plan may be tighter, never looser.", "[policy]"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in policy.items()]
    lines += [
        "",
        "# What is known of the use; consent under a condition counts only if this satisfies it.",
        "[policy.use]",
    ]
    lines += [f"{key} = {json.dumps(value)}" for key, value in use.items() if value is not None]
    for name, rows in tables.items():
        for row in rows:
            lines += ["", f"[[policy.{name}]]", *(f"{key} = {json.dumps(value)}" for key, value in row.items())]
    return ("\n".join(lines) + "\n").encode()
