"""`bract withdrawal`: what an auditor asks first."""

from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.errors import MALFORMED, BractError
from bract.privacy.accounting import rounded_up
from bract.release import ImpactDecision, Remedy
from bract.signing import sign
from bract.value import decode, plain
from bract_server.cli.approval import Key, read_key, signature
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.home import open_home
from bract_server.hub import open_registry
from bract_server.registry.store import Impact

withdrawals = typer.Typer(help="Withdrawals and the models they touch.", no_args_is_help=True, rich_markup_mode=None)


@withdrawals.command("list")
def list_withdrawals(hub: HubFolder = Path(), as_json: AsJson = False) -> None:
    """Every notice of withdrawal, and every encoder version that descends from what it names."""
    registry = open_registry(open_home(hub))
    names = {c.digest: c.plan.name for c in registry.campaigns()}
    told: list[dict[str, Any]] = [
        {
            "notice": w.notice,
            "site": w.site,
            "noticed_at": w.noticed_at.isoformat(),
            "affected": [
                {"version": i.version, "campaign": names[i.campaign], "number": i.number, "effect": i.effect}
                for i in registry.impacts(w.notice)
                if i.campaign is not None
            ],
        }
        for w in registry.withdrawals()
    ]
    if as_json:
        console.emit(told)
        return
    rows = [
        (w["noticed_at"][:19], w["site"], i["campaign"], i["number"], i["version"][:19], i["effect"])
        for w in told
        for i in w["affected"]
    ]
    console.out.print(
        console.table("affected encoder versions", ("noticed", "site", "campaign", "round", "version", "effect"), rows)
    )


@withdrawals.command()
def show(
    notice: str,
    on: Annotated[str | None, typer.Option(help="Only what it means for this one thing.")] = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """All that a notice touches: what bounds it, where clean training can start again, what is decided until when."""
    registry = open_registry(open_home(hub))
    if on is not None:
        _, ref = registry.thing(on)
        effect = registry.effect_on(notice, ref)
        if as_json:
            console.emit({"notice": notice, "ref": ref, "effect": effect})
        else:
            console.out.print(f"{ref}: {effect}", soft_wrap=True)
        return
    found = registry.impacts(notice, None)
    if as_json:
        console.emit([_impact(one) for one in found])
        return
    rows = [
        (
            i.kind,
            i.ref[:19],
            i.effect if i.epsilon is None else f"ε ≤ {rounded_up(i.epsilon):g} at δ = {i.delta:g}",
            (i.clean or "-")[:19],
            i.decision.remedy if i.decision else ("-" if i.due_at is None else f"open until {i.due_at:%Y-%m-%d}"),
        )
        for i in found
    ]
    console.out.print(console.table("touched", ("kind", "what", "bound", "clean before", "decision"), rows))


@withdrawals.command()
def decide(
    notice: str,
    things: Annotated[list[str], typer.Argument(help="What it is about; a digest, CAMPAIGN/ROUND or a name.")],
    remedy: Annotated[Remedy, typer.Option(help="What is done about it.")],
    rationale: Annotated[str, typer.Option(help="Why; it is kept for good.")],
    key: Key,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Decide what is done about things that a withdrawal touches, signed by you."""
    registry = open_registry(open_home(hub))
    sites = {w.site for w in registry.withdrawals() if w.notice == notice}
    if len(sites) != 1:
        raise BractError(MALFORMED, "no such withdrawal notice" if not sites else "several sites gave that notice")
    refs, signer = [registry.thing(one)[1] for one in things], read_key(key)
    said = {
        "site": sites.pop(),
        "notice": notice,
        "refs": refs,
        "remedy": remedy,
        "rationale": rationale,
        **signature(signer),
    }
    envelope = sign(decode(ImpactDecision, said), signer)
    registry.decide(envelope, now())
    if as_json:
        console.emit({"decision": envelope.name, "about": refs})
        return
    console.out.print(f"Decided: {remedy} for {len(refs)}.")


def _impact(one: Impact) -> dict[str, Any]:
    return {
        "site": one.site,
        "notice": one.notice,
        "kind": str(one.kind),
        "ref": one.ref,
        "effect": one.effect,
        "mechanisms": [plain(mechanism) for mechanism in one.mechanisms],
        "epsilon": None if one.epsilon is None else rounded_up(one.epsilon),
        "delta": one.delta,
        "path_length": one.path_length,
        "clean": one.clean,
        "options": [str(option) for option in one.options],
        "due_at": one.due_at.isoformat() if one.due_at else None,
        "recorded_at": one.recorded_at.isoformat(),
        "decisions": [
            {
                "remedy": str(d.remedy),
                "rationale": d.rationale,
                "by": d.by,
                "roles": [str(role) for role in d.roles],
                "at": d.received_at.isoformat(),
                "digest": d.digest,
            }
            for d in one.decisions
        ],
    }
