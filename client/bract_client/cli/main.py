"""The tree of verbs of `bract-site`."""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bract import __version__, console
from bract.digest import Digest
from bract.enrolment import EnrolBundle, grouped, hub_fingerprint, read_fingerprint
from bract.files import write_atomic
from bract.signing import parse_envelope
from bract.supervisor import Supervisor, only_one
from bract.value import decode
from bract_client import doctor as checks
from bract_client import enrol as enrolling
from bract_client import home as homes
from bract_client.cli import ask, audit, bundle, data, export, log, privacy, registry, retention, subject
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.settings import SiteSettings
from bract_client.site import open_registry, open_site, programs, schema_revisions

app = typer.Typer(
    help="Federated, private, self-supervised pretraining on data that needs consent: the site's side.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(data.consent, name="consent")
app.add_typer(subject.app, name="subject")
app.add_typer(export.app, name="export")
app.add_typer(retention.app, name="retention")
app.add_typer(log.app, name="log")
app.add_typer(registry.app, name="registry")
app.add_typer(bundle.app, name="audit")
ask.join(bundle.app)
app.command("ledger")(privacy.ledger)
app.command("receipts")(privacy.receipts)
app.command("audit-mechanism")(audit.audit)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A folder that is absent or empty.")],
    name: Annotated[str, typer.Option(help="The site's name at its hub.")],
    subjects_floor: Annotated[
        int, typer.Option(help="A public lower bound on your subjects; it is declared, not counted.")
    ] = 1000,
    runtime_port: Annotated[int, typer.Option(help="A free port, used on this machine only.")] = 9094,
    as_json: AsJson = False,
) -> None:
    """Make a site: its keys are created here and never leave. Its request to the hub is written into the folder."""
    home = homes.create(
        folder,
        name=name,
        settings=decode(SiteSettings, {"name": name, "subjects_floor": subjects_floor, "runtime_port": runtime_port}),
    )
    open_registry(home)
    request = home.root / f"{name}.request"
    write_atomic(request, enrolling.request(home, now()))
    if as_json:
        console.emit({"site": str(home.root), "name": name, "request": str(request)})
        return
    console.out.print(f"Site {name} is in {home.root}; what it agrees to run stands in settings.toml.", soft_wrap=True)
    console.out.print(f"Next, at the hub: bract enrol approve {request}", soft_wrap=True)


@app.command("enrol-request")
def enrol_request(
    out: Annotated[Path, typer.Option(help="Where to write the request.")] = Path("enrol.request"),
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the signed request for the hub's operator again, to renew a certificate; it holds public keys only."""
    home = homes.open_home(site)
    write_atomic(out, enrolling.request(home, now()))
    if as_json:
        console.emit({"request": str(out)})
        return
    console.out.print(f"Request: {out}\nNext, at the hub: bract enrol approve {out}")


@app.command()
def enrol(
    bundle: Annotated[Path, typer.Argument(help="What the hub's operator sent back.")],
    fingerprint: Annotated[str, typer.Option(help="The hub's fingerprint, confirmed with the operator.")] = "",
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Install the hub's bundle, once its fingerprint is confirmed."""
    home = homes.open_home(site)
    read = bundle.read_bytes()
    confirmed = read_fingerprint(fingerprint) if fingerprint else _confirmed(read)
    opened = enrolling.install(home, read, confirmed, now())
    if as_json:
        console.emit({"hub": opened.wire, "fingerprint": confirmed})
        return
    console.out.print(f"Enrolled with the hub at {opened.wire}.\nNext: bract-site data add, then bract-site run")


@app.command()
def run(folder: Annotated[Path, typer.Argument(envvar="BRACT_SITE", help="The site's folder.")] = Path()) -> None:
    """Run the site until Ctrl-C: Flower's SuperNode and the executor that trains."""
    home = homes.open_home(folder)
    open_site(home)
    with only_one(home.root):
        settings = home.settings()

        def ready() -> None:
            console.out.print(
                f"site {settings.name}: serving the hub at {home.bundle().wire}; logs in {home.logs}; Ctrl-C ends it"
            )

        Supervisor(programs(home), console.err.print).run(ready)


@app.command()
def doctor(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Say what is wrong with this site and how to mend it; status 0 when nothing is."""
    home = homes.open_home(site)
    done = checks.examine(home, lambda: schema_revisions(home), now)
    console.show_checks(done, as_json)
    raise typer.Exit(0 if all(check.ok for check in done) else 1)


@app.command()
def version() -> None:
    """The version of bract."""
    console.out.print(__version__)


def main() -> NoReturn:
    """The entry point of `bract-site`."""
    console.run(app)


def _confirmed(bundle: bytes) -> Digest:
    claimed = decode(EnrolBundle, parse_envelope(bundle).payload)
    told = hub_fingerprint(claimed.authority.encode(), claimed.hub_key)
    console.out.print(f"The bundle says that its hub has the fingerprint\n  {told}\n  {grouped(told)}", soft_wrap=True)
    typer.confirm("Did the operator tell you the same, by another channel?", abort=True)
    return told
