"""The hub as a whole: its registry, its arrays, and the processes that serve them."""

from bract.database import open_engine
from bract.migrations import migrate, revisions
from bract.supervisor import Program, environment, python
from bract_server.arrays import ArrayStore
from bract_server.home import HubHome
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry


def open_registry(home: HubHome) -> HubRegistry:
    """The hub's registry, brought to the newest schema.

    Raises:
        BractError: `key-permissions`, `disk`, `unreachable`, `concurrent`.
    """
    engine = open_engine(home.database_url())
    migrate(engine, MIGRATIONS)
    return HubRegistry(engine, home.signing_key(), home.settings().name)


def open_store(home: HubHome) -> ArrayStore:
    """The hub's arrays."""
    settings = home.settings()
    return ArrayStore(home.arrays, max_bytes=settings.max_array_bytes, quota_bytes=settings.array_quota_bytes)


def programs(home: HubHome) -> tuple[Program, ...]:
    """What `bract hub` keeps running: Flower's SuperLink, our gRPC services, and the launcher of ServerApps."""
    modules = {
        "coordinator": "bract_server.coordinator",
        "gateway": "bract_server.gateway",
        "launcher": "bract_server.launcher",
    }
    return tuple(
        Program(name, python(module, str(home.root)), environment(home.root), home.logs / f"{name}.log")
        for name, module in modules.items()
    )


def schema_revisions(home: HubHome) -> tuple[str | None, str | None]:
    """The registry's schema revision and the newest one; nothing is changed."""
    engine = open_engine(home.database_url(), read_only=True)
    try:
        return revisions(engine, MIGRATIONS)
    finally:
        engine.dispose()
