"""`bract release`: propose, look at the gate, approve, publish, take back."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from bract import console
from bract.errors import MALFORMED, BractError
from bract.release import Approval, PersonRole, Policy, ReleaseProposal, Withdrawn
from bract.signing import key_id, sign
from bract.value import decode, plain
from bract_server.cli.approval import Key, Reason, read_envelope, read_key, said, signature
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry
from bract_server.registry.release_views import ReleaseView
from bract_server.registry.verdict import GateReport

app = typer.Typer(help="Releases of models, through a gate.", no_args_is_help=True, rich_markup_mode=None)


def _channel(name: str) -> str:
    if name not in ("internal", "public"):
        raise BractError(MALFORMED, "channel: internal or public")
    return f"release-{name}"


Channel = Annotated[str, typer.Option(help="internal (the study's own sites) or public.")]


@app.command()
def propose(
    name: Annotated[str, typer.Argument(help="The release's name.")],
    model: Annotated[str, typer.Argument(help="The model: digest, CAMPAIGN/ROUND, or name.")],
    key: Key,
    channel: Channel = "internal",
    evaluation: Annotated[list[str] | None, typer.Option(help="An evaluation that is told with it; repeat.")] = None,
    honour: Annotated[list[str] | None, typer.Option(help="A modifier that the release's terms keep; repeat.")] = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Propose a model for release, signed by you as its author."""
    registry, signer = open_registry(open_home(hub)), read_key(key)
    _, target = registry.thing(model)
    proposal = decode(
        ReleaseProposal,
        {
            "name": name,
            "channel": _channel(channel),
            "target": target,
            "weights": registry.weights(target),
            "evaluations": [registry.thing(one)[1] for one in evaluation or ()],
            "honours": [modifier(one) for one in honour or ()],
            "by": key_id(signer.public_key()),
            "proposed_at": now(),
        },
    )
    digest = registry.propose_release(sign(proposal, signer), now())
    if as_json:
        console.emit({"release": digest, "name": name, "target": target})
        return
    console.out.print(f"Release {name}: {digest}\nNext: bract release gate {name}")


