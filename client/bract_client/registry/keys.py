"""What a registry works with besides its database: the site's name and its two secrets, never printed."""

from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bract.digest import Digest, digest


@dataclass(frozen=True)
class SiteKeys:
    """The key of subjects' handles (32 bytes) and the key that signs what leaves the site."""

    site: str
    subject: bytes = field(repr=False)
    signing: Ed25519PrivateKey = field(repr=False)

    @property
    def subject_key_id(self) -> Digest:
        """Names the subject key without telling it; stored beside each handle."""
        return digest(b"subject key\0" + self.subject)
