"""What signed things say of each other: each may cite only what stands before it in the log. Pure.

Rules at a hub:
    1. A proposal, answer, plan or version is of a campaign that was created; a site that answers is in its plan.
    2. A site's place in a round stands on its own clearance and its own reservation for that very round.
    3. A contribution is of a site with a place in the plan that it names, and cites that place.
    4. A version is made of contributions to its own round, and continues a version that is there.
    5. A receipt names a contribution of its site that is in the version that it names.
    6. Every site's key is the one with which the log says that it was enrolled, and so is every person's.
Rules at a site:
    7. A contribution cites a clearance and a reservation that the site issued for one round.
    8. A receipt names a contribution of the site.
    9. A data set's terms are the site's own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bract.errors import LOG, BractError
from bract.log.bundle import HUB

SITES_SIGN = frozenset(
    {
        "clearance.take",
        "reservation.take",
        "relinquishment.take",
        "refusal.take",
        "contribution.accept",
        "withdrawal.take",
    }
)
HUB_SIGNS = frozenset({"campaign.create", "round.propose", "round.open", "receipt.issue"})
PEOPLE_SIGN = frozenset(
    {
        "terms.take",
        "override.take",
        "withdrawal.decide",
        "release.propose",
        "approval.take",
        "release.withdraw",
    }
)
"""By a person of the hub; terms also by a site."""
REGISTERED = frozenset({"person.add", "lineage.add", "card.add", "release.policy", "release.publish"})
"""What the hub signs beside rounds."""
SITE_SIGNS = frozenset({"clearance.issue", "privacy.reserve", "privacy.relinquish", "contribution.keep", "terms.give"})
FROM_HUB = "receipt.keep"
UNSIGNED = "version.add"
"""A version is no signed thing; its name is the digest of its value."""

REQUIRED = {
    "hub": SITES_SIGN | HUB_SIGNS | PEOPLE_SIGN | REGISTERED | {UNSIGNED},
    "site": SITE_SIGNS | {FROM_HUB},
}
"""Kinds of entries whose signed thing is in every bundle, by side."""

Round = tuple[str, int]


@dataclass
class References:
    """What was seen so far, by digest; `take` is told every signed thing in the log's order."""

    side: str
    keys: Mapping[str, str]
    people: Mapping[str, str]
    campaigns: dict[str, frozenset[str]] = field(default_factory=dict)
    proposed: set[Round] = field(default_factory=set)
    clearances: dict[str, tuple[str, Round]] = field(default_factory=dict)
    reservations: dict[str, tuple[str, Round]] = field(default_factory=dict)
    plans: dict[str, tuple[Round, dict[str, tuple[str, str]]]] = field(default_factory=dict)
    contributions: dict[str, tuple[str, str]] = field(default_factory=dict)
    versions: dict[str, frozenset[str]] = field(default_factory=dict)
    rules: set[str] = field(default_factory=set)
    enrolled: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)

    def take(self, kind: str, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        """A signed thing and what its entry says of it.

        Raises:
            BractError: `log-inconsistent`, saying what is cited and is not there.
        """
        rule = getattr(self, "_" + kind.replace(".", "_").replace("-", "_"), None)
        if rule is None:
            return
        try:
            rule(about, actor, thing)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise BractError(LOG, "a field is missing or of another form") from error

    def enrol(self, site: str, body: bytes) -> None:
        """The body of an entry `site.add` (rule 6).

        Raises:
            BractError: `log-inconsistent`.
        """
        self.enrolled.add(site)
        try:
            key = json.loads(body)["verify_key"]
        except (KeyError, TypeError, ValueError) as error:
            raise BractError(LOG, "the body has no key") from error
        _need(self.keys.get(site) == key, f"{site} was enrolled with another key than it has here")

    def end(self) -> None:
        """That every site and person whose key is here was enrolled by an entry of the log (rule 6).

        Raises:
            BractError: `log-inconsistent`.
        """
        if self.side == HUB and (odd := sorted(set(self.keys) - self.enrolled)):
            raise BractError(LOG, f"keys.json: no entry enrols {odd[0]}")
        if odd := sorted(set(self.people) - self.added):
            raise BractError(LOG, f"keys.json: no entry adds {odd[0]}")

    def _campaign_create(self, about: str, _: str, thing: Mapping[str, Any]) -> None:
        self.campaigns[about] = frozenset(site["name"] for site in thing["sites"])

    def _round_propose(self, _: str, __: str, thing: Mapping[str, Any]) -> None:
        _need(thing["campaign"] in self.campaigns, "the campaign was never created")
        self.proposed.add(_round(thing))

    def _clearance_take(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        self._answer(actor, thing)
        self.rules.add(thing["rule"])
        self.clearances[about] = (actor, _round(thing))

    def _reservation_take(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        self._answer(actor, thing)
        self.reservations[about] = (actor, _round(thing))

    def _refusal_take(self, _: str, actor: str, thing: Mapping[str, Any]) -> None:
        self._answer(actor, thing)

    def _answer(self, actor: str, thing: Mapping[str, Any]) -> None:
        _need(thing["site"] == actor, "a site speaks for another")
        _need(actor in self.campaigns.get(thing["campaign"], ()), f"the campaign has no site {actor}")
        _need(_round(thing) in self.proposed, "the round was never proposed")

    def _round_open(self, about: str, _: str, thing: Mapping[str, Any]) -> None:
        at = _round(thing)
        _need(at in self.proposed, "the round was never proposed")
        _need(thing["parent"] in self.versions, "the round starts from a version that is not there")
        places: dict[str, tuple[str, str]] = {}
        for place in thing["cohort"]:
            site, clearance, reservation = place["site"], place["clearance"], place["reservation"]
            _need(self.clearances.get(clearance) == (site, at), f"{site} takes part without a clearance of that round")
            _need(self.reservations.get(reservation) == (site, at), f"{site} takes part without a reservation")
            places[site] = (clearance, reservation)
        self.plans[about] = (at, places)

    def _contribution_accept(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        _need(thing["site"] == actor, "a site speaks for another")
        _, places = self.plans.get(thing["plan"], (None, {}))
        cited = (thing["clearance"], thing["reservation"])
        _need(places.get(actor) == cited, f"{actor} has no such place in the round")
        self.contributions[about] = (actor, thing["plan"])

    def _version_add(self, about: str, _: str, thing: Mapping[str, Any]) -> None:
        _need(thing["campaign"] in self.campaigns, "the campaign was never created")
        if thing["number"] == 0:
            _need(thing["parent"] is None and not thing["contributions"], "a first version continues nothing")
        else:
            _need(thing["parent"] in self.versions, "it continues a version that is not there")
        for name in thing["contributions"]:
            _, plan = self.contributions.get(name, ("", ""))
            at, _places = self.plans.get(plan, (None, {}))
            _need(at == (thing["campaign"], thing["number"]), f"contribution {name} is not of its round")
        self.versions[about] = frozenset(thing["contributions"])

    def _receipt_issue(self, _: str, __: str, thing: Mapping[str, Any]) -> None:
        mine = self.contributions.get(thing["contribution"])
        _need(mine == (thing["site"], thing["plan"]), "the receipt names no contribution of its site")
        inside = self.versions.get(thing["version"], ())
        _need(thing["contribution"] in inside, "the contribution is not in the version that the receipt names")

    def _person_add(self, _: str, __: str, thing: Mapping[str, Any]) -> None:
        name = f"person:{thing['name']}"
        _need(self.people.get(name) == thing["key"], "the person has another key here")
        self.added.add(name)

    def _clearance_issue(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        _need(thing["site"] == actor, "a site speaks for another")
        self.rules.add(thing["rule"])
        self.clearances[about] = (actor, _round(thing))

    def _privacy_reserve(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        _need(thing["site"] == actor, "a site speaks for another")
        self.reservations[about] = (actor, _round(thing))

    def _terms_give(self, _: str, actor: str, thing: Mapping[str, Any]) -> None:
        _need(thing["site"] == actor, "a site speaks for another")

    def _contribution_keep(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        cleared, reserved = self.clearances.get(thing["clearance"]), self.reservations.get(thing["reservation"])
        _need(cleared is not None and cleared == reserved, "it cites no clearance and reservation of one round")
        self.contributions[about] = (actor, thing["plan"])

    def _receipt_keep(self, about: str, actor: str, thing: Mapping[str, Any]) -> None:
        _need(thing["contribution"] == about and thing["site"] == actor, "the receipt is for another")
        mine = self.contributions.get(about)
        _need(mine == (actor, thing["plan"]), "the receipt names no contribution of the site")


def _need(holds: bool, text: str) -> None:
    if not holds:
        raise BractError(LOG, text)


def _round(thing: Mapping[str, Any]) -> Round:
    return thing["campaign"], thing["number"]
