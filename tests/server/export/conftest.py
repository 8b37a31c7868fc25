"""The hub's registry on both databases, as the registry's own tests have it."""

from tests.server.registry.conftest import campaign, world

__all__ = ["campaign", "world"]
