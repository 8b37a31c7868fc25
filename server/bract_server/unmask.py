"""From masked updates and shares to their mean: what takes the masks off the sum, and off nothing smaller."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bract.arrays import Array, ArraysFile, Layout, count_of, read_layout, write_blocks
from bract.digest import Digest, digest, digest_file
from bract.errors import BAD_SHARE, BAD_SUM, BractError
from bract.plan import CampaignPlan, RoundPlan
from bract.secure.agreement import private_key, public_text
from bract.secure.masks import Masks, MaskStream, adds, own_stream, pair_stream
from bract.secure.ring import Words, norm, read_words, real, scale_of
from bract.secure.shares import combine
from bract.secure.spec import SecureSpec
from bract.secure.stages import Dealing, Revealed, Roster, Unmasking, share_bytes
from bract_server.aggregate.updates import SiteUpdate
from bract_server.arrays import ArrayStore

_SLACK = 1 + 1e-6


@dataclass(frozen=True)
class Opened:
    """What came of a secure round.

    Attributes:
        missing: why sites are not in it, by code.
        weights: of the sites that are in the mean.
        mean: the file of their mean, float32; None when it could not be opened.
    """

    missing: Mapping[str, str]
    weights: Mapping[str, float]
    mean: Path | None

    def holds(self, sites: Collection[str]) -> bool:
        """Whether it is the mean of exactly these sites' updates."""
        return self.mean is not None and set(sites) == set(self.weights)

    def updates(self, layout: Layout) -> list[SiteUpdate]:
        """The mean, as if one site had sent it."""
        assert self.mean is not None  # noqa: S101 - `holds` was asked
        return [SiteUpdate("", 1.0, digest_file(self.mean), ArraysFile(self.mean, layout))]

    def remove(self) -> None:
        """Delete the mean's file."""
        if self.mean is not None:
            self.mean.unlink(missing_ok=True)

    @property
    def shares(self) -> dict[str, float]:
        """Each site's share in the mean."""
        total = sum(self.weights.values())
        return {site: weight / total for site, weight in self.weights.items()}


def opening(
    roster: Roster,
    dealings: Mapping[str, Dealing],
    unmaskings: Mapping[str, Unmasking],
    survivors: Sequence[str],
    threshold: int,
) -> Masks:
    """What the sum of the survivors' words is still under, to be taken away from it.

    The streams of the survivors' own seeds; and of each site that dealt shares and is gone, the streams that it shares with
    every survivor. Streams of two survivors have cancelled.

    Raises:
        BractError: `bad-share` when shares give another secret than their dealer committed to.
    """
    seeds, keys = dict[str, dict[int, bytes]](), dict[str, dict[int, bytes]]()
    for site in sorted(unmaskings)[:threshold]:
        _gather(seeds, unmaskings[site].seeds, roster.holder(site))
        _gather(keys, unmaskings[site].keys, roster.holder(site))
    minus = [own_stream(_seed(dealings[name], seeds[name]), roster.digest, name) for name in survivors]
    plus: list[MaskStream] = []
    for name, shares in keys.items():
        key = private_key(combine(shares))
        if public_text(key) != roster.adverts[name].mask_key:
            raise BractError(BAD_SHARE, f"{name} dealt shares of another key")
        for peer in survivors:
            stream = pair_stream(key, roster.adverts[peer].mask_key, roster.digest, (name, peer))
            (minus if adds(peer, name) else plus).append(stream)
    return Masks(tuple(plus), tuple(minus))


@dataclass(frozen=True)
class Mean:
    """The weighted mean of a round's masked updates.

    Attributes:
        updates: their digests by site.
    """

    campaign: CampaignPlan
    spec: SecureSpec
    updates: Mapping[str, Digest]
    store: ArrayStore

    @property
    def sites(self) -> tuple[str, ...]:
        """Whose they are, sorted."""
        return tuple(sorted(self.updates))

    @property
    def weights(self) -> dict[str, float]:
        """The declared weights."""
        return {site: self.campaign.site(site).weight for site in self.sites}

    def write(self, masks: Masks, plan: RoundPlan) -> Path:
        """The mean's file, float32, in the store's scratch; the caller removes it.

        Raises:
            BractError: `bad-sum` when its norm is more than clipped updates can have; `bad-arrays`; `disk`.
        """
        layout = read_layout(self.store.path(plan.arrays))
        count, largest = count_of(layout), max(site.weight for site in self.campaign.sites)
        at, factor = scale_of(self.spec, len(self.campaign.sites)), largest / sum(self.weights.values())
        squares: list[float] = []

        def blocks() -> Iterator[Array]:
            for total in self._totals(count):
                mean = real(masks.apply(total), factor, at).astype("<f4")
                squares.append(norm([mean]) ** 2)
                yield mean

        path = self.store.scratch / f"{plan.campaign.removeprefix('sha256:')}-{plan.number}.mean"
        write_blocks(path, layout, blocks())
        if math.sqrt(math.fsum(squares)) > self.spec.clip * _SLACK + at.step * factor * self._beside(count):
            path.unlink()
            raise BractError(BAD_SUM)
        return path

    def _beside(self, count: int) -> float:
        """The L2 norm, in levels, that rounding and noise can add to the sum.

        A Gaussian vector of d numbers is longer than √d + 20 deviations less than once in 10^80.
        """
        sites, noise = len(self.updates), self.spec.noise
        variance = 0 if noise is None else 2 * noise.rate(self.spec.honest) * sites
        return sites / 2 * math.sqrt(count) + math.sqrt(variance) * (math.sqrt(count) + 20)

    def _totals(self, count: int) -> Iterator[Words]:
        """The sums modulo 2^32, block by block."""
        files = [read_words(self.store.path(self.updates[site]), count) for site in self.sites]
        for first, *rest in zip(*files, strict=True):
            total = first.copy()
            for part in rest:
                total += part
            yield total


def _gather(into: dict[str, dict[int, bytes]], shares: Sequence[Revealed], holder: int) -> None:
    for one in shares:
        into.setdefault(one.peer, {})[holder] = share_bytes(one)


def _seed(dealing: Dealing, shares: Mapping[int, bytes]) -> bytes:
    seed = combine(shares)
    if digest(seed) != dealing.seed:
        raise BractError(BAD_SHARE, f"{dealing.site} dealt shares of another seed")
    return seed
