"""What a withdrawal touches, worked out again from exported edges by plain definitions. Shares no code with bract.

    python reachability.py < {"kinds": {"1": "snapshot", …}, "edges": [[src, dst], …], "named": […], "own": […],
                              "private": […], "leaky": […]}

`own` are all snapshots of the site, `private` and `leaky` its contributions with and without a guarantee.
"""

import json
import sys
from typing import Any

MODELS = {"base-model", "version", "fine-tune", "student"}


def everything_above(node: int, up: dict[int, set[int]]) -> set[int]:
    found: set[int] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        for older in up.get(here, ()):
            if older not in found:
                found.add(older)
                stack.append(older)
    return found


def distance(node: int, named: set[int], up: dict[int, set[int]]) -> int:
    ring, steps = {node}, 0
    while not ring & named:
        ring = {older for here in ring for older in up.get(here, ())}
        steps += 1
    return steps


def touched(world: dict[str, Any]) -> dict[int, tuple[str, int, int | None]]:
    """Of every touched node: its class, the shortest way, the newest clean model above."""
    kinds = {int(node): kind for node, kind in world["kinds"].items()}
    up: dict[int, set[int]] = {}
    for src, dst in world["edges"]:
        up.setdefault(src, set()).add(dst)
    named, own = set(world["named"]), set(world["own"])
    private, leaky = set(world["private"]), set(world["leaky"])
    above = {node: everything_above(node, up) for node in kinds}
    found: dict[int, tuple[str, int, int | None]] = {}
    for node in kinds:
        if node in named or not above[node] & named:
            continue
        inside = above[node] | {node}
        direct = any(up.get(one, set()) & own for one in inside - private - leaky)
        bounded = not direct and not inside & leaky
        clean = [one for one in above[node] if kinds[one] in MODELS and not (above[one] | {one}) & named]
        label = "bounded-by-dp" if bounded else "without-dp"
        found[node] = (label, distance(node, named, up), max(clean, default=None))
    return found


if __name__ == "__main__":
    json.dump({str(node): list(told) for node, told in touched(json.load(sys.stdin)).items()}, sys.stdout)
