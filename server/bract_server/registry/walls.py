"""What a site may see at the hub: what it said itself and got, and what every site is sent. Nothing of other sites.

Two walls with the same list:
    1. Here, in every ORM statement of a session: rows of others are left out, tables that are not listed are refused.
    2. On PostgreSQL, row-level security: the session takes the role `bract_site`, which owns nothing, and names its site in
       the setting `bract.site`. Unset, it sees no row.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Table, event, select, text
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql import visitors

from bract.errors import FORBIDDEN, NOT_INITIALISED, BractError
from bract_server.registry.models import Base, ClearanceRow, NoticeRow, QuarantineRow, ReservationRow

ROLE = "bract_site"

OWN: dict[str, str] = {
    "site": "name",
    "site_certificate": "site",
    "campaign_site": "site",
    "clearance": "site",
    "reservation": "site",
    "refusal": "site",
    "participant": "site",
    "contribution": "site",
    "receipt": "site",
    "withdrawal_notice": "site",
    "privacy_account": "site",
    "privacy_entry": "site",
    "site_quarantine": "site",
}
"""Tables of a site's own rows, by the column that names it."""

THROUGH: dict[str, tuple[str, Any]] = {
    "withdrawal_snapshot": ("notice_id", NoticeRow),
    "withdrawal_impact": ("notice_id", NoticeRow),
    "clearance_revocation": ("clearance_id", ClearanceRow),
    "relinquishment": ("reservation_id", ReservationRow),
    "site_quarantine_lift": ("quarantine_id", QuarantineRow),
}
"""Tables of rows that belong to one of those."""

SHARED = frozenset({"campaign", "round", "round_plan", "encoder_version"})
"""Tables of what every site is sent."""


def enclose(session: Session, site: str) -> None:
    """From here on the session sees what that site may see.

    Raises:
        BractError: `not-initialised` when PostgreSQL has no role `bract_site` or it may not be taken.
    """
    event.listen(session, "do_orm_execute", _filter(site))
    if session.connection().dialect.name != "postgresql":
        return
    member = "SELECT pg_has_role(current_user, oid, 'MEMBER') FROM pg_roles WHERE rolname = :role"
    if not session.connection().scalar(text(member), {"role": ROLE}):
        raise BractError(NOT_INITIALISED, f"the database's administrator has to create the role {ROLE} and grant it")
    session.connection().execute(text(f"SET LOCAL ROLE {ROLE}"))
    session.connection().execute(text("SELECT set_config('bract.site', :site, true)"), {"site": site})


def _filter(site: str) -> Callable[[ORMExecuteState], None]:
    criteria = []
    for mapper in Base.registry.mappers:
        cls, name = mapper.class_, str(mapper.local_table.name)  # type: ignore[attr-defined]
        if name in OWN:
            criteria.append(with_loader_criteria(cls, getattr(cls, OWN[name]) == site, include_aliases=True))
        elif name in THROUGH:
            criteria.append(with_loader_criteria(cls, _through(cls, *THROUGH[name], site), include_aliases=True))

    def leave_out(state: ORMExecuteState) -> None:
        if not state.is_select:
            raise BractError(FORBIDDEN, "a site reads here, and nothing else")
        asked: Any = state.statement
        for element in visitors.iterate(asked):
            table = element if isinstance(element, Table) else getattr(element, "table", None)
            if isinstance(table, Table) and table.name not in SHARED | OWN.keys() | THROUGH.keys():
                raise BractError(FORBIDDEN, f"{table.name} is not for a site")
        state.statement = state.statement.options(*criteria)

    return leave_out


def _through(cls: Any, column: str, parent: Any, site: str) -> ColumnElement[bool]:
    own: ColumnElement[bool] = getattr(cls, column).in_(select(parent.id).where(parent.site == site))
    return own
