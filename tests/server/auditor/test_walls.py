"""A site cannot see what is another's: by the session on both databases, and by PostgreSQL itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, func, inspect, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from bract.errors import BAD_ARRAYS, BUDGET, FORBIDDEN, BractError
from bract.roles import Role
from bract_server.registry.access import Principal
from bract_server.registry.models import (
    LOG,
    Base,
    ClearanceRow,
    LiftRow,
    NodeRow,
    OutcomeRow,
    QuarantineRow,
    TokenRow,
)
from bract_server.registry.walls import OWN, ROLE, SHARED, THROUGH
from tests.server.auditor.conftest import LATER, Hub
from tests.server.registry.world import AT, SITES, campaign_plan, named

ALDER = Principal("alder-daemon", Role.SITE, "alder")
WALLED = {str(m.local_table.name): m.class_ for m in Base.registry.mappers}  # type: ignore[attr-defined]


@pytest.fixture
def busy(hub: Hub) -> Hub:
    """Every table that has walls has rows of several sites, but for those of a relinquishment."""
    world = hub.world
    campaign = world.start(campaign_plan())
    world.whole_round(campaign, *SITES)
    number = world.registry.propose(campaign, AT).number
    for site in SITES[1:]:
        world.registry.refuse(site, world.refusal(site, campaign, number, BUDGET), AT)
    world.registry.abort_round(campaign, number, {}, AT)
    number, _ = world.open(campaign, *SITES)
    for site in SITES[:2]:
        notice = world.notice(site, named(f"snapshot {site}"), notice=f"n-{site}")
        world.registry.withdraw(site, notice, AT)
        with Session(world.engine) as session, session.begin():
            apart = QuarantineRow(site=site, codes={BAD_ARRAYS: 3}, began_at=AT)
            session.add(apart)
            session.flush()
            session.add(LiftRow(quarantine_id=apart.id, person="Ada", reason="mended", lifted_at=AT))
    return hub


@contextmanager
def as_site(hub: Hub, site: str | None) -> Iterator[Connection]:
    with hub.world.engine.connect() as connection, connection.begin():
        connection.execute(text(f"SET LOCAL ROLE {ROLE}"))
        if site is not None:
            connection.execute(text("SELECT set_config('bract.site', :site, true)"), {"site": site})
        yield connection


def test_a_site_sees_its_own_rows_and_nothing_else(busy: Hub) -> None:
    with busy.world.registry.seeing() as whole, busy.sight("alder").seeing() as mine:
        for table, column in OWN.items():
            cls = WALLED[table]
            sites = set(whole.scalars(select(getattr(cls, column))))
            seen = set(mine.scalars(select(getattr(cls, column))))
            assert len(sites) >= 2 and seen == sites & {"alder"}, table
        for table, (column, parent) in THROUGH.items():
            cls = WALLED[table]
            own = select(parent.id).where(parent.site == "alder")
            expected = whole.scalar(select(func.count()).select_from(cls).where(getattr(cls, column).in_(own)))
            everything = whole.scalar(select(func.count()).select_from(cls))
            assert mine.scalar(select(func.count()).select_from(cls)) == expected, table
            assert table == "relinquishment" or 0 < (expected or 0) < (everything or 0), table
        assert mine.get(ClearanceRow, whole.scalar(select(ClearanceRow.id).where(ClearanceRow.site == "birch"))) is None
    _every_other_table_is_refused_and_so_is_every_change(busy)


def _every_other_table_is_refused_and_so_is_every_change(busy: Hub) -> None:
    shown = {*OWN, *THROUGH, *SHARED}
    hidden = [cls for table, cls in WALLED.items() if table not in shown]
    assert {NodeRow, TokenRow, OutcomeRow} <= set(hidden)
    statements: list[Any] = [select(cls) for cls in hidden]
    statements.append(select(LOG.entry))
    # also when it is only looked into
    statements.append(select(ClearanceRow).where(ClearanceRow.snapshot.in_(select(NodeRow.ref))))
    statements.append(update(ClearanceRow).values(site="alder"))
    for statement in statements:
        with busy.sight("alder").seeing() as session, pytest.raises(BractError) as refused:
            session.execute(statement).all()
        assert refused.value.code == FORBIDDEN, statement


def test_answers_to_a_site_name_no_other(busy: Hub) -> None:
    for number in (5, 8, 9, 13):
        told = str(busy.ask(number, ALDER).rows)
        assert "birch" not in told and "cedar" not in told
        assert "birch" in str(busy.ask(number, at=LATER).rows) or number == 13
    assert busy.ask(3, ALDER).rows[0]["holds"] is True
    _every_table_that_names_a_site_is_walled(busy)


def test_postgresql_hides_the_rows_by_itself(busy: Hub) -> None:
    if busy.world.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no row-level security; there the session is the wall")
    for table in (*OWN, *THROUGH):
        with as_site(busy, None) as connection:
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == 0, table  # noqa: S608 - our own names
    for table, column in OWN.items():
        with as_site(busy, "birch") as connection:
            assert set(connection.scalars(text(f"SELECT {column} FROM {table}"))) <= {"birch"}, table  # noqa: S608
    with as_site(busy, "alder") as connection:
        assert connection.scalar(text("SELECT count(*) FROM withdrawal_notice")) == 1
        assert connection.scalar(text("SELECT count(*) FROM withdrawal_snapshot")) == 1
    for statement in (
        "SELECT count(*) FROM lineage_node",
        "SELECT count(*) FROM log_body",
        "SELECT count(*) FROM access_token",
        "INSERT INTO campaign_site SELECT * FROM campaign_site",
        "UPDATE clearance SET site = 'birch'",
        "DELETE FROM refusal",
        "ALTER TABLE clearance DISABLE ROW LEVEL SECURITY",
        "DROP POLICY own_rows ON clearance",
    ):
        with pytest.raises(DBAPIError, match=r"denied|must be owner"), as_site(busy, "birch") as connection:
            connection.execute(text(statement))
    _an_ordinary_owner_is_bound_too(busy)


def _an_ordinary_owner_is_bound_too(busy: Hub) -> None:
    # The tests' role is a superuser, whom no policy binds: hand the tables to an ordinary one, as a hub has it.
    with busy.world.engine.connect() as connection, connection.begin() as transaction:
        connection.execute(text("CREATE ROLE bract_plain"))
        connection.execute(text("GRANT ALL ON SCHEMA public TO bract_plain"))
        everything = connection.scalar(text("SELECT count(*) FROM clearance"))
        connection.execute(text("ALTER TABLE clearance OWNER TO bract_plain"))
        connection.execute(text("SET LOCAL ROLE bract_plain"))
        assert connection.scalar(text("SELECT count(*) FROM clearance")) == 0  # forced: the owner is bound, too
        connection.execute(text("CREATE POLICY plain ON clearance TO CURRENT_USER USING (true) WITH CHECK (true)"))
        assert connection.scalar(text("SELECT count(*) FROM clearance")) == everything
        transaction.rollback()


def _every_table_that_names_a_site_is_walled(busy: Hub) -> None:
    with busy.world.engine.connect() as connection:
        inspector = inspect(connection)
        named_in = {
            table
            for table in inspector.get_table_names()
            if {"site"} & {column["name"] for column in inspector.get_columns(table)}
        }
        # a principal's site says whose token it is; no site may read that table at all
        assert named_in - {"principal"} <= set(OWN)
        if connection.dialect.name == "postgresql":
            found = text("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity")
            assert set(connection.scalars(found)) == {*OWN, *THROUGH}
