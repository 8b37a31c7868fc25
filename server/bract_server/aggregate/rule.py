"""From the plan's choice to a rule made for one round's updates."""

from collections.abc import Iterator, Sequence

from bract.aggregation import (
    Aggregation,
    CentredClipping,
    DeclaredMean,
    DivergenceMean,
    LayerMean,
    Median,
    MultiKrum,
    TrimmedMean,
)
from bract.arrays import Array, ArraysFile
from bract.errors import QUORUM, BractError
from bract_server.aggregate.clipping import centred_clipping
from bract_server.aggregate.combination import Combination
from bract_server.aggregate.divergence import divergence_mean, layer_mean
from bract_server.aggregate.krum import multi_krum
from bract_server.aggregate.mean import declared_mean
from bract_server.aggregate.median import median, trimmed_mean
from bract_server.aggregate.updates import SiteUpdate, blocks, by_site


def combination(spec: Aggregation, updates: Sequence[SiteUpdate], origin: ArraysFile) -> Combination:  # noqa: PLR0911 (one a kind)
    """The plan's rule for these updates of one layout; `origin` is what the round started from.

    Raises:
        BractError: `no-quorum` when there are fewer updates than what the rule claims needs, or none; `bad-arrays`,
            `not-finite` or `disk` from a pass over the files.
    """
    if len(updates) < spec.least_sites:
        raise BractError(QUORUM, f"{spec.kind}: {len(updates)} of at least {spec.least_sites} updates")
    ordered = by_site(updates)
    match spec:
        case DeclaredMean():
            return declared_mean(ordered)
        case DivergenceMean():
            return divergence_mean(spec, ordered)
        case LayerMean():
            return layer_mean(ordered, origin)
        case Median():
            return median(ordered)
        case TrimmedMean():
            return trimmed_mean(spec, ordered)
        case CentredClipping():
            return centred_clipping(spec, ordered)
        case MultiKrum():
            return multi_krum(spec, ordered)


def combined(rule: Combination, updates: Sequence[SiteUpdate]) -> Iterator[Array]:
    """The rule's result, block by block.

    Raises:
        BractError: `bad-arrays`, `not-finite`, `disk`.
    """
    return (rule.block(start, rows) for start, rows in blocks([update.arrays for update in by_site(updates)]))
