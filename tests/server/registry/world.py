"""A registry with three enrolled sites and a running campaign; the sites' keys are in the test's hand."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from bract.consent import RULE_DIGEST, Purpose
from bract.digest import Digest, digest
from bract.encoders.spec import TableSpec
from bract.objectives.spec import MaskedTableSpec
from bract.plan import CampaignPlan, Place, RoundPlan, SitePlan
from bract.privacy.spec import Mechanism, PrivacySpec
from bract.receipt import EncoderVersion
from bract.signing import Envelope, key_text, sign
from bract.update import Clearance, Contribution, Refusal, Relinquishment, Reservation, WithdrawalNotice
from bract.value import digest_value
from bract_server.registry.store import HubRegistry

AT = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
SITES = ("alder", "birch", "cedar")
MECHANISM = Mechanism(1.2, 0.05, 20)
ARRAYS_BYTES = 1000


def named(text: str) -> Digest:
    return digest(text.encode())


def campaign_plan(name: str = "heart", **changes: Any) -> CampaignPlan:
    plan = CampaignPlan(
        name=name,
        purpose=Purpose.PRETRAINING,
        dataset="adult",
        encoder=TableSpec("table", "adult"),
        objective=MaskedTableSpec("masked-table"),
        privacy=PrivacySpec(1.0, 1.2, 0.05, 20, 1e-5),
        sites=tuple(SitePlan(site) for site in SITES),
        rounds=3,
        quorum=2,
    )
    return replace(plan, **changes)


@dataclass
class World:
    """Every method stands for one party's word; what is not given is valid."""

    engine: Engine
    registry: HubRegistry
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)

    def enrol(self, site: str, **changes: Any) -> None:
        key = self.keys.setdefault(site, Ed25519PrivateKey.generate())
        facts = {
            "name": site,
            "verify_key": key_text(key.public_key()),
            "node_fingerprint": named(f"node {site}"),
            "node_public_pem": f"PEM of {site}",
            "certificate_fingerprint": named(f"certificate {site}"),
            "subjects_floor": 1000,
            "at": AT,
        }
        self.registry.add_site(**{**facts, **changes})

    def start(self, plan: CampaignPlan) -> Digest:
        first = EncoderVersion(digest_value(plan), 0, named(f"arrays 0 {plan.name}"), ARRAYS_BYTES, None, ())
        campaign = self.registry.create_campaign(plan, first, AT)
        self.registry.set_state(plan.name, "running", "", AT)
        return campaign

    def clearance(self, signer: str, campaign: Digest, number: int, **changes: Any) -> Envelope:
        value = Clearance(
            site=signer,
            campaign=campaign,
            number=number,
            dataset="adult",
            purpose=Purpose.PRETRAINING,
            snapshot=named(f"snapshot {signer}"),
            rule=RULE_DIGEST,
            subjects_floor=1000,
            issued_at=AT,
            expires_at=AT + timedelta(hours=1),
        )
        return sign(replace(value, **changes), self.keys[signer])

    def reservation(self, signer: str, campaign: Digest, number: int, **changes: Any) -> Envelope:
        value = Reservation(
            site=signer,
            campaign=campaign,
            number=number,
            dataset="adult",
            mechanism=MECHANISM,
            epsilon=1.0,
            epsilon_cap=8.0,
            delta=1e-5,
            reserved_at=AT,
            expires_at=AT + timedelta(hours=1),
        )
        return sign(replace(value, **changes), self.keys[signer])

    def relinquishment(
        self, signer: str, campaign: Digest, number: int, reservation: Digest, **changes: Any
    ) -> Envelope:
        value = Relinquishment(signer, campaign, number, reservation, AT)
        return sign(replace(value, **changes), self.keys[signer])

    def refusal(self, site: str, campaign: Digest, number: int, code: str) -> Envelope:
        return sign(Refusal(site, campaign, number, code), self.keys[site])

    def answer(self, campaign: Digest, number: int, *sites: str, at: datetime = AT, **cleared: Any) -> None:
        for site in sites:
            self.registry.clear(site, self.clearance(site, campaign, number, **cleared), at)
            self.registry.reserve(site, self.reservation(site, campaign, number), at)

    def round_plan(self, campaign: Digest, number: int, places: tuple[Place, ...]) -> RoundPlan:
        newest = self.registry.latest_version(campaign)
        arrays, size = newest.value.arrays, newest.value.arrays_bytes
        return RoundPlan(campaign, number, newest.digest, arrays, size, places, AT, AT + timedelta(minutes=10))

    def open(self, campaign: Digest, *sites: str, **cleared: Any) -> tuple[int, Envelope]:
        number = self.registry.propose(campaign, AT).number
        self.answer(campaign, number, *sites, **cleared)
        places = self.registry.answers(campaign, number, AT).places
        return number, self.registry.open_round(self.round_plan(campaign, number, places), AT)

    def contribution(self, site: str, campaign: Digest, number: int, plan: Digest, **changes: Any) -> Envelope:
        (place,) = (p for p in self.registry.answers(campaign, number, AT).places if p.site == site)
        value = Contribution(
            site, plan, place.clearance, place.reservation, MECHANISM, named(f"update {site} {number}"), ARRAYS_BYTES
        )
        return sign(replace(value, **changes), self.keys[site])

    def version(self, campaign: Digest, number: int) -> EncoderVersion:
        parent = self.registry.latest_version(campaign).digest
        inside = tuple(c.digest for c in self.registry.contributions(campaign, number))
        return EncoderVersion(campaign, number, named(f"arrays {number} {campaign}"), ARRAYS_BYTES, parent, inside)

    def commit(self, campaign: Digest, number: int, at: datetime = AT, **changes: Any) -> Digest:
        shares = {c.site: 0.5 for c in self.registry.contributions(campaign, number)}
        version = replace(self.version(campaign, number), **changes)
        state = named(f"state {number} {campaign}")
        return self.registry.commit_round(campaign, number, version, state, shares, {}, 4000, at)

    def whole_round(self, campaign: Digest, *sites: str, **cleared: Any) -> Digest:
        number, plan = self.open(campaign, *sites, **cleared)
        for site in sites:
            self.registry.accept(self.contribution(site, campaign, number, plan.name), site, AT)
        return self.commit(campaign, number)

    def notice(self, site: str, *snapshots: Digest, notice: str = "n-1", at: datetime = AT) -> Envelope:
        return sign(WithdrawalNotice(site, notice, snapshots, at), self.keys[site])
