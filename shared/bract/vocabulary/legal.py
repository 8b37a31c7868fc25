"""Legal bases that an event may name. They are recorded and reported; the consent rule does not read them.

Terms of the DPV 2.2 modules `legal_basis` and `eu-gdpr` (`legal_basis`, `legal_basis_special`), w3c/dpv. A refusal counts
whatever the basis was: who relies on another one than consent must not record the refusal as one.
"""

from dataclasses import dataclass
from enum import StrEnum

from bract.errors import MALFORMED, BractError


class Regime(StrEnum):
    """The law that gives a basis its meaning; `ANY` needs one to be named elsewhere."""

    ANY = "dpv"
    GDPR = "eu-gdpr"


@dataclass(frozen=True)
class LegalBasis:
    """One basis."""

    code: str
    label: str
    regime: Regime

    @property
    def iri(self) -> str:
        """The term's name in the world."""
        word = self.code.partition(":")[2]
        return (
            f"https://w3id.org/dpv/legal/eu/gdpr#{word}"
            if self.regime is Regime.GDPR
            else f"https://w3id.org/dpv#{word}"
        )


BASES: tuple[LegalBasis, ...] = (
    LegalBasis("dpv:Consent", "Consent", Regime.ANY),
    LegalBasis("dpv:Contract", "Contract", Regime.ANY),
    LegalBasis("dpv:LegalObligation", "Legal Obligation", Regime.ANY),
    LegalBasis("dpv:LegitimateInterest", "Legitimate Interest", Regime.ANY),
    LegalBasis("dpv:OfficialAuthorityOfController", "Official Authority of Controller", Regime.ANY),
    LegalBasis("dpv:PublicInterest", "Public Interest", Regime.ANY),
    LegalBasis("dpv:VitalInterest", "Vital Interest", Regime.ANY),
    LegalBasis("eu-gdpr:A6-1-a", "Art.6(1-a) consent", Regime.GDPR),
    LegalBasis("eu-gdpr:A6-1-b", "Art 6(1-b) contract", Regime.GDPR),
    LegalBasis("eu-gdpr:A6-1-c", "Art 6(1-c) legal obligation", Regime.GDPR),
    LegalBasis("eu-gdpr:A6-1-d", "Art 6(1-d) protect vital interests", Regime.GDPR),
    LegalBasis("eu-gdpr:A6-1-e", "Art 6(1-e) public interest or official authority", Regime.GDPR),
    LegalBasis("eu-gdpr:A6-1-f", "Art 6(1-f) legitimate interest", Regime.GDPR),
    LegalBasis("eu-gdpr:A9-2-a", "Art 9(2-a) explicit consent", Regime.GDPR),
    LegalBasis("eu-gdpr:A9-2-g", "Art 9(2-g) public interest", Regime.GDPR),
    LegalBasis("eu-gdpr:A9-2-h", "Art 9(2-h) health & medicine", Regime.GDPR),
    LegalBasis("eu-gdpr:A9-2-i", "Art 9(2-i) public interest in public health", Regime.GDPR),
    LegalBasis("eu-gdpr:A9-2-j", "Art 9(2-j) public interest, scientific research, statistical purpose", Regime.GDPR),
)
"""Every basis."""

_BY_CODE = {one.code: one for one in BASES}


def legal_basis(code: str) -> LegalBasis:
    """The basis of that code.

    Raises:
        BractError: `malformed` for a code that the vocabulary does not have.
    """
    if code not in _BY_CODE:
        raise BractError(MALFORMED, "legal basis: not in the vocabulary")
    return _BY_CODE[code]
