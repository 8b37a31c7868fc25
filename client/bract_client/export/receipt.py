"""A person's own record, written for that person; the reading is recorded before anything is read."""

from datetime import datetime
from pathlib import Path
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.errors import MALFORMED, BractError
from bract.export.consent_record import Decided, receipt
from bract.export.manifest import About, Document, Manifest, export_documents
from bract.export.names import document
from bract.roles import Verb, check
from bract_client.auditor.sight import SiteSight, prove
from bract_client.registry.access import Reader
from bract_client.registry.store import SiteRegistry

MEDIA = "application/ld+json; profile=https://w3id.org/dpv/schema/dpv-27560#receipt"
DEFINITION = "A person's recorded decisions as an ISO/IEC TS 27560 receipt in the terms of W3C DPV."


def write_receipt(
    registry: SiteRegistry,
    sight: SiteSight,
    key: Ed25519PrivateKey,
    subject_id: str,
    out: Path,
    who: Reader,
    at: datetime,
    known_at: datetime | None = None,
) -> Manifest:
    """Write the receipt, readable by its owner only, with its manifest, which names nobody.

    Args:
        registry: the site's; the reading is recorded in it.
        sight: the same for reading.
        key: the site's, signs the manifest.
        subject_id: the person; it stands in the receipt only.
        out: the file.
        who: who asks; it is recorded.
        at: now.
        known_at: only what had been recorded by then; now, if None.

    Raises:
        BractError: `unknown-subject`; `forbidden` for a role that may not see a person; `malformed` for a time to come;
            `already-exists`; `disk`.
    """
    known = known_at or at
    if known > at:
        raise BractError(MALFORMED, "--as-of: that time is still to come")
    check(who.role, Verb.PERSON, at_site=True)
    registry.accessed(who, "export receipt", at, subject_id)
    events = [
        Decided(one.seq, one.event, one.recorded_at) for one in sight.history(subject_id) if one.recorded_at <= known
    ]
    keeps = {one.name: one.retention.ceiling_days for one in sight.datasets()}
    made = receipt(str(uuid4()), subject_id, registry.site, events, at, keeps)
    registry.checkpoint(at)
    proof, _ = prove(sight, known, frozenset())
    about = About(
        export="receipt",
        definition=DEFINITION,
        made_by=registry.site,
        known_at=known,
        checkpoint_size=proof.size,
        checkpoint_root=proof.root,
    )
    return export_documents({out: Document(MEDIA, document(made))}, about, key, at, private=True)
