"""`bract audit`: a log as one file, verified by whoever gets it, and witnesses from outside."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.files import write_atomic
from bract.log import archive
from bract.log.auditor import witness as witness_log
from bract.log.verify import summary
from bract.log.verify import verify as verify_bundle
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry

app = typer.Typer(
    help="Everything that an auditor verifies without trusting the hub.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def bundle(
    out: Annotated[Path, typer.Argument(help="A new .zip file.")], hub: HubFolder = Path(), as_json: AsJson = False
) -> None:
    """Write the whole log with everything signed that it tells of into one file, for `bract audit verify` anywhere."""
    home = open_home(hub)
    registry = open_registry(home)
    archive.write(out, registry.bundle(home.authority_file.read_text(encoding="ascii")))
    head = registry.head()
    told = {"bundle": str(out), "entries": head.size if head else 0, "fingerprint": home.fingerprint()}
    if as_json:
        console.emit(told)
        return
    console.out.print(f"{out}: {told['entries']} entries", soft_wrap=True)
    console.out.print(f"Anywhere: bract audit verify {out} --key {home.fingerprint()}", soft_wrap=True)


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(help="A bundle of a hub or of a site.", metavar="BUNDLE")],
    key: Annotated[str | None, typer.Option(help="The owner's fingerprint, known by another channel.")] = None,
    since: Annotated[
        Path | None, typer.Option(help="An older bundle or checkpoint that the log must continue.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Verify a bundle offline, with public keys only. Status 1 at the first bad entry or file, which is named."""
    done = verify_bundle(path, fingerprint=key, since=since)
    if as_json:
        console.emit(asdict(done))
        return
    console.out.print(summary(done), soft_wrap=True)


@app.command()
def witness(
    source: Annotated[Path, typer.Argument(help="A bundle, or a folder of a tile log.")],
    state: Annotated[Path, typer.Option(help="The witness' memory; made at the first use, with a key beside it.")],
    name: Annotated[str, typer.Option(help="The witness' name, at the first use.")] = "",
    key: Annotated[str | None, typer.Option(help="The log's fingerprint or verifier key, when it is new.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the cosigned checkpoint.")] = None,
    as_json: AsJson = False,
) -> None:
    """Cosign a log's newest checkpoint, if it continues the one that this witness saw before; else refuse it as a fork."""
    done = witness_log(source, state, name=name, key=key, at=now())
    target = out or Path(f"{done.head.origin}-{done.head.size}.cosigned")
    write_atomic(target, done.note)
    if as_json:
        told = {"origin": done.head.origin, "size": done.head.size, "before": done.before}
        console.emit({**told, "cosigned": str(target), "witness": done.witness})
        return
    console.out.print(f"{done.head.origin}: {done.head.size} entries continue the {done.before} seen before; {target}")
    console.out.print(f"Its owner keeps it by: audit cosign {target} --witness {done.witness}", soft_wrap=True)


@app.command()
def cosign(
    path: Annotated[Path, typer.Argument(help="A checkpoint that a witness cosigned.", metavar="FILE")],
    witness_key: Annotated[str, typer.Option("--witness", help="The witness' verifier key, known by another channel.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Keep an auditor's cosignature of this hub's log."""
    new = open_registry(open_home(hub)).take_cosignatures(path.read_bytes(), witness_key, now())
    if as_json:
        console.emit({"kept": new})
        return
    console.out.print("The cosignature is kept." if new else "It was kept before.")
