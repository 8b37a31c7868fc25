"""The story that `bract demo` tells: every number in it is read back from what really ran."""

import csv
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

from bract import console
from bract.consent import Purpose
from bract.errors import NOT_RUNNING, QUORUM, STATE, UNREACHABLE, BractError
from bract.flower import Operator
from bract.privacy.accounting import epsilon, epsilon_prv, epsilon_rdp, rounded_up, shown
from bract_server import campaigns
from bract_server.demo.plan import NAMES, demo_plan, site_settings
from bract_server.demo.stage import HUB, SITE, Stage, command, each, free_ports, stage
from bract_server.evaluate.campaign import judge, plain, show
from bract_server.home import HubHome, open_home
from bract_server.hub import open_registry, open_store
from bract_server.progress import line
from bract_server.registry.store import HubRegistry
from bract_server.registry.views import RoundReport

_WITHDRAW_AFTER, _KILL_IN = 1, 3
_PATIENCE_S = 300.0
_POLL_S = 0.1
CAMPAIGN = "demo"


def say(text: str = "", style: str = "") -> None:
    """One line of the story."""
    console.out.print(text, style=style or None, soft_wrap=True)


def heading(text: str) -> None:
    """The start of a chapter."""
    say(f"\n{text}", "bold cyan")


@dataclass
class Story:
    """The demo as it goes: where things are, and what is told at the end."""

    folder: Path
    stage: Stage
    names: tuple[str, ...]
    home: HubHome
    registry: HubRegistry
    told: dict[str, Any] = field(default_factory=dict)
    withdrawing: Thread | None = None

    def site(self, name: str) -> Path:
        """A site's folder."""
        return self.folder / "sites" / name


def tell(folder: Path, sites: int, rounds: int) -> dict[str, Any]:
    """Run the demo in a new folder; everything that happened, for JSON.

    Raises:
        BractError: what went wrong; all processes are ended first.
    """
    started = time.monotonic()
    folder.mkdir(parents=True)
    with stage(folder) as made:
        story = _cast(folder.absolute(), made, NAMES[:sites])
        _admission(story)
        _campaign(story, rounds)
        _rounds(story, rounds)
        _privacy(story)
        _probe(story)
        _log(story)
    story.told["seconds"] = round(time.monotonic() - started, 1)
    _farewell(story)
    return story.told


def _cast(folder: Path, made: Stage, names: tuple[str, ...]) -> Story:
    heading("1. A hub and its sites: every key is made where it is used")
    fleet, wire, *runtime = free_ports(2 + len(names))
    hub = command(
        HUB, "init", str(folder / "hub"), "--name", "demo-hub", "--fleet-port", str(fleet), "--wire-port", str(wire)
    )
    say(f"hub        fingerprint {hub['fingerprint'][7:27]}…")
    home = open_home(folder / "hub")
    made.start("hub", HUB, "hub", home.root)
    paths = [folder / "sites" / name for name in names]
    each(
        [
            (SITE, "init", str(path), "--name", name, "--subjects-floor", "10000", "--runtime-port", str(port))
            for path, name, port in zip(paths, names, runtime, strict=True)
        ]
    )
    for path in paths:
        site_settings(path / "settings.toml")
    requests = [str(path / f"{name}.request") for name, path in zip(names, paths, strict=True)]
    command(HUB, "enrol", "approve", *requests, "--hub", str(home.root))
    bundles = [request.replace(".request", ".bundle") for request in requests]
    each(
        [
            (SITE, "enrol", bundle, "--fingerprint", hub["fingerprint"], "--site", str(path))
            for bundle, path in zip(bundles, paths, strict=True)
        ]
    )
    for name, path in zip(names, paths, strict=True):
        made.start(name, SITE, "run", path)
    registry = open_registry(home)
    for site in registry.sites():
        say(f"{site.name:10} node key {site.node_fingerprint[7:27]}… (public; the private half never left)")
    return Story(folder, made, names, home, registry)


def _admission(story: Story) -> None:
    heading("2. Consent: nothing is read without it")
    data = story.folder / "data"
    command(HUB, "sample", "adult", str(data), *(word for name in story.names for word in ("--site", name)))
    paths = {name: str(story.site(name)) for name in story.names}
    each([_add_data(data / name, path) for name, path in paths.items()])
    counted = each([(SITE, "data", "admission", "adult", "--site", paths[n]) for n in paths])
    story.told["sites"] = []
    for name, counts in zip(story.names, counted, strict=True):
        refused = ", ".join(f"{count} {reason}" for reason, count in sorted(counts["refused"].items()))
        say(
            f"{name:10} {counts['subjects']} persons admitted; refused: {refused or 'none'}  (these counts stay at the site)"
        )
        story.told["sites"].append({"name": name, "admitted": counts["subjects"], "refused": counts["refused"]})


def _add_data(data: Path, site: str) -> tuple[str, ...]:
    files = ("--table", str(data / "records.parquet"), "--decisions", str(data / "consent.csv"))
    return (SITE, "data", "add", "adult", *files, "--site", site)


