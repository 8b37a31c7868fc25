"""`bract sample` and `bract demo`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.errors import MALFORMED, BractError
from bract.files import write_atomic
from bract_server.cli.options import AsJson


def sample(
    name: Annotated[str, typer.Argument(help="adult, digits or mnist.")],
    folder: Annotated[Path, typer.Argument(help="A new folder; each site's part goes into one below it.")],
    sites: Annotated[list[str], typer.Option("--site", help="A site's name; once for each site.")],
    as_json: AsJson = False,
) -> None:
    """Write real sample data, split unevenly over sites, with people's decisions about them."""
    from bract.samples import SAMPLE_SEED, SAMPLES, write_images, write_table  # noqa: PLC0415 - pyarrow

    if name not in SAMPLES:
        raise BractError(MALFORMED, f"sample: {', '.join(SAMPLES)}")
    parts = SAMPLES[name](len(sites), SAMPLE_SEED)
    for site, part in zip(sites, parts.sites, strict=True):
        (write_table if name == "adult" else write_images)(folder / site, part)
    told = [
        {"site": s, "folder": str(folder / s), "records": len(p.record_ids)}
        for s, p in zip(sites, parts.sites, strict=True)
    ]
    if as_json:
        console.emit(told)
        return
    for one in told:
        console.out.print(f"{one['folder']}: {one['records']} records")


def demo(
    out: Annotated[Path, typer.Option(help="Where hub and sites are made; with a number if it exists.")] = Path(
        "bract-demo"
    ),
    json_file: Annotated[Path | None, typer.Option("--json", help="Write what happened to this file.")] = None,
    sites: Annotated[int, typer.Option(min=3, max=12, help="How many sites.")] = 3,
    rounds: Annotated[int, typer.Option(min=4, max=100, help="How many rounds.")] = 6,
) -> None:
    """The whole journey on this machine: keys, consent, private rounds, a withdrawal, a crash, a probe, the log."""
    from bract_server.demo.story import tell  # noqa: PLC0415 - loads torch

    told = tell(_unused(out), sites, rounds)
    if json_file is not None:
        write_atomic(json_file.absolute(), json.dumps(told, indent=2).encode())
        console.out.print(f"Everything above as JSON: {json_file}")


def _unused(folder: Path) -> Path:
    """The folder, or the same with a number when there is one from an earlier run."""
    candidates = [folder, *(folder.with_name(f"{folder.name}-{i}") for i in range(2, 1000))]
    return next(one for one in candidates if not one.exists())
