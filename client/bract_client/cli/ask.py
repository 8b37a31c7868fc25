"""`bract-site audit ask`: what a site can answer of the fifteen questions."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.answers import read_checkpoint, show, show_questions, user, write
from bract.files import write_atomic
from bract.question import moment, when
from bract.roles import Role
from bract_client.auditor.questions import answered_here, signed
from bract_client.auditor.questions import ask as answer_to
from bract_client.auditor.sight import Arguments, open_sight
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import open_home
from bract_client.registry.access import Reader
from bract_client.site import open_registry

Why = Annotated[str, typer.Option(help="Your purpose, for the access log.")]
As = Annotated[Role, typer.Option("--as", help="In which role you ask; it is recorded.")]

_AT_ONCE = (
    "Signed. Whoever gets this file learns at once which snapshots are meant; notices of withdrawal go in batches, so that "
    "none points at one person."
)


def reader(role: Role, why: str) -> Reader:
    """Who reads at this command line: by their account here, in the role that they name."""
    return Reader(user(), role, why)


def ask(
    number: Annotated[int | None, typer.Argument(help="1 to 15; without one, those a site answers are listed.")] = None,
    person: Annotated[
        str | None, typer.Argument(help="Of whom (1, 14): an identifier or a handle; it is not stored.")
    ] = None,
    campaign: Annotated[
        str | None, typer.Option(help="The digest of a campaign's plan, or its beginning (2, 7).")
    ] = None,
    round_number: Annotated[int | None, typer.Option("--round", help="A round's number (2, 7).")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Persons by number, records one by one (2, 4, 14).")] = False,
    as_of: Annotated[str | None, typer.Option(help="About that time: a date or ISO 8601; default now.")] = None,
    known: Annotated[str | None, typer.Option(help="By what was known then; default now.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint that you kept (3): envelope or note.")] = None,
    out: Annotated[Path | None, typer.Option(help="Sign the snapshots for the hub into this file (1, 2, 7).")] = None,
    why: Why = "not stated",
    role: As = Role.SITE,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this CSV file, with a signed manifest.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the rows to this Parquet file, likewise.")] = None,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Ask one of the fifteen questions of an auditor; every reading about persons is recorded."""
    if number is None:
        show_questions(as_json, answered_here())
        return
    home, at = open_home(site), now()
    registry, key = open_registry(home), home.signing_key()
    kept = None if checkpoint is None else read_checkpoint(checkpoint, key.public_key(), at)
    given = Arguments(person, campaign, round_number, kept, listed)
    times = moment(None if as_of is None else when(as_of), None if known is None else when(known), at)
    sight = open_sight(home)
    told = answer_to(sight, registry, reader(role, why), number, times, at, arguments=given)
    if out is not None:
        write_atomic(out, signed(sight, told, key, given, at).to_json())
        console.err.print(_AT_ONCE, soft_wrap=True)
    arguments: dict[str, Any] = {"campaign": campaign, "number": round_number, "listed": listed}
    write(told, arguments, [path for path in (csv, parquet) if path is not None], key, at)
    show(told, as_json)


def join(app: typer.Typer) -> None:
    """Add this command to `bract-site audit`."""
    app.command("ask")(ask)
