"""What a campaign's encoder must be, computed again from its first version, its seed, and who was in each round."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from bract.arrays import ArraysFile, read_layout
from bract.digest import Digest, digest_file
from bract.dpsgd.clipper import engine
from bract.plan import RoundPlan
from bract.signing import unseal
from bract_client.admission import admit
from bract_client.pretrain import pretrain
from bract_server.aggregate.updates import SiteUpdate
from bract_server.arrays import ArrayStore
from bract_server.checkpoint import write_version
from bract_server.hub import open_store
from bract_server.registry.views import Campaign
from tests.faults.processes import World


class Replay:
    """Remembers what a site makes of a start: in a seeded test that is all that its update depends on."""

    def __init__(self, world: World, folder: Path) -> None:
        self._world = world
        self._store = ArrayStore(folder, max_bytes=1 << 30, quota_bytes=1 << 34)
        self._made: dict[tuple[Digest, str], Path] = {}

    def final(self, campaign: Campaign) -> Digest:
        """The digest of the arrays that the campaign's committed rounds must have ended in."""
        registry, shelf = self._world.registry, open_store(self._world.hub)
        versions = [one for one in registry.versions() if one.value.campaign == campaign.digest]
        first = min(versions, key=lambda one: one.value.number).value.arrays
        arrays, state = self._store.adopt(_copy(shelf.path(first), self._store.scratch)), None
        for report in registry.rounds(campaign.digest):
            sealed = registry.round_plan(campaign.digest, report.number) if report.state == "committed" else None
            if sealed is None:
                continue
            plan = unseal(RoundPlan, sealed, registry.verify_key)
            made = [(name, self._update(campaign, plan, arrays, name)) for name in report.participants]
            arrays, state = self._step(campaign, arrays, state, made)
        return arrays

    def _update(self, campaign: Campaign, plan: RoundPlan, arrays: Digest, name: str) -> Path:
        key = (arrays, name)
        if key not in self._made:
            site, update = self._world.opened[name], self._store.scratch / f"{name}-{len(self._made)}"
            dataset = admit(site.registry, campaign.plan, plan, plan.opened_at)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                clipper = engine(tune=False)
                pretrain(campaign.plan, self._store.path(arrays), dataset, update, site=name, clipper=clipper)
            finally:
                torch.set_num_threads(threads)
            self._made[key] = update
        return self._made[key]

    def _step(
        self, campaign: Campaign, arrays: Digest, state: Digest | None, made: Sequence[tuple[str, Path]]
    ) -> tuple[Digest, Digest | None]:
        layout, chosen = read_layout(self._store.path(arrays)), campaign.plan
        updates = [
            SiteUpdate(name, chosen.site(name).weight, digest_file(path), ArraysFile(path, layout))
            for name, path in made
        ]
        written = write_version(self._store, arrays, state, chosen.server, chosen.aggregation, updates)
        return written.arrays, written.server_state


def _copy(path: Path, folder: Path) -> Path:
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(path.read_bytes())
    return Path(file.name)
