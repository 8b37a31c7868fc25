"""What is wrong with a site, and how to mend it."""

from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from bract import checks
from bract.checks import Check, guarded
from bract.database import open_engine, reading
from bract.errors import LOG_FORKED, BractError
from bract.log import exchange, forks
from bract.signing import verify_key
from bract_client import disposal
from bract_client.home import SiteHome
from bract_client.hub import connect
from bract_client.registry.models import LOG
from bract_client.renewal import REMEDY


def examine(
    home: SiteHome, revision: Callable[[], tuple[str | None, str | None]], clock: Callable[[], datetime]
) -> tuple[Check, ...]:
    """Every check of a site; nothing is raised and nothing changed.

    Args:
        home: the site.
        revision: gives the registry's schema revision and the newest one.
        clock: the time, in UTC; read again around the hub's own.
    """
    at = clock()
    return (
        checks.python_version(),
        guarded("flwr", checks.flower_version),
        checks.torch_present(),
        guarded("keys", lambda: checks.private_files(home.private_files)),
        guarded("settings", lambda: Check("settings", True, f"site {home.settings().name}")),
        guarded("enrolment", lambda: _enrolled(home)),
        guarded("certificate", lambda: checks.certificate_file("certificate", home.certificate_file, at, REMEDY)),
        guarded("authority", lambda: checks.certificate_file("authority", home.authority_file, at, REMEDY)),
        guarded("fleet port", lambda: checks.port_answers("fleet port", home.bundle().fleet)),
        guarded("wire port", lambda: checks.port_answers("wire port", home.bundle().wire)),
        guarded("clock", lambda: _clock(home, clock)),
        guarded("disk", lambda: checks.disk_space(home.root)),
        guarded("database", lambda: checks.database(revision)),
        guarded("retention", lambda: disposal.check(home, at)),
        guarded("log", lambda: _log(home)),
    )


def _enrolled(home: SiteHome) -> Check:
    bundle = home.bundle()
    return Check("enrolment", True, f"with the hub at {bundle.wire}, since {bundle.issued_at:%Y-%m-%d}")


def _log(home: SiteHome) -> Check:
    """That no fork stands, of the hub's log or of ours, and how far the hub has cosigned ours."""
    if not home.bundle_file.exists() or (home.settings().database is None and not home.registry_db.exists()):
        return Check("log", True, "nothing is witnessed yet")
    engine = open_engine(home.database_url(), read_only=True)
    try:
        with Session(reading(engine)) as session:
            found = forks.standing(session, LOG)
            signed = exchange.cosigned(session, LOG, verify_key(home.bundle().hub_key))
    finally:
        engine.dispose()
    if found:
        raise BractError(LOG_FORKED, found[0].cause)
    return Check("log", True, f"the hub has cosigned {signed} entries, no fork stands")


def _clock(home: SiteHome, clock: Callable[[], datetime]) -> Check:
    with connect(home, clock(), patience_s=3.0) as hub:
        before, theirs, after = clock(), hub.status().at, clock()
    return checks.clock_skew(before + (after - before) / 2, theirs)
