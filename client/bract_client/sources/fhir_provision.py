"""What the provisions of a FHIR Consent permit and refuse, as events; what cannot be told is never permitted.

A provision is a rule, and those within it are exceptions to it: of R4B each with its own type, of R5 each the opposite of
what it is in [HL7 FHIR R4B Consent.provision.type; R5 Consent.decision]. Reading them:
    1. We understand a type, a period, purposes, and inner provisions. Anything else (actors, actions, labels, data …)
       limits a rule by something that we cannot check.
    2. A permit must name its purposes, and everything about it and about the exceptions to it must be understood; otherwise
       the whole resource is set aside.
    3. An exception to a permit refuses its purposes from its begin on, and the permit has a gap for its period. Of two rules
       beside each other that say different things, the refusal is an exception to the permit.
    4. Under a refusal, an exception that is not understood permits nothing, and the refusal stands.
    5. A refusal without purposes is of every use. Where exceptions to it permit something, what they permit is left to them,
       before and after their period as well: silence is no.
    6. Exceptions to exceptions to a permit are left out, which permits less.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from bract.consent import ConsentEvent, Decision, Evidence
from bract.vocabulary.purposes import ANY_USE, ancestors, uses
from bract_client.sources.record import BadLine, Reason
from bract_client.sources.statement import Moment, stated


@dataclass(frozen=True)
class Window:
    """From when to when, None for no end."""

    begin: Moment
    end: Moment | None

    def within(self, begin: Moment | None, end: Moment | None) -> "Window":
        """The part of it in a narrower period."""
        ends = [one for one in (self.end, end) if one is not None]
        return Window(
            Moment(max(self.begin.first, begin.first), max(self.begin.last, begin.last)) if begin else self.begin,
            Moment(min(one.first for one in ends), min(one.last for one in ends)) if ends else None,
        )


@dataclass(frozen=True)
class Provision:
    """A rule. `purposes` None: it names none, so it is of all; empty: of none of ours. `understood`: no other limits."""

    permit: bool
    purposes: frozenset[str] | None
    begin: Moment | None
    end: Moment | None
    understood: bool
    inner: tuple["Provision", ...] = ()


@dataclass(frozen=True)
class About:
    """What holds for every event of a resource."""

    dataset: str | None
    evidence: Evidence

    def events(self, decision: Decision, purpose: str, begin: Moment, end: Moment | None) -> Iterator[ConsentEvent]:
        """One decision about one purpose."""
        yield from stated(decision, purpose, begin, end, dataset=self.dataset, evidence=self.evidence)


def events(root: Provision, window: Window, about: About) -> tuple[ConsentEvent, ...]:
    """What a resource's provisions say in a window of time; nothing for one that is about none of our purposes.

    Raises:
        BadLine: when it cannot be said (see the module's rules).
    """
    if not root.understood:
        raise BadLine(Reason.NOT_EXPRESSIBLE)
    window = window.within(root.begin, root.end)
    if root.permit:
        return tuple(dict.fromkeys(_permit(root, None, window, about)))
    beside = tuple(child for child in root.inner if not child.permit)
    permits = [
        event
        for child in root.inner
        if child.permit and child.understood
        for event in _permit(
            replace(child, inner=(*child.inner, *beside)), root.purposes, window.within(child.begin, child.end), about
        )
    ]
    return tuple(dict.fromkeys((*_refusal(root.purposes, permits, window, about), *permits)))


def _permit(node: Provision, scope: frozenset[str] | None, window: Window, about: About) -> Iterator[ConsentEvent]:
    """A permit with the exceptions to it."""
    codes = meet(scope, node.purposes)
    gaps: list[tuple[str, datetime, datetime | None]] = []
    for child in node.inner:
        if child.permit:
            if child.inner:
                raise BadLine(Reason.NOT_EXPRESSIBLE)
            continue
        if not child.understood:
            raise BadLine(Reason.NOT_EXPRESSIBLE)
        when = window.within(child.begin, child.end)
        if when.end is not None and when.end.last <= when.begin.first:
            continue
        refused = meet(codes, child.purposes)
        for code in sorted({ANY_USE} if refused is None else refused):
            yield from about.events(Decision.DENY, code, when.begin, None)
            gaps.append((code, when.begin.first, None if when.end is None else when.end.last))
    end = None if window.end is None else window.end.first
    for code in sorted(codes or ()):
        cuts = [(begin, until) for refused, begin, until in gaps if refused in ancestors(code)]
        for first, last in _left(window.begin.last, end, cuts):
            sharp = None if last is None else Moment(last, last)
            yield from about.events(Decision.PERMIT, code, Moment(first, first), sharp)


def _refusal(
    scope: frozenset[str] | None, permits: Iterable[ConsentEvent], window: Window, about: About
) -> Iterator[ConsentEvent]:
    """A refusal, but of what the exceptions to it permit."""
    permitted = {str(event.purpose) for event in permits if event.decision is Decision.PERMIT}
    for code in sorted({ANY_USE} if scope is None else scope):
        spared = any(code in ancestors(one) or one in ancestors(code) for one in permitted)
        below = sorted(use.value for use in uses(code) if not permitted & ancestors(use)) if spared else [code]
        for refused in below:
            yield from about.events(Decision.DENY, refused, window.begin, None)


def _left(
    begin: datetime, end: datetime | None, cuts: Iterable[tuple[datetime, datetime | None]]
) -> Iterator[tuple[datetime, datetime | None]]:
    """What is left of a stretch of time without the cuts."""
    for first, until in sorted(cuts, key=lambda cut: cut[0]):
        if end is not None and first >= end:
            break
        if first > begin:
            yield begin, first
        if until is None:
            return
        begin = max(begin, until)
    if end is None or begin < end:
        yield begin, end


def meet(outer: frozenset[str] | None, inner: frozenset[str] | None) -> frozenset[str] | None:
    """The purposes that both are about; None is all of them.

    Raises:
        BadLine: when two share uses and neither covers the other, so that no purpose of the vocabulary is what they share.
    """
    if outer is None or inner is None:
        return inner if outer is None else outer
    shared: set[str] = set()
    for one in outer:
        for other in inner:
            if one in ancestors(other):
                shared.add(other)
            elif other in ancestors(one):
                shared.add(one)
            elif uses(one) & uses(other):
                raise BadLine(Reason.NOT_EXPRESSIBLE)
    return frozenset(shared)
