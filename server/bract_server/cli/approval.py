"""`bract approval`: who may sign at the hub, and what they sign.

Keys stay with their persons: `keygen`, `sign` and `override` need no hub.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract import console
from bract.digest import parse_digest
from bract.enrolment import grouped
from bract.errors import ALREADY_EXISTS, MALFORMED, BractError
from bract.files import read_private, write_atomic, write_private
from bract.identity import load_signing_key, private_pem
from bract.release import Approval, Criterion, Override, Person, PersonRole
from bract.signing import Envelope, key_id, key_text, parse_envelope, sign, verify_key
from bract.value import decode
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry

app = typer.Typer(
    help="Persons who sign at the hub: keys, offices, approvals, overrides.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

T = TypeVar("T")
Key = Annotated[Path, typer.Option("--key", help="Your private key, as `bract approval keygen` wrote it.")]
Out = Annotated[Path | None, typer.Option(help="Where to write what was signed; by default beside you, by its digest.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept for good.")]


def read_key(path: Path) -> Ed25519PrivateKey:
    """A person's private key.

    Raises:
        BractError: `malformed`, `key-permissions`.
    """
    return load_signing_key(_read(path, read_private))


def read_envelope(path: Path) -> Envelope:
    """A signed file.

    Raises:
        BractError: `malformed`.
    """
    return parse_envelope(_read(path, Path.read_bytes))


def _read(path: Path, how: Callable[[Path], bytes]) -> bytes:
    try:
        return how(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BractError(MALFORMED, f"{path.name}: no such file") from error


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(help="The private key to write; the public one goes to FILE.pub.")],
    as_json: AsJson = False,
) -> None:
    """Make a key to sign with, on your own machine; the operator registers its public half."""
    public = file.with_name(f"{file.name}.pub")
    if file.exists() or public.exists():
        raise BractError(ALREADY_EXISTS, file.name)
    key = Ed25519PrivateKey.generate()
    write_private(file, private_pem(key))
    write_atomic(public, f"{key_text(key.public_key())}\n".encode())
    fingerprint = key_id(key.public_key())
    if as_json:
        console.emit({"private": str(file), "public": str(public), "fingerprint": fingerprint})
        return
    console.out.print(f"Private key, for you alone: {file}", soft_wrap=True)
    console.out.print(f"Public key, for the operator: {public}", soft_wrap=True)
    console.out.print(f"Its fingerprint, to be told by another channel:\n  {fingerprint}\n  {grouped(fingerprint)}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The person's name at this hub.")],
    key: Annotated[Path, typer.Option("--key", help="Their public key, FILE.pub.")],
    role: Annotated[list[PersonRole], typer.Option("--role", help="An office; once for each.")],
    fingerprint: Annotated[str, typer.Option(help="The key's fingerprint, as the person told it.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register somebody who may sign, by the fingerprint that they told you."""
    text = _read(key, Path.read_bytes).decode("ascii", "replace").strip()
    if key_id(verify_key(text)) != parse_digest(fingerprint):
        raise BractError(MALFORMED, "fingerprint: not this key's; ask the person again")
    registry = open_registry(open_home(hub))
    registry.add_person(Person(name, text, tuple(dict.fromkeys(role))), now())
    if as_json:
        console.emit({"person": name, "fingerprint": fingerprint, "roles": list(role)})
        return
    console.out.print(f"{name} may sign as {', '.join(role)}.")


@app.command("list")
def list_persons(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Everybody who may sign, or once could."""
    persons = open_registry(open_home(hub)).persons()
    told: list[dict[str, Any]] = [
        {
            "name": p.name,
            "roles": list(p.roles),
            "fingerprint": p.fingerprint,
            "registered_at": p.registered_at.isoformat(),
            "ended_at": p.ended_at.isoformat() if p.ended_at else None,
        }
        for p in persons
    ]
    if as_json:
        console.emit(told)
        return
    rows = [
        (p["name"], ", ".join(p["roles"]), p["fingerprint"][:19], "left" if p["ended_at"] else "may sign") for p in told
    ]
    console.out.print(console.table("persons", ("name", "offices", "key", "state"), rows))


@app.command()
def end(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Let somebody sign nothing more; what they signed stands."""
    open_registry(open_home(hub)).end_person(name, now())
    if as_json:
        console.emit({"ended": name})
        return
    console.out.print(f"{name} may not sign any more.")


@app.command("sign")
def sign_approval(
    release: Annotated[str, typer.Argument(help="The release's digest, as `bract release list` tells it.")],
    key: Key,
    reason: Reason,
    decision: Annotated[str, typer.Option(help="approve or reject.")] = "approve",
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Sign your word on a release; send the file to the operator."""
    signer = read_key(key)
    word = {"release": release, "decision": said(decision), "reason": reason, **signature(signer)}
    _write(sign(decode(Approval, word), signer), out, as_json)


@app.command()
def override(
    about: Annotated[str, typer.Argument(help="Digest of the release, or of the derived thing.")],
    criterion: Annotated[Criterion, typer.Option(help="Which criterion.")],
    key: Key,
    reason: Reason,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Sign that you take a failed criterion on yourself; it is shown for ever with whatever comes of it."""
    signer = read_key(key)
    taken = {"about": about, "criterion": criterion, "reason": reason, **signature(signer)}
    _write(sign(decode(Override, taken), signer), out, as_json)


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="What `bract approval override` wrote.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Take a signed override."""
    envelope = read_envelope(file)
    open_registry(open_home(hub)).override(envelope, now())
    if as_json:
        console.emit({"override": envelope.name})
        return
    console.out.print(f"The override is taken: {envelope.name}")


def signature(key: Ed25519PrivateKey) -> dict[str, Any]:
    """Who signs, and when: what every signed word says."""
    return {"by": key_id(key.public_key()), "signed_at": now()}


def said(decision: str) -> Literal["approve", "reject"]:
    """The word that somebody gave.

    Raises:
        BractError: `malformed`.
    """
    if decision == "approve":
        return "approve"
    if decision == "reject":
        return "reject"
    raise BractError(MALFORMED, "decision: approve or reject")


def _write(envelope: Envelope, out: Path | None, as_json: bool) -> None:
    target = out or Path(f"{envelope.name[7:19]}.signed")
    if target.exists():
        raise BractError(ALREADY_EXISTS, target.name)
    write_atomic(target, envelope.to_json())
    if as_json:
        console.emit({"file": str(target), "digest": envelope.name})
        return
    console.out.print(f"Signed: {target}", soft_wrap=True)
