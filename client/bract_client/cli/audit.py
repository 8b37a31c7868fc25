"""`bract-site audit-mechanism`: what one run on this machine shows about an ε, beside the ε that is claimed."""

from pathlib import Path
from typing import Annotated

import typer

from bract import console
from bract.dpsgd.canary_estimate import LABEL
from bract.encoders.spec import EncoderSpec, TableSpec
from bract.errors import MALFORMED, BractError
from bract.objectives.spec import MaskedTableSpec, ObjectiveSpec
from bract.plan import CampaignPlan
from bract.privacy.spec import PrivacySpec
from bract.value import decode, plain, read_toml
from bract_client.audits import AuditRecord, audit_mechanism, campaign_privacy
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import SiteHome, open_home


def audit(
    plan: Annotated[Path | None, typer.Option(help="A campaign's plan (TOML): all its rounds are audited.")] = None,
    sigma: Annotated[float, typer.Option(help="Without a plan: the noise multiplier σ.")] = 1.0,
    rate: Annotated[float, typer.Option(help="Without a plan: the sampling rate q.")] = 1.0,
    steps: Annotated[int, typer.Option(help="Without a plan: private steps.")] = 1,
    clip: Annotated[float, typer.Option(help="Without a plan: the clip C.")] = 1.0,
    delta: Annotated[float, typer.Option(help="Without a plan: δ.")] = 1e-6,
    canaries: Annotated[int, typer.Option(min=16, help="More of them give a tighter bound.")] = 1000,
    confidence: Annotated[float, typer.Option(help="Of the bound.")] = 0.95,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Audit a mechanism on this machine, on invented subjects: a lower bound on ε. Status 1 if it refutes the claim."""
    home = open_home(site)
    if not 0 < confidence < 1:
        raise BractError(MALFORMED, "confidence: between 0 and 1")
    if plan is None:
        given = {"clip": clip, "noise_multiplier": sigma, "sampling_rate": rate, "steps": steps, "delta": delta}
        encoder, objective = TableSpec("table", "adult", dim=16), MaskedTableSpec("masked-table")
        found = _audited(home, encoder, objective, decode(PrivacySpec, given), canaries, confidence)
    else:
        read = _read(plan)
        privacy = campaign_privacy(read.privacy, read.rounds)
        found = _audited(home, read.encoder, read.objective, privacy, canaries, confidence)
    _show(found, as_json)
    raise typer.Exit(1 if found.refuted else 0)


def _audited(
    home: SiteHome,
    encoder: EncoderSpec,
    objective: ObjectiveSpec,
    privacy: PrivacySpec,
    canaries: int,
    confidence: float,
) -> AuditRecord:
    with console.err.status("auditing"):
        return audit_mechanism(home, encoder, objective, privacy, canaries=canaries, confidence=confidence, at=now())


def _read(path: Path) -> CampaignPlan:
    """A campaign plan from a TOML file, as the hub's operator writes it."""
    return decode(CampaignPlan, read_toml(path)).check()


def _show(found: AuditRecord, as_json: bool) -> None:
    if as_json:
        console.emit(plain(found) | {"refuted": found.refuted, "estimate_label": LABEL})
        return
    m = found.mechanism
    rows = [
        ("mechanism", f"σ = {m.noise_multiplier:g}, q = {m.sampling_rate:g}, {m.steps} steps, {found.objective}"),
        ("ε claimed (PLD)", f"{found.claimed:.3f} at δ = {found.delta:g}"),
        ("ε at least (one run)", f"{found.lower_bound:.3f} with {found.confidence:.0%} confidence"),
        ("from", f"{found.right} right of {found.guesses} guesses on {found.canaries} canaries"),
        (f"ε̂ ({LABEL})", f"{found.estimate:.3f}" if found.estimate_normal else "scores are not normal"),
        ("verdict", "REFUTED: do not use this build" if found.refuted else "not refuted, which is no proof"),
    ]
    console.out.print(console.table("audit of the mechanism on this machine", ("what", "found"), rows))
