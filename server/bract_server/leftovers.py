"""Arrays at the hub that nothing needs: updates that came too late, or whose round was never closed."""

from datetime import datetime, timedelta

from bract.retention import Kept, ObjectKind, selects
from bract_server.arrays import ArrayStore
from bract_server.registry.store import HubRegistry

_STALE = timedelta(hours=1)
"""What is younger may be about to be registered: a campaign's initial encoder, a version."""


def discard_leftovers(registry: HubRegistry, store: ArrayStore, at: datetime) -> None:
    """Delete them, except what came since the oldest open round was proposed: that may be for this round. What is held stays.

    Raises:
        BractError: `disk`, and what the registry raises; `concurrent` while other deletions take long.
    """
    before = min(at - _STALE, registry.oldest_open() or at)
    unkept = [one for one in store.whole(before) if not registry.keeps(one)]
    if not unkept:
        return
    with registry.deleting():
        held = [one.hold.selector for one in registry.legal_holds() if one.before_deleting(at) is not None]
        for one in unkept:
            about = Kept(ObjectKind.LEFTOVER, one)
            if not registry.keeps(one) and not any(selects(selector, about) for selector in held):
                store.discard(one)
