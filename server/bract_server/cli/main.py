"""The tree of verbs of `bract`."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bract import __version__, console
from bract.enrolment import grouped
from bract.objectives.spec import CATALOGUE, PrivacyStructure
from bract.supervisor import Supervisor, is_running, only_one
from bract_server import disposal
from bract_server import doctor as checks
from bract_server import home as homes
from bract_server.cli import (
    approval,
    ask,
    audit,
    campaign,
    demo,
    encoder,
    enrol,
    export,
    ledger,
    lineage,
    log,
    privacy,
    records,
    release,
    retention,
)
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.hub import open_registry, programs, schema_revisions

app = typer.Typer(
    help="Federated, private, self-supervised pretraining on data that needs consent: the hub's side.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(enrol.app, name="enrol")
app.add_typer(campaign.app, name="campaign")
app.add_typer(encoder.app, name="encoder")
app.add_typer(lineage.app, name="lineage")
app.add_typer(release.app, name="release")
app.add_typer(approval.app, name="approval")
app.add_typer(records.withdrawals, name="withdrawal")
app.add_typer(retention.app, name="retention")
app.add_typer(log.app, name="log")
app.add_typer(audit.app, name="audit")
ask.join(audit.app)
app.add_typer(privacy.app, name="privacy")
app.add_typer(ledger.app, name="ledger")
app.add_typer(export.app, name="export")
app.command("sample")(demo.sample)
app.command("demo")(demo.demo)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is absent or empty.")],
    name: Annotated[str, typer.Option(help="The hub's public name.")] = "hub",
    host: Annotated[str, typer.Option(help="Where sites will reach it: a DNS name or an IP address.")] = "127.0.0.1",
    fleet_port: Annotated[int, typer.Option(help="Flower's port.")] = 8000,
    wire_port: Annotated[int, typer.Option(help="The port of arrays and registry.")] = 8001,
    as_json: AsJson = False,
) -> None:
    """Make a hub: certificate authority, keys, operator token, registry, settings."""
    home = homes.create(folder, name=name, host=host, fleet_port=fleet_port, wire_port=wire_port, at=now())
    open_registry(home)
    if as_json:
        console.emit({"hub": str(home.root), "fingerprint": home.fingerprint()})
        return
    console.out.print(f"Hub {name} is in {home.root}")
    console.out.print(f"Its fingerprint, which every site confirms before it enrols:\n  {home.fingerprint()}")
    console.out.print(f"  {grouped(home.fingerprint())}", soft_wrap=True)
    console.out.print(f"Next: bract hub {folder}")


@app.command()
def hub(folder: Annotated[Path, typer.Argument(envvar="BRACT_HUB", help="The hub's folder.")] = Path()) -> None:
    """Run the hub until Ctrl-C: Flower's SuperLink, the gRPC services, the launcher of campaigns."""
    home = homes.open_home(folder)
    with only_one(home.root):
        settings = home.settings()
        disposal.before_start(home, open_registry(home), now)

        def ready() -> None:
            console.out.print(
                f"hub {settings.name}: Flower at {settings.fleet}, arrays and registry at {settings.wire}"
            )
            console.out.print(f"logs in {home.logs}; Ctrl-C ends it")

        Supervisor(programs(home), console.err.print).run(ready)


@app.command()
def doctor(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Say what is wrong with this hub and how to mend it; status 0 when nothing is."""
    home = homes.open_home(hub)
    done = checks.examine(home, lambda: schema_revisions(home), now(), running=is_running(home.root))
    console.show_checks(done, as_json)
    raise typer.Exit(0 if all(check.ok for check in done) else 1)


@app.command()
def renew(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Give the hub a new server certificate, as its settings say; restart it afterwards. Sites notice nothing."""
    home = homes.open_home(hub)
    homes.renew(home, now())
    if as_json:
        console.emit({"certificate": str(home.server_file)})
        return
    console.out.print("The server certificate is renewed; restart the hub.")


@app.command()
def objectives(as_json: AsJson = False) -> None:
    """The encoders and objectives of this version, and how far one subject moves what a step of each releases."""
    sizes = {
        PrivacyStructure.PER_RECORD: "Δ = C",
        PrivacyStructure.PER_GROUP: "Δ = 2C",
        PrivacyStructure.RELEASED_MOMENT: "Δ = C, joint with a moment's 1",
        PrivacyStructure.NONE: "No DP guarantee",
    }
    if as_json:
        console.emit(
            [
                {
                    "objective": kind,
                    "encoders": list(entry.encoders),
                    "structure": entry.structure.value,
                    "sensitivity": sizes[entry.structure],
                    "paper": entry.paper,
                }
                for kind, entry in CATALOGUE.items()
            ]
        )
        return
    rows = [(kind, ", ".join(e.encoders), sizes[e.structure], e.paper) for kind, e in CATALOGUE.items()]
    console.out.print(console.table("objectives", ("objective", "encoders", "sensitivity", "paper"), rows))


@app.command()
def version() -> None:
    """The version of bract."""
    console.out.print(__version__)


def main() -> NoReturn:
    """The entry point of `bract`."""
    console.run(app)
