"""What the hub puts into a bundle for auditors beside its log."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from bract.digest import digest
from bract.log import export
from bract.log.bundle import HUB, Party
from bract.log.export import Contents
from bract.log.references import UNSIGNED
from bract.signing import parse_envelope
from bract_server.registry.evidence import ENVELOPES
from bract_server.registry.models import LOG, EdgeRow, NodeRow, PersonRow, SiteRow, VersionRow
from bract_server.registry.unit import Store

_WITHHELD = frozenset({"access.read"})
"""What somebody asked, and why, is for those who watch over access; a reason may name anything."""


class Bundles(Store):
    """The part of the registry that is handed to auditors as a whole."""

    def bundle(self, authority: str) -> Iterator[tuple[str, bytes]]:
        """The files of a bundle of the whole log, up to its newest checkpoint.

        Args:
            authority: PEM of the hub's authority, which is part of its fingerprint.

        Raises:
            BractError: `wrong-state` for an empty log; `log-inconsistent` when something is missing.
        """
        with self.seeing() as session:
            yield from export.files(session, LOG, self._key, _contents(session, authority))


def _contents(session: Session, authority: str) -> Contents:
    things: dict[str, dict[str, bytes]] = {
        kind: {parse_envelope(data).name: data for data in session.scalars(kept)} for kind, kept in ENVELOPES.items()
    }
    things[UNSIGNED] = {digest(body): body for body in session.scalars(select(VersionRow.body))}
    sites = session.execute(select(SiteRow.name, SiteRow.verify_key).order_by(SiteRow.name))
    people = session.execute(select(PersonRow.name, PersonRow.key).order_by(PersonRow.name))
    return Contents(
        side=HUB,
        parties=tuple(Party(name, key) for name, key in sites),
        people=tuple(Party(f"person:{name}", key) for name, key in people),
        authority=authority,
        things=things,
        named=frozenset({UNSIGNED}),
        disclosed=lambda kind: kind not in _WITHHELD,
        harmless=lambda _kind, _body: True,
        lineage=list(_edges(session)),
    )


def _edges(session: Session) -> Iterator[dict[str, Any]]:
    newer, older = aliased(NodeRow), aliased(NodeRow)
    wanted = (
        select(newer.kind, newer.ref, EdgeRow.relation, EdgeRow.role, older.kind, older.ref)
        .select_from(EdgeRow)
        .join(newer, newer.id == EdgeRow.src)
        .join(older, older.id == EdgeRow.dst)
        .order_by(EdgeRow.src, EdgeRow.dst, EdgeRow.relation)
    )
    for kind, ref, relation, role, old_kind, old_ref in session.execute(wanted):
        yield {"from": [kind, ref], "relation": relation, "role": role, "to": [old_kind, old_ref]}
