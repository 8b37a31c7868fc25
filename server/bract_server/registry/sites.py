"""Sites: enrolled keys, certificates, revocation."""

from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, UNKNOWN_SITE, BractError
from bract.signing import verify_key as parse_key
from bract_server.registry.models import CertificateRow, QuarantineRow, SiteRow
from bract_server.registry.quarantine import standing
from bract_server.registry.unit import Store, Unit
from bract_server.registry.views import Site

_SEEN_EVERY = timedelta(seconds=5)
"""Calls closer together than this are not told apart: each write costs a disk sync."""

# Everything that a site says is checked with it, while other writers wait.
_KEY = select(SiteRow.verify_key).where(SiteRow.name == bindparam("of"), SiteRow.revoked_at.is_(None))


class Sites(Store):
    """The part of the registry that knows sites."""

    def add_site(
        self,
        *,
        name: str,
        verify_key: str,
        node_fingerprint: Digest,
        node_public_pem: str,
        certificate_fingerprint: Digest,
        subjects_floor: int,
        at: datetime,
    ) -> None:
        """Register a site; the same keys again renew its certificate.

        Raises:
            BractError: `already-exists` when the name, a key or the certificate is another's; `unknown-site` when the
                site was revoked; `malformed` for a bad key.
        """
        parse_key(verify_key)
        with self.writing(at) as unit:
            if unit.session.get(SiteRow, name) is not None:
                _renew(unit, name, (verify_key, node_fingerprint), certificate_fingerprint)
                return
            taken = (SiteRow.verify_key == verify_key) | (SiteRow.node_fingerprint == node_fingerprint)
            if unit.session.scalar(select(SiteRow.name).where(taken)) is not None:
                raise BractError(ALREADY_EXISTS, "another site has these keys")
            row = SiteRow(
                name=name,
                verify_key=verify_key,
                node_fingerprint=node_fingerprint,
                node_public_pem=node_public_pem,
                subjects_floor=subjects_floor,
                registered_at=at,
            )
            unit.session.add(row)
            unit.session.flush()
            _certify(unit, name, certificate_fingerprint)
            unit.log(
                "site.add",
                name,
                verify_key=verify_key,
                node=node_fingerprint,
                certificate=certificate_fingerprint,
                subjects_floor=subjects_floor,
            )

    def revoke_site(self, name: str, at: datetime) -> None:
        """From now on nothing that the site says counts; what it did stays on record. Twice is once.

        Raises:
            BractError: `unknown-site`.
        """
        with self.writing(at) as unit:
            row = unit.session.get(SiteRow, name)
            if row is None:
                raise BractError(UNKNOWN_SITE, name)
            if row.revoked_at is None:
                row.revoked_at = at
                unit.log("site.revoke", name)

    def sites(self) -> tuple[Site, ...]:
        """Every site ever enrolled, by name."""
        with self.seeing() as session:
            return tuple(_view(session, row) for row in session.scalars(select(SiteRow).order_by(SiteRow.name)))

    def site(self, name: str) -> Site:
        """The site of that name.

        Raises:
            BractError: `unknown-site`.
        """
        with self.seeing() as session:
            row = session.get(SiteRow, name)
            if row is None:
                raise BractError(UNKNOWN_SITE, name)
            return _view(session, row)

    def site_of_certificate(self, fingerprint: Digest) -> str:
        """The site that was given this certificate. An older one counts until it expires: it is of the same keys.

        Raises:
            BractError: `unknown-site` when there is none, or the site was revoked.
        """
        with self.seeing() as session:
            holder = session.scalar(select(CertificateRow.site).where(CertificateRow.fingerprint == fingerprint))
            if holder is None:
                raise BractError(UNKNOWN_SITE, "no site has this certificate")
            return live_site(session, holder).name

    def seen(self, name: str, at: datetime) -> None:
        """The site has called. Not a fact for the log; calls within seconds count as one."""
        with self.seeing() as session:
            last = session.scalar(select(SiteRow.seen_at).where(SiteRow.name == name))
        if last is None or at - last >= _SEEN_EVERY:
            with self._engine.begin() as connection:
                connection.execute(update(SiteRow).where(SiteRow.name == name).values(seen_at=at))


def site_key(session: Session, name: str) -> Ed25519PublicKey:
    """The key of a site whose word counts.

    Raises:
        BractError: `unknown-site` when there is none or it was revoked.
    """
    found = session.scalar(_KEY, {"of": name})
    if found is None:
        raise BractError(UNKNOWN_SITE, name)
    return parse_key(found)


def live_site(session: Session, name: str) -> SiteRow:
    """The row of a site whose word counts.

    Raises:
        BractError: `unknown-site` when there is none or it was revoked.
    """
    row = session.get(SiteRow, name)
    if row is None or row.revoked_at is not None:
        raise BractError(UNKNOWN_SITE, name)
    return row


def _renew(unit: Unit, name: str, keys: tuple[str, Digest], fingerprint: Digest) -> None:
    row = live_site(unit.session, name)
    if (row.verify_key, row.node_fingerprint) != keys:
        raise BractError(ALREADY_EXISTS, f"{name} has other keys")
    if _certificate(unit.session, name) != fingerprint:
        _certify(unit, name, fingerprint)
        unit.log("site.renew", name, certificate=fingerprint)


def _certify(unit: Unit, name: str, fingerprint: Digest) -> None:
    if unit.session.scalar(select(CertificateRow.id).where(CertificateRow.fingerprint == fingerprint)) is not None:
        raise BractError(ALREADY_EXISTS, "the certificate is on record already")
    unit.session.add(CertificateRow(site=name, fingerprint=fingerprint, recorded_at=unit.at))
    unit.session.flush()


def _certificate(session: Session, name: str) -> Digest:
    newest = select(CertificateRow.fingerprint).where(CertificateRow.site == name).order_by(CertificateRow.id.desc())
    return Digest(session.scalars(newest.limit(1)).one())


def _view(session: Session, row: SiteRow) -> Site:
    return Site(
        name=row.name,
        verify_key=row.verify_key,
        node_fingerprint=Digest(row.node_fingerprint),
        node_public_pem=row.node_public_pem,
        certificate_fingerprint=_certificate(session, row.name),
        subjects_floor=row.subjects_floor,
        registered_at=row.registered_at,
        revoked_at=row.revoked_at,
        seen_at=row.seen_at,
        quarantined_at=session.scalar(standing(row.name).with_only_columns(QuarantineRow.began_at)),
    )
