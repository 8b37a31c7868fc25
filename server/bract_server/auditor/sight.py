"""The registry as an auditor sees it: read only, as it was known at a time, and of one site alone where a site asks."""

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import LoaderCriteriaOption, ORMExecuteState, Session, with_loader_criteria

from bract.database import open_engine
from bract.digest import Digest
from bract.errors import FORBIDDEN, MALFORMED, BractError
from bract.log.checkpoint import Checkpoint
from bract.log.citing import cited
from bract.log.proof import Proof
from bract.plan import CampaignPlan
from bract.question import Cite, ProofReference
from bract.signing import Envelope
from bract_server.export.known import learnt_by
from bract_server.home import HubHome
from bract_server.registry.campaigns import plan_of
from bract_server.registry.models import LOG, Base, CampaignRow
from bract_server.registry.store import HubRegistry
from bract_server.registry.walls import enclose

_TIMES = (
    "recorded_at",
    "received_at",
    "registered_at",
    "created_at",
    "proposed_at",
    "opened_at",
    "closed_at",
    "issued_at",
    "published_at",
    "withdrawn_at",
    "set_at",
    "ended_at",
    "revoked_at",
    "at",
)
"""Columns that say when a row came to be known; of several the first."""


_SENT = frozenset({"campaign.create", "round.propose", "round.open", "version.add"})
"""Kinds of entries about what every site is sent."""


@dataclass(frozen=True)
class Arguments:
    """What a question may be narrowed by; which of these it takes is said where it is answered.

    Attributes:
        of: a model, release or snapshot, as lineage names it.
        campaign, number: a round.
        checkpoint: of the log, kept elsewhere.
        answer: a site's signed `SnapshotAnswer`.
    """

    of: str | None = None
    campaign: str | None = None
    number: int | None = None
    checkpoint: Checkpoint | None = None
    answer: Envelope | None = None

    def plain(self) -> dict[str, Any]:
        """For the access log; a site's answer by its digest alone."""
        given: dict[str, Any] = {"of": self.of, "campaign": self.campaign, "number": self.number}
        if self.checkpoint is not None:
            given["checkpoint"] = self.checkpoint.size
        if self.answer is not None:
            given["answer"] = self.answer.name
        return {name: value for name, value in given.items() if value is not None}


class Sight(HubRegistry):
    """Every read verb of the registry, as one site may see it where `site` is given. Nothing can be written.

    Args:
        engine: of `open_engine(…, read_only=True)`.
        key, origin: the hub's.
        site: the site that asks, None for whoever may see all.
        learnt: edges of lineage that were learnt after this time are left out.
    """

    def __init__(
        self,
        engine: Engine,
        key: Ed25519PrivateKey,
        origin: str,
        site: str | None = None,
        learnt: datetime | None = None,
    ) -> None:
        super().__init__(engine, key, origin)
        self.site_asking = site
        self._learnt = learnt

    @property
    def origin(self) -> str:
        """The hub's name."""
        return self._origin

    def whole(self) -> "Sight":
        """The same without the site's walls, for proof references: an entry's number tells a site nothing."""
        return self if self.site_asking is None else Sight(self._engine, self._key, self._origin)

    def proof(self, seq: int) -> Proof:
        """See `Witnesses.proof`; to a site, of what it did, what was done about it, and what every site is sent.

        Raises:
            BractError: `wrong-state` when there is no such entry; `forbidden` to a site for one about others.
        """
        if self.site_asking is None:
            return super().proof(seq)
        found = self.whole().proof(seq)
        if self.site_asking not in (found.entry.actor, found.entry.about) and found.entry.kind not in _SENT:
            raise BractError(FORBIDDEN, f"log entry {seq} is not for a site")
        return found

    @contextmanager
    def seeing(self) -> Iterator[Session]:
        """A transaction that reads one state of what may be seen."""
        with super().seeing() as session:
            if self.site_asking is not None:
                enclose(session, self.site_asking)
            if self._learnt is not None:
                event.listen(session, "do_orm_execute", _with(learnt_by(self._learnt)))
            yield session

    def then(self, at: datetime) -> "Sight":
        """The same, with lineage as it had been learnt by that time."""
        return Sight(self._engine, self._key, self._origin, self.site_asking, at)

    @contextmanager
    def known(self, at: datetime) -> Iterator[Session]:
        """The same, without rows that were not there yet at that time."""
        with self.seeing() as session:
            event.listen(session, "do_orm_execute", _with(learnt_by(at), *_until(at)))
            yield session

    def plans(self, session: Session) -> dict[str, CampaignPlan]:
        """The plans of all campaigns, by digest."""
        return {row.digest: plan_of(row) for row in session.scalars(select(CampaignRow))}


def open_sight(home: HubHome, site: str | None = None) -> Sight:
    """What may be seen of a hub, over connections that cannot write. Its registry must be at the newest schema.

    Raises:
        BractError: `key-permissions`, `disk`, `unreachable`.
    """
    return Sight(open_engine(home.database_url(), read_only=True), home.signing_key(), home.settings().name, site)


def _until(at: datetime) -> Iterator[LoaderCriteriaOption]:
    for mapper in Base.registry.mappers:
        recorded = next((name for name in _TIMES if name in mapper.columns), None)
        if recorded is not None:
            cls = mapper.class_
            yield with_loader_criteria(cls, getattr(cls, recorded) <= at, include_aliases=True)


def _with(*criteria: LoaderCriteriaOption) -> Callable[[ORMExecuteState], None]:
    def leave_out(state: ORMExecuteState) -> None:
        if state.is_select:
            state.statement = state.statement.options(*criteria)

    return leave_out


def prove(sight: Sight, known: datetime, cites: Set[Cite]) -> tuple[ProofReference, dict[Cite, int]]:
    """Where these entries stand in the hub's log (`bract.log.citing`)."""
    with sight.seeing() as session:
        return cited(session.connection(), LOG, sight.verify_key, sight.origin, known, cites)


def one_campaign(plans: dict[str, CampaignPlan], name: str) -> Digest:
    """The digest of the campaign of that name.

    Raises:
        BractError: `malformed` when there was none by then.
    """
    for digest, plan in plans.items():
        if plan.name == name:
            return Digest(digest)
    raise BractError(MALFORMED, "campaign: none of that name was known then")
