"""`bract campaign`: create, run, watch, list, show, stop."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live

from bract import console
from bract.plan import CampaignPlan
from bract.privacy.accounting import shown
from bract_server import campaigns
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry, open_store
from bract_server.progress import Progress, line, progress, render
from bract_server.registry.store import HubRegistry

app = typer.Typer(help="Pretraining campaigns.", no_args_is_help=True, rich_markup_mode=None)

_REFRESH_S = 0.5
_ENDED = {"completed", "stopped", "failed"}


@app.command()
def create(
    plan: Annotated[Path, typer.Argument(help="The campaign's plan, a TOML file.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Check a plan, sign it, and store its public initial encoder."""
    home = open_home(hub)
    read = campaigns.read_plan(plan)
    registry = open_registry(home)
    digest = campaigns.create(registry, open_store(home), read, now())
    # the whole campaign's cost at one site that starts from nothing; each site's own ledger has the last word
    epsilon = campaigns.forecast(read) if read.seeded_test is None else None
    whole_site = campaigns.site_forecast(read, registry.latest_version(digest).value.arrays_bytes // 4)
    if as_json:
        told = {"epsilon": epsilon, "delta": read.privacy.delta, "site_epsilon": whole_site}
        console.emit({"campaign": read.name, "digest": digest, **told})
        return
    console.out.print(f"Campaign {read.name}: {digest}")
    if epsilon is None:
        console.out.print(
            "SEEDED TEST: No DP guarantee. Only for made-up people; what comes of it can never be released."
        )
        return
    console.out.print(
        f"{read.rounds} rounds of {read.privacy.steps} private steps cost each site ε = {shown(epsilon)} at δ = "
        f"{read.privacy.delta:g} (unit: consent subject; add or remove one)."
    )
    if read.secure is not None:
        console.out.print(_secure(read, whole_site))
    console.out.print(f"Next: bract campaign run {read.name}")


def _secure(plan: CampaignPlan, whole_site: float | None) -> str:
    """What the hub sees with secure aggregation, and what that proves about a whole site; a subject's ε stays what it is."""
    assert plan.secure is not None  # noqa: S101 - the caller looked
    sees = f"The hub opens sums of at least {plan.secure.threshold} sites' updates, none alone."
    if whole_site is None:
        return f"{sees} For a site as a whole: No DP guarantee."
    return (
        f"{sees} {plan.rounds} such sums show the hub, with {plan.secure.colluders} sites that help it, of any other site "
        f"ε = {shown(whole_site)} at δ = {plan.privacy.delta:g} (unit: a whole site; there or not)."
    )


@app.command()
def run(
    name: str,
    hub: HubFolder = Path(),
    watch: Annotated[bool, typer.Option(help="Show the rounds until the campaign ends.")] = True,
    as_json: AsJson = False,
) -> None:
    """Start a campaign, or take one up again that failed or was stopped; the hub must be running."""
    home = open_home(hub)
    registry = open_registry(home)
    with campaigns.operator(home) as door:
        campaigns.start(registry, door, name, now())
    if watch:
        _follow(hub, name, as_json)
    elif as_json:
        console.emit(progress(registry, name).plain())


@app.command("watch")
def watch_campaign(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Show a campaign's rounds as they happen: sites in and out and why, ε against its cap, bytes, seconds."""
    _follow(hub, name, as_json)


@app.command("list")
def list_campaigns(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """All campaigns."""
    registry = open_registry(open_home(hub))
    rows: list[dict[str, Any]] = [
        {
            "name": c.plan.name,
            "state": c.state,
            "rounds": f"{sum(r.state == 'committed' for r in registry.rounds(c.digest))}/{c.plan.rounds}",
            "purpose": str(c.plan.purpose),
            "created_at": c.created_at.isoformat(),
        }
        for c in registry.campaigns()
    ]
    if as_json:
        console.emit(rows)
        return
    console.out.print(console.table("campaigns", ("name", "state", "rounds", "purpose", "created"), map(_values, rows)))


@app.command()
def show(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """One campaign: plan, rounds, who took part and why others did not."""
    seen = progress(open_registry(open_home(hub)), name)
    if as_json:
        console.emit(seen.plain())
        return
    console.out.print(render(seen))


@app.command()
def stop(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Stop a campaign; a site that trains ends it within half a minute, and what was reserved counts as spent."""
    home = open_home(hub)
    with campaigns.operator(home) as door:
        campaigns.stop(open_registry(home), open_store(home), door, name, now())
    if as_json:
        console.emit(progress(open_registry(home), name).plain())
        return
    console.out.print(f"{name} is stopped.")


def _values(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.values())


def _follow(hub: Path, name: str, as_json: bool) -> None:
    registry = open_registry(open_home(hub))
    seen = progress(registry, name)
    if as_json:
        while seen.state not in _ENDED:
            time.sleep(_REFRESH_S)
            seen = progress(registry, name)
        console.emit(seen.plain())
    elif console.out.is_terminal:
        with Live(render(seen), console=console.out, refresh_per_second=4) as live:
            while seen.state not in _ENDED:
                time.sleep(_REFRESH_S)
                seen = progress(registry, name)
                live.update(render(seen))
    else:
        _lines(registry, seen)
        return
    _verdict(seen)


def _lines(registry: HubRegistry, seen: Progress) -> None:
    """For a pipe or a log: one line a round, once it is closed."""
    told: set[int] = set()
    while True:
        for report in seen.rounds:
            if report.number not in told and report.closed_at is not None:
                told.add(report.number)
                console.out.print(line(report), soft_wrap=True)
        if seen.state in _ENDED:
            break
        time.sleep(_REFRESH_S)
        seen = progress(registry, seen.name)
    _verdict(seen)


def _verdict(seen: Progress) -> None:
    if seen.state == "failed":
        console.err.print(f"campaign {seen.name} failed: {seen.reason}")
        raise typer.Exit(1)
