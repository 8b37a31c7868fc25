"""`bract encoder`: the versions that campaigns made; export and judge them."""

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.errors import ALREADY_EXISTS, BractError
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry, open_store

app = typer.Typer(help="Encoder versions.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_versions(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """All versions, newest last."""
    registry = open_registry(open_home(hub))
    names = {c.digest: c.plan.name for c in registry.campaigns()}
    rows: list[dict[str, Any]] = [
        {
            "version": v.digest,
            "campaign": names[v.value.campaign],
            "round": v.value.number,
            "sites": len(v.value.contributions),
            "bytes": v.value.arrays_bytes,
            "created_at": v.created_at.isoformat(),
        }
        for v in registry.versions()
    ]
    if as_json:
        console.emit(rows)
        return
    cells = [(r["version"][:19], r["campaign"], r["round"], r["sites"], r["bytes"], r["created_at"][:19]) for r in rows]
    console.out.print(
        console.table("encoder versions", ("version", "campaign", "round", "sites", "bytes", "created"), cells)
    )


@app.command()
def export(
    campaign: Annotated[str, typer.Argument(help="The campaign's name.")],
    out: Annotated[Path, typer.Argument(help="The safetensors file to write.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Copy a campaign's newest encoder (and decoder) to a safetensors file."""
    home = open_home(hub)
    registry = open_registry(home)
    version = registry.latest_version(registry.campaign(campaign).digest)
    if out.exists():
        raise BractError(ALREADY_EXISTS, out.name)
    registry.note_export(version.value.arrays, str(out.absolute()), now())
    shutil.copyfile(open_store(home).read(version.value.arrays), out)
    told = {"version": version.digest, "arrays": version.value.arrays, "file": str(out)}
    if as_json:
        console.emit(told)
        return
    console.out.print(f"{out}: version {version.digest}")


@app.command()
def probe(
    campaign: Annotated[str, typer.Argument(help="The campaign's name.")],
    register: Annotated[bool, typer.Option("--register", help="Register it in lineage as an evaluation.")] = False,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Linear probe of the newest encoder on labelled persons who are at no site, beside three baselines."""
    from bract_server.evaluate.campaign import judge, plain, record, show  # noqa: PLC0415 - loads torch

    home = open_home(hub)
    registry = open_registry(home)
    with console.err.status("training probes"):
        report = judge(registry, open_store(home), campaign)
    evaluation = record(registry, campaign, report, now()) if register else None
    if as_json:
        console.emit({**plain(report), **({"evaluation": evaluation} if evaluation else {})})
        return
    console.out.print(show(report))
    if evaluation:
        console.out.print(f"evaluation {evaluation}")
