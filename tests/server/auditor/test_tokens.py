"""Access tokens, and the record of every reading."""

from datetime import timedelta

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.exc import DBAPIError

from bract.errors import ALREADY_EXISTS, DISK, FORBIDDEN, MALFORMED, TOKEN, UNKNOWN_SITE, BractError
from bract.question import moment
from bract.roles import Role
from bract_server.auditor.questions import ask
from bract_server.registry.access import LONGEST, Principal
from tests.server.auditor.conftest import ADA, LATER, Hub
from tests.server.registry.world import AT

DAY = timedelta(days=1)


def code_of(refused: pytest.ExceptionInfo[BractError]) -> str:
    return refused.value.code


def test_a_token_opens_until_it_expires_or_is_revoked_and_is_kept_nowhere(hub: Hub) -> None:
    registry = hub.world.registry
    number, secret = registry.issue_token("ada", Role.AUDITOR, AT, expires_at=AT + DAY, questions=frozenset({3, 5}))
    other, second = registry.issue_token("ada", Role.AUDITOR, AT, expires_at=AT + 2 * DAY)
    assert secret != second and len(secret) >= 43
    assert registry.principal(secret, AT) == Principal("ada", Role.AUDITOR, None, frozenset({3, 5}))
    for asked, at in ((secret, AT + DAY), (secret[:-1], AT), ("", AT), (second + "x", AT)):
        with pytest.raises(BractError) as refused:
            registry.principal(asked, at)
        assert code_of(refused) == TOKEN
    registry.revoke_token(other, AT)
    registry.revoke_token(other, LATER)
    with pytest.raises(BractError) as refused:
        registry.principal(second, AT)
    assert code_of(refused) == TOKEN
    assert [(one.number, one.revoked_at) for one in registry.tokens()] == [(number, None), (other, AT)]
    with hub.world.engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            assert secret not in str(connection.execute(text(f"SELECT * FROM {table}")).all())  # noqa: S608
    _what_a_token_may_be_is_checked(hub)


def _what_a_token_may_be_is_checked(hub: Hub) -> None:
    registry = hub.world.registry
    wrong = (
        ("ada", Role.OWNER, AT + DAY, None, (), ALREADY_EXISTS),
        ("eve", Role.SITE, AT + DAY, None, (), MALFORMED),
        ("eve", Role.AUDITOR, AT + DAY, "alder", (), MALFORMED),
        ("eve", Role.AUDITOR, AT, None, (), MALFORMED),
        ("eve", Role.AUDITOR, AT + LONGEST + DAY, None, (), MALFORMED),
        ("eve", Role.AUDITOR, AT + DAY, None, (16,), MALFORMED),
        ("eve", Role.SITE, AT + DAY, "nowhere", (), UNKNOWN_SITE),
    )
    for name, role, until, site, only, code in wrong:
        with pytest.raises(BractError) as refused:
            registry.issue_token(name, role, AT, expires_at=until, site=site, questions=frozenset(only))
        assert code_of(refused) == code
    assert len(registry.tokens()) == 2
    _, secret = registry.issue_token("alder-daemon", Role.SITE, AT, expires_at=AT + DAY, site="alder")
    registry.revoke_site("alder", AT)
    with pytest.raises(BractError) as refused:
        registry.principal(secret, AT)
    assert code_of(refused) == UNKNOWN_SITE


def test_a_reading_is_recorded_before_it_is_answered_and_for_good(hub: Hub) -> None:
    hub.ask(8, purpose="yearly audit")
    (row,) = hub.ask(14, at=LATER + DAY).rows[:1]
    assert (row["principal"], row["role"], row["asked"], row["purpose"]) == (
        "ada",
        "auditor",
        "question 8",
        "yearly audit",
    )
    hub.world.registry.issue_token("ada", Role.AUDITOR, AT, expires_at=LATER)
    for statement in ("UPDATE access_log SET purpose = 'none'", "DELETE FROM access_log", "DELETE FROM access_token"):
        with pytest.raises(DBAPIError, match="keeps its rows"), hub.world.engine.begin() as connection:
            connection.execute(text(statement))


def test_nothing_is_answered_without_its_record_or_beyond_the_role(hub: Hub) -> None:
    sight = hub.sight()
    assert len(sight.sites()) == 3  # what was read before does not make it write
    with pytest.raises((BractError, DBAPIError)) as refused:
        ask(sight, sight, ADA, 8, moment(None, None, LATER), LATER)
    assert not isinstance(refused.value, BractError) or refused.value.code == DISK
    for who, number in (
        (Principal("olga", Role.OPERATOR), 14),
        (Principal("alder", Role.SITE, "alder"), 1),
        (Principal("ada", Role.AUDITOR, None, frozenset({3})), 5),
    ):
        with pytest.raises(BractError) as refused:
            hub.ask(number, who)
        assert code_of(refused) == FORBIDDEN
    assert hub.ask(14).rows[-1]["asked"] == "question 14"
    assert len(hub.ask(14).rows) == 2
    site = Principal("alder", Role.SITE, "alder")
    with pytest.raises(BractError) as refused:
        ask(hub.sight(), hub.world.registry, site, 8, moment(None, None, LATER), LATER)
    assert code_of(refused) == FORBIDDEN
