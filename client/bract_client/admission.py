"""The consent gate: the only way from records at rest to records that train.

Rules of `admit`; the first that does not hold refuses:
    1. The round is of this campaign and has one place for this site.
    2. The place names a clearance that this site itself gave for this round, data set and purpose, under today's rule.
    3. The clearance is live, and the data set's terms, if there are any, leave the purpose.
    4. Consent and retention are resolved again now; whoever is out since the snapshot stays out, and nobody comes in.
    5. A record is used only if its payload is the one that was recorded.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bract.consent import RULE_DIGEST
from bract.encoders.spec import EncoderSpec, TableSpec
from bract.errors import MALFORMED, NO_ADMITTED, NO_CLEARANCE, NO_ENCODER, STALE_CLEARANCE, BractError
from bract.plan import CampaignPlan, Place, RoundPlan
from bract.update import Clearance
from bract.value import digest_value
from bract_client.registry.snapshots import Member
from bract_client.registry.store import SiteRegistry
from bract_client.sources.location import AnyLocation, FilesLocation, TableLocation, open_source


class _Gate:
    """Only this module has one, so only `admit` can make an `AdmittedDataset`."""


_GATE = _Gate()


@final
class AdmittedDataset:
    """The admitted subjects of one site and their records; the only data that training accepts.

    Attributes:
        dropped: records left out because their payload is gone or not the one that was recorded; stays at the site.
    """

    def __init__(
        self, gate: _Gate, values: NDArray[np.float32], counts: Sequence[int], *, most: int, dropped: int
    ) -> None:
        """Use `admit`. `values` are the records (r, …) of one subject after the other, `counts` how many each has."""
        if gate is not _GATE:
            raise TypeError("only admit() makes an AdmittedDataset")
        self._values = torch.from_numpy(values)
        self._counts = torch.tensor(counts, dtype=torch.int64)
        self._starts = torch.cumsum(self._counts, 0) - self._counts
        self._most = most
        self.dropped = dropped

    def __len__(self) -> int:
        """How many subjects there are; stays at the site."""
        return len(self._counts)

    def records(self, indices: NDArray[np.int64] | Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Records of these subjects, at most m of each, drawn afresh without replacement.

        Args:
            indices: positions of n subjects.
            generator: which records of a subject with more than m.

        Returns:
            float32 (n, m, …), zeros where there is none, and bool (n, m): which are there.
        """
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        counts, starts = self._counts[chosen], self._starts[chosen]
        places = torch.arange(self._most).expand(len(chosen), self._most).clone()
        many = torch.nonzero(counts > self._most).flatten()
        if len(many):
            keys = torch.rand((len(many), int(counts[many].max())), generator=generator)
            keys[torch.arange(keys.shape[1]) >= counts[many, None]] = 2.0
            places[many] = keys.topk(self._most, dim=1, largest=False).indices
        mask = torch.arange(self._most) < counts[:, None]
        x = self._values[torch.where(mask, starts[:, None] + places, 0)]
        x[~mask] = 0.0
        return x, mask


def admit(
    registry: SiteRegistry, plan: CampaignPlan, round_plan: RoundPlan, at: datetime, min_subjects: int = 1
) -> AdmittedDataset:
    """The records that may be used for this round at this moment.

    Raises:
        BractError: `no-clearance`, `stale-clearance`, `off-purpose` (see the module's rules); `too-few-subjects` below the
            policy's floor; `malformed` when the encoder does not take the data set's records; `no-encoder` when none does;
            `bad-record` when the source cannot be read at all.
    """
    place = _place(registry.site, plan, round_plan)
    clearance = registry.cleared(place.clearance, round_plan.campaign, round_plan.number)
    _live(clearance, plan, at)
    registry.check_terms(plan.dataset, plan.purpose, at)
    location = registry.dataset(plan.dataset).location
    _fits(location, plan.encoder)
    members = registry.usable(clearance.snapshot, at)
    payloads = open_source(location).load([member.record_id for member in members])
    sound = [
        number
        for number, (member, digest) in enumerate(zip(members, payloads.digests, strict=True))
        if digest is not None and registry.unchanged(plan.dataset, member, digest)
    ]
    counts = _counts([members[number] for number in sound])
    if len(counts) < max(1, min_subjects):
        raise BractError(NO_ADMITTED, f"the floor is {min_subjects}")
    most, dropped = plan.privacy.records_per_subject, len(members) - len(sound)
    return AdmittedDataset(_GATE, payloads.values[sound], counts, most=most, dropped=dropped)


def _place(site: str, plan: CampaignPlan, round_plan: RoundPlan) -> Place:
    if round_plan.campaign != digest_value(plan):
        raise BractError(NO_CLEARANCE, "the round is of another campaign")
    mine = [place for place in round_plan.cohort if place.site == site]
    if len(mine) != 1:
        raise BractError(NO_CLEARANCE, "the round has no place for this site")
    return mine[0]


def _live(clearance: Clearance, plan: CampaignPlan, at: datetime) -> None:
    if (clearance.dataset, clearance.purpose) != (plan.dataset, plan.purpose):
        raise BractError(NO_CLEARANCE, "the clearance is for another data set or purpose")
    if clearance.rule != RULE_DIGEST:
        raise BractError(STALE_CLEARANCE, "the clearance was given under another rule")
    if not clearance.issued_at <= at < clearance.expires_at:
        raise BractError(STALE_CLEARANCE, "the clearance is not live")


def _fits(location: AnyLocation, encoder: EncoderSpec) -> None:
    if isinstance(location, FilesLocation):
        raise BractError(NO_ENCODER, "files of any kind are registered, but nothing reads them for training")
    if isinstance(location, TableLocation):
        fits = isinstance(encoder, TableSpec) and encoder.schema == location.schema
    else:
        shape = (location.channels, location.height, location.width)
        fits = not isinstance(encoder, TableSpec) and shape == (
            encoder.channels,
            encoder.image_size,
            encoder.image_size,
        )
    if not fits:
        raise BractError(MALFORMED, "the campaign's encoder does not take this data set's records")


def _counts(members: Sequence[Member]) -> list[int]:
    """How many records each subject has; members are in the order of their subjects."""
    counts: dict[int, int] = {}
    for member in members:
        counts[member.subject_no] = counts.get(member.subject_no, 0) + 1
    return list(counts.values())