def _campaign(story: Story, rounds: int) -> None:
    heading("3. A campaign: pretrain an encoder of table rows, privately")
    plan = demo_plan(CAMPAIGN, story.names, rounds)
    campaigns.create(story.registry, open_store(story.home), plan, datetime.now(UTC))
    privacy = plan.privacy
    say(
        f"masked columns on UCI Adult; unit: one person; σ = {privacy.noise_multiplier:g}, q = {privacy.sampling_rate:g}, "
        f"{privacy.steps} private steps a round, δ = {privacy.delta:g}"
    )
    say(f"all {rounds} rounds will cost each site ε = {shown(campaigns.forecast(plan))}")
    with _operator(story) as door:
        campaigns.start(story.registry, door, CAMPAIGN, datetime.now(UTC))


def _operator(story: Story) -> Operator:
    """The operator's door, once the hub answers."""
    door = campaigns.operator(story.home)
    until = time.monotonic() + _PATIENCE_S
    while True:
        story.stage.check()
        try:
            door.runs()
        except BractError as error:
            if error.code != NOT_RUNNING or time.monotonic() > until:
                raise
            time.sleep(0.5)
        else:
            return door


def _rounds(story: Story, rounds: int) -> None:
    heading("4. Rounds")
    told: set[int] = set()
    victim = story.names[-1]
    rejoined: int | None = None
    withdrawn_in: int | None = None
    until = time.monotonic() + _PATIENCE_S
    while True:
        reports = story.registry.rounds(story.registry.campaign(CAMPAIGN).digest)
        for report in reports:
            if report.closed_at is not None and report.number not in told:
                told.add(report.number)
                until = time.monotonic() + _PATIENCE_S
                say(line(report))
                if len(told) == _WITHDRAW_AFTER:
                    _withdraw(story, report)
                if "fault" in story.told and rejoined is None and report.number > story.told["fault"]["round"]:
                    rejoined = report.number if victim in report.participants else None
                    story.told["fault"]["rejoined_round"] = rejoined
            if report.state == "running" and report.number >= _KILL_IN and "fault" not in story.told:
                # a withdrawal takes its site out of the round it falls into: not of the one that lacks another
                settled = withdrawn_in is not None and report.number > withdrawn_in
                if settled or len(told) >= rounds - 2:
                    _kill(story, victim, report)
        if withdrawn_in is None and story.withdrawing is not None and not story.withdrawing.is_alive():
            withdrawn_in = reports[-1].number
        state = story.registry.campaign(CAMPAIGN)
        if state.state != "running":
            break
        if time.monotonic() > until:
            raise BractError(UNREACHABLE, "the campaign did not end in time")
        story.stage.check()
        time.sleep(_POLL_S)
    if state.state != "completed":
        raise BractError(state.reason if state.reason == QUORUM else STATE, f"the campaign is {state.state}")
    if story.withdrawing is not None:
        story.withdrawing.join()
    _told_rounds(story)
    _affected(story)


def _withdraw(story: Story, after: RoundReport) -> None:
    """Rounds go on meanwhile: on a slow machine the command takes longer than a round."""

    def withdraw() -> None:
        site = story.names[0]
        person = _somebody(story, site)
        snapshots = command(SITE, "subject", "withdraw", person, "--site", str(story.site(site)))["snapshots"]
        say(
            f"  a person at {site} withdraws: out at once there; {len(snapshots)} snapshot(s) held their record",
            "yellow",
        )
        story.told["withdrawal"] = {"site": site, "after_round": after.number, "person": person}

    story.withdrawing = Thread(target=withdraw)
    story.withdrawing.start()


def _somebody(story: Story, site: str) -> str:
    """Who came with consent and never decided otherwise, by the site's own files; the demo plays the steward here."""
    import pyarrow.parquet  # noqa: PLC0415

    folder = story.folder / "data" / site
    with (folder / "consent.csv").open(encoding="utf-8") as file:
        decided = {line["subject_id"] for line in csv.DictReader(file)}
    table = pyarrow.parquet.read_table(folder / "records.parquet", columns=["subject_id", "purposes"])
    for one, purposes in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if one not in decided and Purpose.PRETRAINING in purposes:
            return str(one)
    raise BractError(STATE, "nobody at this site consents")


def _kill(story: Story, victim: str, report: RoundReport) -> None:
    say(f"  round {report.number} is running; SIGKILL to everything of {victim}", "yellow")
    story.stage.kill(victim)
    story.told["fault"] = {"process": f"{victim} (bract-site run)", "round": report.number, "rejoined_round": None}
    story.stage.start(victim, SITE, "run", story.site(victim))
    say(f"  {victim} is started again; its reservation for round {report.number} counts as spent", "yellow")


def _told_rounds(story: Story) -> None:
    reports = story.registry.rounds(story.registry.campaign(CAMPAIGN).digest)
    story.told["rounds"] = [
        {
            "number": report.number,
            "state": report.state,
            "version": report.version,
            "participants": list(report.participants),
            "missing": dict(report.missing),
            "seconds": report.seconds,
            "bytes": report.bytes_moved,
        }
        for report in reports
    ]
    fault = story.told["fault"]
    fault["committed"] = any(r.number == fault["round"] and r.state == "committed" for r in reports)
    say(
        f"round {fault['round']} {'was committed' if fault['committed'] else 'was NOT committed'} without the killed site, "
        f"which was back in round {fault['rejoined_round']}"
    )


