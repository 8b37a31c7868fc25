"""`bract lineage`: what came of what; and what is registered that no round made."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.tree import Tree

from bract import console
from bract.model import (
    DatasetTerms,
    Lineage,
    Node,
    Role,
)
from bract.signing import sign
from bract.value import decode
from bract.vocabulary.purposes import Purpose
from bract_server.cli import register
from bract_server.cli.approval import Key, read_key
from bract_server.cli.options import AsJson, HubFolder, now
from bract_server.cli.register import Modifiers, digest_given, tell
from bract_server.cli.release import modifier
from bract_server.home import open_home
from bract_server.hub import open_registry

app = typer.Typer(help="What was made from what.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(register.app, name="add")

_DEEPEST = 4


@app.command()
def show(
    ref: Annotated[str, typer.Argument(help="SITE/…, CAMPAIGN/ROUND, a name, or a digest (12 digits are enough).")],
    down: Annotated[
        bool, typer.Option("--down", help="What descends from it, instead of what it descends from.")
    ] = False,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """A thing with all that it descends from, or that descends from it, and what that permits."""
    registry = open_registry(open_home(hub))
    _, start = registry.thing(ref)
    found = registry.descendants_of(ref) if down else registry.ancestry(ref)
    depths = _depths(found, start, down)
    if as_json:
        console.emit(plain(found, depths))
        return
    console.out.print(_tree(found, start, down))
    for one in found.overrides:
        console.out.print(f"override of {one.criterion} by {one.by}: {one.reason}", soft_wrap=True, markup=False)


@app.command()
def terms(
    site: Annotated[str, typer.Argument(help="Whose data set it is.")],
    dataset: Annotated[str, typer.Argument(help="The data set.")],
    document: Annotated[Path, typer.Option(help="The notice or agreement that says so; only its digest is kept.")],
    key: Key,
    declare: Annotated[list[Purpose] | None, typer.Option(help="A further use that the notice named; repeat.")] = None,
    modifiers: Modifiers = None,
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Declare what a data set may be used for beyond its consents' purpose, signed by its site or by a DPO."""
    at = now()
    value = decode(
        DatasetTerms,
        {
            "site": site,
            "dataset": dataset,
            "declares": declare or [],
            "modifiers": [modifier(one) for one in modifiers or ()],
            "document": digest_given(document),
            "given_at": at,
        },
    )
    envelope = sign(value, read_key(key))
    open_registry(open_home(hub)).set_terms(envelope, at)
    tell({"terms": envelope.name, "dataset": f"{site}/{dataset}"}, as_json)


@app.command()
def link(
    newer: Annotated[str, typer.Argument(help="The thing that was made.")],
    older: Annotated[str, typer.Argument(help="What it was made from.")],
    role: Annotated[Role, typer.Option(help="What the older one was for.")],
    hub: HubFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Add what was learnt late: that one thing in lineage was made from another. Circles are refused."""
    open_registry(open_home(hub)).relate(newer, older, role, now())
    tell({"from": newer, "to": older, "role": str(role)}, as_json)


def plain(found: Lineage, depths: dict[str, int]) -> dict[str, Any]:
    """A lineage as plain JSON data; `depth` counts the edges on the shortest way from where it starts."""
    return {
        "nodes": [
            {
                "kind": str(node.kind),
                "ref": node.ref,
                "name": node.name,
                "at": node.at.isoformat() if node.at else None,
                "depth": depths.get(node.ref),
                "permits": list(node.permits),
                "modifiers": list(node.modifiers),
                "body": node.body,
            }
            for node in found.nodes
        ],
        "edges": [
            {
                "src": edge.src,
                "relation": str(edge.relation),
                "role": edge.role and str(edge.role),
                "dst": edge.dst,
            }
            for edge in found.edges
        ],
        "overrides": [
            {"about": one.about, "criterion": one.criterion, "by": one.by, "reason": one.reason}
            for one in found.overrides
        ],
    }


def _steps(found: Lineage, down: bool) -> dict[str, list[tuple[str, str]]]:
    steps: dict[str, list[tuple[str, str]]] = {node.ref: [] for node in found.nodes}
    for edge in found.edges:
        here, there = (edge.dst, edge.src) if down else (edge.src, edge.dst)
        steps[here].append((there, str(edge.role or edge.relation)))
    return steps


def _depths(found: Lineage, start: str, down: bool) -> dict[str, int]:
    steps, depths, todo = _steps(found, down), {start: 0}, [start]
    for here in todo:
        for there, _ in steps[here]:
            if there not in depths:
                depths[there] = depths[here] + 1
                todo.append(there)
    return depths


def _tree(found: Lineage, start: str, down: bool) -> Tree:
    """A tree for people: each thing once, and no deeper than one can read."""
    nodes = {node.ref: node for node in found.nodes}
    steps, told = _steps(found, down), set[str]()

    def grow(branch: Tree, ref: str, depth: int) -> None:
        if ref in told:
            return
        told.add(ref)
        if depth == _DEEPEST and steps[ref]:
            branch.add(f"… {len(steps[ref])} more; see --json")
            return
        for there, how in steps[ref]:
            grow(branch.add(f"{how}: {_label(nodes[there])}{' (above)' if there in told else ''}"), there, depth + 1)

    root = Tree(_label(nodes[start]))
    grow(root, start, 0)
    return root


def _label(node: Node) -> str:
    permits = ", ".join(node.permits) or "nothing"
    also = f"; honours {', '.join(node.modifiers)}" if node.modifiers else ""
    return f"{node.kind} {node.name} — permits {permits}{also}".replace("[", "(").replace("]", ")")
