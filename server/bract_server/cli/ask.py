"""`bract audit ask`, `bract audit token` and `bract audit serve`: the fifteen questions, and who may ask them."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.answers import read, read_checkpoint, show, show_questions, user, write
from bract.errors import TOKEN, BractError
from bract.files import write_private
from bract.question import moment, when
from bract.roles import Role
from bract.signing import parse_envelope
from bract.value import plain
from bract_server.auditor.questions import ask as answer_to
from bract_server.auditor.sight import Arguments, open_sight
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry
from bract_server.registry.access import Principal
from bract_server.registry.store import HubRegistry

token = typer.Typer(help="Who may read over HTTP.", no_args_is_help=True, rich_markup_mode=None)


def ask(
    number: Annotated[int | None, typer.Argument(help="1 to 15; without one, the questions are listed.")] = None,
    of: Annotated[
        str | None, typer.Option(help="A model or release (6, 15), or SITE/sha256:… of a snapshot (1).")
    ] = None,
    campaign: Annotated[str | None, typer.Option(help="A campaign's name (2, 7).")] = None,
    round_number: Annotated[int | None, typer.Option("--round", help="A round's number (2, 7).")] = None,
    as_of: Annotated[str | None, typer.Option(help="About that time: a date or ISO 8601; default now.")] = None,
    known: Annotated[str | None, typer.Option(help="By what was known then; default now.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="A checkpoint that you kept (3): envelope or note.")] = None,
    answer: Annotated[Path | None, typer.Option(help="What a site answered and signed (1, 2, 7).")] = None,
    why: Annotated[str, typer.Option(help="Your purpose, for the access log.")] = "not stated",
    token_file: Annotated[Path | None, typer.Option(help="Ask as the holder of this token.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the rows to this CSV file, with a signed manifest.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the rows to this Parquet file, likewise.")] = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Ask one of the fifteen questions of an auditor; every asking is recorded."""
    if number is None:
        show_questions(as_json)
        return
    home, at = open_home(hub), now()
    registry = open_registry(home)
    who = _asker(registry, token_file, at)
    given = Arguments(
        of=of,
        campaign=campaign,
        number=round_number,
        checkpoint=None if checkpoint is None else read_checkpoint(checkpoint, home.signing_key().public_key(), at),
        answer=None if answer is None else parse_envelope(read(answer)),
    )
    times = moment(None if as_of is None else when(as_of), None if known is None else when(known), at)
    sight = open_sight(home, who.site)
    told = answer_to(sight, registry, who, number, times, at, arguments=given, purpose=why)
    write(told, given.plain(), [path for path in (csv, parquet) if path is not None], home.signing_key(), at)
    show(told, as_json)


@token.command()
def issue(
    name: Annotated[str, typer.Argument(help="Whose it is.")],
    role: Annotated[Role, typer.Option(help="What they may ask.")] = Role.AUDITOR,
    site: Annotated[str | None, typer.Option(help="Of the role `site`: which one.")] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="How long it holds.")] = 90,
    question: Annotated[list[int] | None, typer.Option(help="These questions alone; repeat for several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this private file instead of showing it.")] = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Give out an access token. It is shown this once; the registry keeps only its SHA-256."""
    at = now()
    number, secret = open_registry(open_home(hub)).issue_token(
        name, role, at, expires_at=at + timedelta(days=days), site=site, questions=frozenset(question or ())
    )
    if out is not None:
        write_private(out.absolute(), f"{secret}\n".encode())
    if as_json:
        console.emit({"number": number, "principal": name, "role": role, "token": secret if out is None else str(out)})
        return
    console.out.print(f"Token {number} of {name}, {role}, for {days} days:", soft_wrap=True)
    console.out.print(secret if out is None else f"written to {out}", soft_wrap=True)


@token.command("list")
def list_tokens(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Every token that was given out, and until when it holds."""
    tokens = open_registry(open_home(hub)).tokens()
    if as_json:
        console.emit([plain(one) for one in tokens])
        return
    rows = [
        (
            one.number,
            one.principal,
            one.role if one.site is None else f"{one.role} {one.site}",
            ", ".join(map(str, one.questions)) or "all of the role",
            str(one.expires_at)[:10],
            "" if one.revoked_at is None else str(one.revoked_at)[:19],
        )
        for one in tokens
    ]
    console.out.print(console.table("access tokens", ("no", "of", "role", "questions", "until", "revoked"), rows))


@token.command()
def revoke(number: int, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Take a token back: it opens nothing any more."""
    open_registry(open_home(hub)).revoke_token(number, now())
    if as_json:
        console.emit({"revoked": number})
        return
    console.out.print(f"Token {number} is revoked.")


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8443,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Without TLS; on this machine only.")] = False,
    hub: HubFolder = Path(),
) -> None:
    """Serve the auditor's pages and API, read only, until Ctrl-C."""
    from bract_server.auditor.serving import run  # noqa: PLC0415 - loads fastapi

    home = open_home(hub)
    open_registry(home)
    run(home, host, port, tls=not plain_http)


def _asker(registry: HubRegistry, token_file: Path | None, at: datetime) -> Principal:
    """Whose token it is; without one, whoever can open the hub's folder, as its owner."""
    if token_file is None:
        return Principal(f"cli:{user()}", Role.OWNER)
    try:
        secret = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BractError(TOKEN, "the token file cannot be read") from error
    return registry.principal(secret, at)


def join(app: typer.Typer) -> None:
    """Add these commands to `bract audit`."""
    app.command("ask")(ask)
    app.command("serve")(serve)
    app.add_typer(token, name="token")
