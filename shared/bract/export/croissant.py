"""A data set snapshot as Croissant 1.1 JSON-LD [MLCommons, 29 January 2026] with its responsible-AI vocabulary 1.0.

The data never leave their site, so there is nothing to download: no distribution, no record set. No count of persons or
records is told, nor anything from which one could be had. Conditions of use are `usageInfo`: an ODRL offer of the uses that
are allowed, with GA4GH DUO terms as constraints (Croissant 1.1, "Data Use Conditions").
"""

from typing import Any

from bract.export.facts import Facts
from bract.export.markdown import MISSING
from bract.export.names import agent, duo_iri, iri, moment
from bract.model import Node, NodeKind, Relation

_TERMS = (  # the context of Croissant 1.1, appendix 1
    *("annotation", "arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract"),
    *("field", "fileProperty", "fileObject", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
    *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "readLines", "repeated", "replace"),
    *("samplingRate", "sdVersion", "separator", "source", "subField", "transform", "unArchive", "value"),
)

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "prov": "http://www.w3.org/ns/prov#",
    "odrl": "http://www.w3.org/ns/odrl/2/",
    "bract": "urn:bract:",
    **{term: f"cr:{term}" for term in _TERMS},
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}


def croissant(facts: Facts, node: Node) -> dict[str, Any]:
    """The snapshot's description."""
    site = str(node.body.get("site") or "")
    purposes = [str(one) for one in node.body.get("purposes") or ()]
    whole = facts.older(node, Relation.DERIVED)
    told: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "@id": iri(node),
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": node.name,
        "description": "Who was admitted to a site's data set at one moment, by a Merkle root over keyed digests. The records "
        "stay at the site; sites train on them there.",
        "license": "None is granted: the data are not handed out. What may be done with them is in usageInfo.",
        "url": iri(node),
        "version": str(node.body.get("snapshot") or node.ref),
        "creator": {"@type": "sc:Organization", "@id": f"bract:{agent('site', site)}", "name": site or MISSING},
        "isLiveDataset": False,
        "usageInfo": [_offer(node, purposes), *(_term(one) for one in node.modifiers)],
        "rai:personalSensitiveInformation": "Records of consent subjects. Handles of persons are keyed and stay at the site.",
        "rai:dataReleaseMaintenancePlan": "A snapshot never changes; a later one follows what people decide.",
        "rai:dataUseCases": [f"urn:bract:purpose:{one}" for one in purposes] or [MISSING],
        "rai:dataCollection": MISSING,
        "rai:dataLimitations": MISSING,
        "rai:dataBiases": MISSING,
    }
    told |= {} if node.at is None else {"datePublished": moment(node.at)}
    told |= {"prov:wasDerivedFrom": [{"@id": iri(one)} for one in whole]} if whole else {}
    told |= {"prov:wasAttributedTo": {"@id": f"bract:{agent('site', site)}"}} if site else {}
    return told


def snapshots(facts: Facts) -> tuple[Node, ...]:
    """The snapshots to describe."""
    return facts.of(NodeKind.SNAPSHOT)


def _offer(node: Node, purposes: list[str]) -> dict[str, Any]:
    uses = list(node.permits)
    return {
        "@type": ["sc:CreativeWork", "odrl:Offer"],
        "name": "Uses that the consents in this snapshot allow",
        "description": f"Cleared for: {', '.join(purposes) or MISSING}",
        "odrl:permission": [
            {
                "@type": "odrl:Permission",
                "odrl:action": {"@id": f"bract:purpose:{use}"},
                "odrl:constraint": [
                    {
                        "@type": "odrl:Constraint",
                        "odrl:leftOperand": {"@id": "odrl:purpose"},
                        "odrl:operator": {"@id": "odrl:eq"},
                        "odrl:rightOperand": {"@id": duo_iri(str(one).partition("=")[0])},
                    }
                    for one in node.modifiers
                ],
            }
            for use in uses
        ],
    }


def _term(modifier: object) -> dict[str, Any]:
    code, _, value = str(modifier).partition("=")
    named = {"description": value} if value else {}
    return {
        "@type": "sc:DefinedTerm",
        "name": code,
        "termCode": code.replace(":", "_"),
        "url": duo_iri(code),
        "inDefinedTermSet": "http://purl.obolibrary.org/obo/duo.owl",
        **named,
    }