@app.command()
def gate(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Every criterion of a release, and what is in its way; status 0 when it may be published."""
    report = open_registry(open_home(hub)).gate(name, now())
    if as_json:
        console.emit(report.plain())
    else:
        _show(report)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def approve(
    name: str,
    envelope: Annotated[Path | None, typer.Option(help="What `bract approval sign` wrote.")] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Or your private key, to sign here.")] = None,
    reason: Annotated[str, typer.Option(help="Why; with --key.")] = "",
    decision: Annotated[str, typer.Option(help="approve or reject; with --key.")] = "approve",
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Take somebody's signed word on a release."""
    registry = open_registry(open_home(hub))
    view = _find(registry.releases(), name)
    if (envelope is None) == (key is None):
        raise BractError(MALFORMED, "give --envelope, or --key with --reason")
    if envelope is not None:
        signed = read_envelope(envelope)
    else:
        signer = read_key(key or Path())
        word = {"release": view.digest, "decision": said(decision), "reason": reason, **signature(signer)}
        signed = sign(decode(Approval, word), signer)
    if decode(Approval, signed.payload).release != view.digest:
        raise BractError(MALFORMED, "the word is on another release")
    registry.approve(signed, now())
    if as_json:
        console.emit({"release": view.digest, "approval": signed.name})
        return
    console.out.print(f"The word on {view.name} is taken.")


@app.command()
def publish(name: str, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Publish a release that passes the gate; the hub signs it with the gate's report."""
    registry = open_registry(open_home(hub))
    envelope = registry.publish(name, now())
    if as_json:
        view = _find(registry.releases(), name)
        console.emit({"release": view.digest, "publication": envelope.name, "report": view.report})
        return
    console.out.print(f"{name} is published: {envelope.name}")


@app.command()
def withdraw(name: str, key: Key, reason: Reason, hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Take a release back; the record of it stays."""
    registry = open_registry(open_home(hub))
    view = _find(registry.releases(), name)
    signer = read_key(key)
    value = decode(Withdrawn, {"release": view.digest, "reason": reason, **signature(signer)})
    registry.withdraw_release(sign(value, signer), now())
    if as_json:
        console.emit({"withdrawn": view.digest})
        return
    console.out.print(f"{name} is taken back.")


@app.command("list")
def list_releases(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """All releases, their approvals, and every override that bears on them."""
    views = open_registry(open_home(hub)).releases()
    if as_json:
        console.emit([_plain(view) for view in views])
        return
    rows = [
        (
            v.name,
            v.state,
            v.proposal.channel.removeprefix("release-"),
            v.author,
            ", ".join(f"{a.by}: {a.decision}" for a in v.approvals) or "-",
            ", ".join(f"{o.criterion} by {o.by}" for o in v.overrides) or "-",
            v.digest[:19],
        )
        for v in views
    ]
    columns = ("release", "state", "channel", "author", "words", "overridden", "digest")
    console.out.print(console.table("releases", columns, rows))


@app.command()
def policy(
    channel: Channel = "internal",
    required: Annotated[int | None, typer.Option(help="Distinct persons who must approve.")] = None,
    role: Annotated[list[PersonRole] | None, typer.Option(help="An office that one of them must hold; repeat.")] = None,
    witnesses: Annotated[int, typer.Option(help="Witnesses that must have cosigned the log.")] = 0,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Show what releases through a channel ask for; with --required, set it."""
    registry = open_registry(open_home(hub))
    if required is not None:
        asked = {"channel": _channel(channel), "required": required, "roles": role or [], "witnesses": witnesses}
        registry.set_policy(decode(Policy, asked), now())
    found = registry.policy(_channel(channel))
    if as_json:
        console.emit(plain(found))
        return
    offices = ", ".join(found.roles) or "any office"
    console.out.print(f"{channel}: {found.required} persons ({offices}), {found.witnesses} witnesses")


def modifier(text: str) -> dict[str, Any]:
    """`CODE` or `CODE=value,value` as plain data."""
    code, _, values = text.partition("=")
    return {"code": code, "values": values.split(",") if values else []}


def _find(views: tuple[ReleaseView, ...], name: str) -> ReleaseView:
    for view in views:
        if name in (view.name, view.digest):
            return view
    raise BractError(MALFORMED, "no such release")


def _show(report: GateReport) -> None:
    for one in report.criteria:
        mark = ("ok", "green") if one.ok else (("overridden", "yellow") if one.passes else ("fails", "red"))
        line = Text.assemble((f"{mark[0]:<11}", mark[1]), f"{one.criterion}: {one.detail}")
        console.out.print(line, soft_wrap=True)
        for offender in one.offenders[:10]:
            console.out.print(Text(f"             {offender}"), soft_wrap=True)
        if len(one.offenders) > 10:
            console.out.print(f"             and {len(one.offenders) - 10} more")
    for override in report.overrides:
        told = f"override of {override.criterion} by {override.by} on {override.about[:19]}: {override.reason}"
        console.out.print(Text(told), soft_wrap=True)
    console.out.print("It may be published." if report.ok else "It may not be published.")


def _plain(view: ReleaseView) -> dict[str, Any]:
    def moment(at: Any) -> str | None:
        return None if at is None else str(at.isoformat())

    return {
        "release": view.digest,
        "name": view.name,
        "state": view.state,
        "proposal": plain(view.proposal),
        "author": view.author,
        "proposed_at": moment(view.proposed_at),
        "approvals": [
            {
                "by": a.by,
                "roles": list(a.roles),
                "decision": a.decision,
                "reason": a.reason,
                "received_at": moment(a.received_at),
                "digest": a.digest,
            }
            for a in view.approvals
        ],
        "overrides": [
            {"digest": o.digest, "about": o.about, "criterion": o.criterion, "by": o.by, "reason": o.reason}
            for o in view.overrides
        ],
        "published_at": moment(view.published_at),
        "report": view.report,
        "withdrawn_at": moment(view.withdrawn_at),
        "withdrawn_reason": view.withdrawn_reason,
    }
