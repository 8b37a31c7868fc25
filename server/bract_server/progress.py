"""How a campaign stands, read from the registry alone: for `watch`, `show`, the demo and scripts."""

from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bract import console
from bract.plan import CampaignPlan
from bract.privacy.accounting import epsilon, rounded_up, shown
from bract.value import plain
from bract_server.registry.store import HubRegistry, Run
from bract_server.registry.views import Inspection, RoundReport

_COLOURS = {"committed": "green", "running": "cyan", "planned": "cyan", "aborted": "red"}


@dataclass(frozen=True)
class SiteCost:
    """What a site's reservations for this data set cost together, as the hub sees them, and the site's own cap."""

    name: str
    epsilon: float
    epsilon_cap: float | None
    quarantined: bool = False


@dataclass(frozen=True)
class Progress:
    """A campaign, its rounds so far, each site's privacy cost, and the lives of its process."""

    name: str
    digest: str
    state: str
    reason: str
    plan: CampaignPlan
    rounds: tuple[RoundReport, ...]
    sites: tuple[SiteCost, ...]
    runs: tuple[Run, ...] = ()

    def plain(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "campaign": self.digest,
            "state": self.state,
            "reason": self.reason,
            "plan": plain(self.plan),
            "rounds": [_round(report) for report in self.rounds],
            "sites": [
                {
                    "name": site.name,
                    "epsilon": site.epsilon,
                    "epsilon_cap": site.epsilon_cap,
                    "delta": self.plan.privacy.delta,
                    "quarantined": site.quarantined,
                }
                for site in self.sites
            ],
            "runs": [
                {
                    "epoch": run.epoch,
                    "opened_at": run.opened_at.isoformat(),
                    "after": run.after,
                    "flower": run.flower_run,
                }
                for run in self.runs
            ],
        }


def progress(registry: HubRegistry, name: str) -> Progress:
    """The campaign of that name as it stands now.

    Raises:
        BractError: `unknown-campaign`.
    """
    campaign = registry.campaign(name)
    plan = campaign.plan
    costs = []
    for site in plan.sites:
        spent = registry.spent(site.name, plan.dataset)
        cap = registry.epsilon_cap(site.name, plan.dataset)
        apart = registry.site(site.name).quarantined_at is not None
        costs.append(SiteCost(site.name, rounded_up(epsilon(spent, plan.privacy.delta)), cap, apart))
    rounds = registry.rounds(campaign.digest)
    runs = registry.runs(campaign.digest)
    return Progress(name, campaign.digest, campaign.state, campaign.reason, plan, rounds, tuple(costs), runs)


def line(report: RoundReport) -> str:
    """One round in one line, for pipes and logs."""
    missing = ", ".join(f"{site} ({code})" for site, code in sorted(report.missing.items()))
    took = "" if report.seconds is None else f" in {report.seconds:.1f} s, {report.bytes_moved / 1e6:.1f} MB"
    named = "" if report.version is None else f" → {report.version[:19]}"
    suspected = ", ".join(_suspected(report))
    return (
        f"round {report.number} {report.state}{named}: {', '.join(report.participants) or 'nobody'}"
        f"{f'; missing {missing}' if missing else ''}{f'; {suspected}' if suspected else ''}{took}"
    )


def _suspected(report: RoundReport) -> list[str]:
    """The sites that the backdoor check suspects, with their scores, and whether their updates are left out."""
    if report.inspection is None:
        return []
    outcome = "left out" if report.inspection.excluded else "kept"
    return [f"{site} suspected ({report.inspection.scores[site]:.2f}, {outcome})" for site in report.inspection.flagged]


def render(seen: Progress) -> Group:
    """The campaign for a terminal."""
    committed = sum(report.state == "committed" for report in seen.rounds)
    head = Text(f"campaign {seen.name}: {seen.state}, {committed} of {seen.plan.rounds} rounds committed")
    if seen.plan.seeded_test is not None:
        head.append("; SEEDED TEST: No DP guarantee", style="bold red")
    if seen.reason:
        head.append(f" ({seen.reason})")
    if again := [run.after for run in seen.runs if run.after]:
        head.append(f"; taken up again {len(again)} times, last after {again[-1]}")
    if apart := [site.name for site in seen.sites if site.quarantined]:
        head.append(f"; in quarantine: {', '.join(apart)}", style="bold red")
    rounds = Table("round", "state", "in", "others", "encoder version", "MB", "seconds", title_justify="left")
    for report in seen.rounds:
        missing = "\n".join(
            [
                *(f"{site}: {code}" for site, code in sorted(report.missing.items())),
                *(f"{site}: {task}" for site, task in report.tasks.items()),
                *_suspected(report),
            ]
        )
        rounds.add_row(
            str(report.number),
            Text(report.state, style=_COLOURS.get(report.state, "")),
            ", ".join(report.participants),
            missing,
            (report.version or "")[:19],
            f"{report.bytes_moved / 1e6:.1f}" if report.closed_at else "",
            "" if report.seconds is None else f"{report.seconds:.1f}",
        )
    rows = [
        (site.name, shown(site.epsilon), "?" if site.epsilon_cap is None else f"{site.epsilon_cap:g}")
        for site in seen.sites
    ]
    costs = console.table(
        f"privacy (subject; add or remove one; δ = {seen.plan.privacy.delta:g})", ("site", "ε reserved", "cap"), rows
    )
    return Group(head, rounds, costs)


def _round(report: RoundReport) -> dict[str, Any]:
    return {
        "number": report.number,
        "state": report.state,
        "version": report.version,
        "participants": list(report.participants),
        "missing": dict(report.missing),
        "tasks": dict(report.tasks),
        "inspection": None if report.inspection is None else _inspection(report.inspection),
        "opened_at": report.opened_at.isoformat(),
        "seconds": report.seconds,
        "bytes": report.bytes_moved,
    }


def _inspection(found: Inspection) -> dict[str, Any]:
    return {"scores": dict(found.scores), "flagged": list(found.flagged), "excluded": found.excluded}
