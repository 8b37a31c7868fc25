"""Random lineage of at most forty things, as the plain data that `reachability` reads."""

import random
from typing import Any

_WEIGHTS = {"snapshot": 3, "contribution": 3, "round": 2, "version": 4, "fine-tune": 3, "student": 2, "evaluation": 1}
_OLDER = {
    "contribution": ("snapshot",),
    "round": ("contribution", "snapshot"),
    "version": ("round", "version", "base-model"),
    "fine-tune": ("version", "fine-tune", "student", "snapshot", "base-model"),
    "student": ("version", "fine-tune", "student", "snapshot"),
    "evaluation": ("version", "fine-tune", "student", "snapshot"),
}


def draw(source: random.Random) -> dict[str, Any]:
    """Two sites' snapshots, parts, rounds and models; some edges skip rounds, as those of hand-registered things do."""
    kinds: dict[int, str] = {1: "base-model"}
    edges: list[tuple[int, int]] = []
    own: list[int] = []
    for node in range(2, source.randint(3, 40) + 1):
        kind = source.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
        kinds[node] = kind
        if kind == "snapshot" and source.random() < 0.6:
            own.append(node)
        if kind == "contribution":
            # A part is drawn from one snapshot of its own site.
            older = [n for n in range(1, node) if kinds[n] == "snapshot"][-4:]
            edges += [(node, source.choice(older))] if older else []
            continue
        older = [n for n in range(1, node) if kinds[n] in _OLDER.get(kind, ())]
        edges += [(node, n) for n in sorted(source.sample(older, min(len(older), source.randint(0, 4))))]
    parts = [src for src, dst in edges if kinds[src] == "contribution" and dst in own]
    leaky = [node for node in parts if source.random() < 0.2]
    return {
        "kinds": {str(node): kind for node, kind in kinds.items()},
        "edges": edges,
        "named": [node for node in own if source.random() < 0.5],
        "own": own,
        "private": [node for node in parts if node not in leaky],
        "leaky": leaky,
    }
