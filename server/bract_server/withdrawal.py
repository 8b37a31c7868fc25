"""What a withdrawal means for everything that was made before it. Pure.

Nothing is ever called erased. A thing either carries a bound on what it can have learnt of the subject, or not.

    1. A thing is touched when it descends from a snapshot that the notice names.
    2. Its bound is of everything of that site above it: the subject may be in snapshots that the notice need not name.
       A part that reaches it on several ways counts once.
    3. One part without a guarantee, or one thing made from a snapshot of the site other than through a private
       contribution, and there is no bound.
    4. Training can start again from the newest model above it that is not touched.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from graphlib import TopologicalSorter

from bract.model import MODELS, NodeKind
from bract.objectives.spec import PrivacyStructure
from bract.privacy.accounting import Curve, epsilon_of_curve, rdp_curve
from bract.privacy.spec import Mechanism
from bract.release import Remedy


class Effect(StrEnum):
    """What is known of a withdrawn subject's influence on a thing."""

    UNAFFECTED = "not-affected"
    """It does not descend from any snapshot that the notice names."""
    BOUNDED = "bounded-by-dp"
    """Every part that this site has in it was trained privately: (ε, δ) of its mechanisms bounds it."""
    UNBOUNDED = "without-dp"
    """At least one part has no guarantee."""


def effect(parts: Iterable[tuple[PrivacyStructure, bool]]) -> Effect:
    """The effect on a thing, from all contributions of the subject's site in it.

    Args:
        parts: of each, how a subject moves the sum under its objective, and whether its noise was really random.
    """
    private = all(noisy and structure is not PrivacyStructure.NONE for structure, noisy in parts)
    return Effect.BOUNDED if private else Effect.UNBOUNDED


_MADE = frozenset({NodeKind.VERSION, NodeKind.FINETUNE, NodeKind.STUDENT})
_TOLD = frozenset({NodeKind.EVALUATION, NodeKind.RELEASE})


def remedies(kind: str, effect: Effect) -> tuple[Remedy, ...]:
    """What may be decided about a touched thing; empty for what is history, as rounds and contributions are.

    Without a bound, doing nothing is no choice.
    """
    if effect is Effect.UNAFFECTED:
        return ()
    nothing = (Remedy.NONE,) if effect is Effect.BOUNDED else ()
    if kind in _MADE:
        return (*nothing, Remedy.FLAG, Remedy.RETRAIN, Remedy.UNLEARN, Remedy.RETIRE)
    return (*nothing, Remedy.FLAG, Remedy.RETIRE) if kind in _TOLD else ()


@dataclass(frozen=True)
class Part:
    """A contribution of the site: its mechanism (None without a guarantee) and the δ of its campaign."""

    mechanism: Mechanism | None
    delta: float


@dataclass(frozen=True)
class Bound:
    """What bounds a site's subject in a thing: mechanisms, equal ones with their steps added, and the least δ.

    Poisson-subsampled Gaussian steps of one σ and q compose as so many more steps: nothing is lost by adding them.
    """

    effect: Effect
    mechanisms: tuple[Mechanism, ...]
    delta: float | None


@dataclass(frozen=True)
class Touched:
    """A touched thing: the shortest way down to it, its bound, and the newest clean model above it."""

    path_length: int
    bound: Bound
    clean: int | None


def epsilon_of(mechanisms: Sequence[Mechanism], delta: float) -> float:
    """The ε of a bound at a δ, from the Rényi curve: a bound for thousands of things at once, a little above the PLD's."""
    curves = [_one_step(m.noise_multiplier, m.sampling_rate) for m in mechanisms]
    total = tuple(
        sum(cost * m.steps for cost, m in zip(costs, mechanisms, strict=True)) for costs in zip(*curves, strict=True)
    )
    return epsilon_of_curve(total, delta)


@cache
def _one_step(sigma: float, rate: float) -> Curve:
    return rdp_curve(Mechanism(sigma, rate, 1))


def parents_first(parents: Mapping[int, Iterable[int]]) -> list[int]:
    """The nodes in an order in which what a node points to comes before it."""
    if all(older < newer for newer, olders in parents.items() for older in olders):
        return sorted(parents)
    return list(TopologicalSorter(parents).static_order())


def spread(
    kinds: Mapping[int, str],
    parents: Mapping[int, tuple[int, ...]],
    named: Set[int],
    snapshots: Set[int],
    parts: Mapping[int, Part],
) -> dict[int, Touched]:
    """Everything that a notice touches (see the module's rules).

    Args:
        kinds: of every node.
        parents: of every node, what it points to; the whole graph above whatever is asked about.
        named: the snapshots that the notice names.
        snapshots: all of the site's.
        parts: the site's contributions.
    """
    lengths: dict[int, int] = dict.fromkeys(named, 0)
    # Which parts are above a node, one bit each; how a set of them is bounded is worked out once.
    bits = {node: 1 << place for place, node in enumerate(parts)}
    bounds = _Bounds(parts, bits)
    masks, bare, clean, found = dict[int, int](), set[int](), dict[int, int](), dict[int, Touched]()
    for node in parents_first(parents):
        above = parents[node]
        mask = bits.get(node, 0)
        for older in above:
            mask |= masks.get(older, 0)
        if mask:
            masks[node] = mask
        if any(older in bare or (older in snapshots and node not in bits) for older in above):
            bare.add(node)
        reached = [lengths[older] for older in above if older in lengths]
        best = [clean[older] for older in above if older in clean]
        if reached and node not in named:
            lengths[node] = min(reached) + 1
            found[node] = Touched(lengths[node], bounds.of(mask, node in bare), max(best, default=None))
        elif not reached and kinds[node] in MODELS:
            best.append(node)
        if best:
            clean[node] = max(best)
    return found


class _Bounds:
    """Bounds of sets of parts; parts of one mechanism and δ are counted together."""

    def __init__(self, parts: Mapping[int, Part], bits: Mapping[int, int]) -> None:
        self._classes: dict[Part, int] = {}
        for node, part in parts.items():
            self._classes[part] = self._classes.get(part, 0) | bits[node]
        self._known: dict[tuple[int, bool], Bound] = {}

    def of(self, mask: int, bare: bool) -> Bound:
        if (mask, bare) not in self._known:
            self._known[mask, bare] = self._made(mask, bare)
        return self._known[mask, bare]

    def _made(self, mask: int, bare: bool) -> Bound:
        inside = [(part, (mask & members).bit_count()) for part, members in self._classes.items() if mask & members]
        delta = min((part.delta for part, _ in inside), default=None)
        if bare or not inside or any(part.mechanism is None for part, _ in inside):
            return Bound(Effect.UNBOUNDED, (), delta)
        steps: dict[tuple[float, float], int] = {}
        for part, count in inside:
            if part.mechanism is not None:
                each = (part.mechanism.noise_multiplier, part.mechanism.sampling_rate)
                steps[each] = steps.get(each, 0) + count * part.mechanism.steps
        return Bound(Effect.BOUNDED, tuple(Mechanism(*each, total) for each, total in sorted(steps.items())), delta)
