"""Persons with keys, and what they register and sign; what is not given is valid."""

from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import Digest
from bract.model import DatasetTerms, Derived, ExternalSource, Input, ModelCard, NodeKind, Role
from bract.release import (
    Approval,
    Criterion,
    ImpactDecision,
    Override,
    Person,
    PersonRole,
    ReleaseProposal,
    Remedy,
    Withdrawn,
)
from bract.signing import Envelope, key_id, key_text, sign
from bract.vocabulary.modifiers import Modifier
from bract.vocabulary.purposes import Purpose
from tests.server.registry.world import AT, World, named


@dataclass
class Studio:
    """A world with persons: an author `ada` (owner), `dora` (DPO), `otto` (operator), `emil` (ethics board)."""

    world: World
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, role in (
            ("ada", PersonRole.OWNER),
            ("dora", PersonRole.DPO),
            ("otto", PersonRole.OPERATOR),
            ("emil", PersonRole.ETHICS),
        ):
            self.person(name, role)

    def person(self, name: str, *roles: PersonRole) -> Digest:
        key = self.keys[name] = Ed25519PrivateKey.generate()
        return self.world.registry.add_person(Person(name, key_text(key.public_key()), roles), AT)

    def by(self, name: str) -> Digest:
        return key_id(self.keys[name].public_key())

    def sign(self, name: str, value: Any) -> Envelope:
        return sign(value, self.keys[name])

    def source(self, name: str = "wiki", **changes: Any) -> str:
        facts: dict[str, Any] = {
            "name": name,
            "url": f"https://example.org/{name}",
            "licence": "CC0-1.0",
            "content": named(f"content {name}"),
            "permits": tuple(Purpose),
        }
        return self.world.registry.add_source(ExternalSource(**{**facts, **changes}), AT)

    def terms(self, site: str, *declares: Purpose, modifiers: tuple[Modifier, ...] = (), by: str = "dora") -> Envelope:
        return self.sign(by, DatasetTerms(site, "adult", declares, modifiers, named(f"notice {site}"), AT))

    def declare(self, *declares: Purpose, sites: tuple[str, ...] = ("alder", "birch"), **more: Any) -> None:
        for site in sites:
            self.world.registry.set_terms(self.terms(site, *declares, **more), AT)

    def fine_tune(self, start: str, data: str, name: str = "tuned", **changes: Any) -> Derived:
        kind, _ = self.world.registry.thing(start)
        held = NodeKind.SNAPSHOT if "/" in data else NodeKind.EXTERNAL
        facts: dict[str, Any] = {
            "kind": NodeKind.FINETUNE,
            "name": name,
            "purpose": Purpose.FINETUNING,
            "inputs": (Input(kind, start, Role.INITIALISED), Input(held, data, Role.TRAINED)),
            "content": named(f"weights {name}"),
            "content_bytes": 1000,
        }
        return Derived(**{**facts, **changes})

    def evaluation(self, model: str, data: str, name: str = "judged") -> Digest:
        kind, _ = self.world.registry.thing(model)
        held = NodeKind.SNAPSHOT if "/" in data else NodeKind.EXTERNAL
        inputs = (Input(kind, model, Role.EVALUATED), Input(held, data, Role.EVALUATED_ON))
        value = Derived(
            NodeKind.EVALUATION, name, Purpose.EVALUATION, inputs, named(f"report {name}"), 10, {"accuracy": 0.83}
        )
        return self.world.registry.derive(value, AT)

    def card(self, model: str) -> Digest:
        return self.world.registry.add_card(ModelCard(Digest(model), "# What it is for"), AT)

    def override(self, name: str, about: str, criterion: Criterion) -> Envelope:
        return self.sign(name, Override(Digest(about), criterion, "the board agreed on 3 May", self.by(name), AT))

    def propose(self, target: str, *evaluations: str, **changes: Any) -> Digest:
        return self.world.registry.propose_release(self.proposal(target, *evaluations, **changes), AT)

    def proposal(
        self, target: str, *evaluations: str, author: str = "ada", name: str = "spring", **changes: Any
    ) -> Envelope:
        facts: dict[str, Any] = {
            "name": name,
            "channel": Purpose.RELEASE_INTERNAL,
            "target": target,
            "weights": self.world.registry.weights(target),
            "evaluations": evaluations,
            "honours": (),
            "by": self.by(author),
            "proposed_at": AT,
        }
        return self.sign(author, ReleaseProposal(**{**facts, **changes}))

    def approve(self, name: str, release: str, decision: Any = "approve") -> None:
        self.world.registry.approve(self.word(name, release, decision), AT)

    def word(self, name: str, release: str, decision: Any = "approve") -> Envelope:
        return self.sign(name, Approval(Digest(release), decision, "read card and report", self.by(name), AT))

    def withdrawn(self, name: str, release: str, reason: str) -> Envelope:
        return self.sign(name, Withdrawn(Digest(release), reason, self.by(name), AT))

    def decide(self, name: str, notice: str, remedy: Remedy, *refs: str, site: str = "alder") -> Envelope:
        return self.sign(name, ImpactDecision(site, notice, refs, remedy, "as the plan says", self.by(name), AT))