def _affected(story: Story) -> None:
    withdrawal = story.told["withdrawal"]
    person = withdrawal.pop("person")
    rounds = command(SITE, "subject", "rounds", person, "--site", str(story.site(withdrawal["site"])))["rounds"]
    held = [r["number"] for r in rounds if r["held"]]
    free = [r["number"] for r in rounds if not r["held"] and r["number"] > withdrawal["after_round"]]
    withdrawal["round_excluded"] = min(free) if free else None
    until = time.monotonic() + _PATIENCE_S
    while not (notices := story.registry.withdrawals()) and time.monotonic() < until:
        time.sleep(_POLL_S)
    impacts = [impact for notice in notices for impact in story.registry.impacts(notice.notice)]
    withdrawal["affected_models"] = [
        {"version": i.version, "round": i.number, "effect": i.effect}
        for i in sorted(impacts, key=lambda i: i.number or 0)
    ]
    say(
        f"the person's record was in the snapshot of round {held}, and in none from round {withdrawal['round_excluded']} on"
    )
    for model in withdrawal["affected_models"]:
        say(f"  affected: version {model['version'][:19]} of round {model['round']}: {model['effect']}")


def _privacy(story: Story) -> None:
    heading("5. What it cost, by independent accountants")
    plan = story.registry.campaign(CAMPAIGN).plan
    delta = plan.privacy.delta
    story.told["privacy"] = {"unit": "subject", "adjacency": "add-or-remove-one", "delta": delta, "sites": []}
    ledgers = each([(SITE, "ledger", "--site", str(story.site(entry["name"]))) for entry in story.told["sites"]])
    for entry, (account,) in zip(story.told["sites"], ledgers, strict=True):
        spent = story.registry.spent(entry["name"], plan.dataset)
        entry["epsilon"], entry["epsilon_cap"] = account["epsilon"], account["epsilon_cap"]
        costs = {
            "name": entry["name"],
            "epsilon_pld": rounded_up(epsilon(spent, delta)),
            "epsilon_prv": rounded_up(epsilon_prv(spent, delta)),
            "epsilon_rdp": rounded_up(epsilon_rdp(spent, delta)),
            "epsilon_ledger": account["epsilon"],
        }
        story.told["privacy"]["sites"].append(costs)
        by = ", ".join(f"{shown(costs[f'epsilon_{name}'])} ({name.upper()})" for name in ("pld", "prv", "rdp"))
        say(
            f"{entry['name']:10} ε = {shown(account['epsilon'])} of {account['epsilon_cap']:g} in the site's own ledger; "
            f"the hub recomputes {by}"
        )


def _probe(story: Story) -> None:
    heading("6. Is the encoder any good? A linear probe on persons who are at no site")
    report = judge(story.registry, open_store(story.home), CAMPAIGN)
    story.told["probe"] = plain(report)
    console.out.print(show(report))


def _log(story: Story) -> None:
    heading("7. The log, recomputed, and verified by whoever trusts nobody")
    hub = command(HUB, "log", "verify", "--hub", str(story.home.root))
    sites = each([(SITE, "log", "verify", "--site", str(story.site(name))) for name in story.names])
    story.told["log"] = {
        "entries": hub["entries"],
        "verified": hub["verified"] and all(site["verified"] for site in sites),
        "sites": {name: site["entries"] for name, site in zip(story.names, sites, strict=True)},
    }
    say(f"hub: {hub['entries']} entries verify; sites: {', '.join(str(s['entries']) for s in sites)} entries verify")
    bundle = story.folder / "audit.zip"
    written = command(HUB, "audit", "bundle", str(bundle), "--hub", str(story.home.root))
    verified = command(HUB, "audit", "verify", str(bundle), "--key", written["fingerprint"])
    story.told["audit"] = {"bundle": str(bundle), "fingerprint": written["fingerprint"], **verified}
    witnesses = ", ".join(f"{name} up to {size}" for name, size in verified["witnesses"].items())
    say(
        f"{bundle.name}: {verified['size']} entries, {verified['signed']} signed things, cosigned by {witnesses or 'nobody'}"
    )


def _farewell(story: Story) -> None:
    heading(f"Done in {story.told['seconds']:.0f} s; everything is in {story.folder}")
    hub, site = story.home.root, story.site(story.names[0])
    say("Try next (bract and bract-site are in .venv/bin):")
    for text in (
        f"bract campaign show {CAMPAIGN} --hub {hub}",
        f"bract audit verify {story.folder / 'audit.zip'} --key {story.home.fingerprint()}",
        f"bract audit ask 6 --hub {hub}",
        f"bract encoder export {CAMPAIGN} encoder.safetensors --hub {hub}",
        f"bract-site ledger --site {site}",
        f"bract-site doctor --site {site}",
    ):
        say(f"  {text}")
