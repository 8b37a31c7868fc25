"""`bract-site audit-mechanism`: the bound stands beside the claim, is kept, and is found for the mechanisms it speaks of."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bract.errors import MALFORMED, NOT_INITIALISED, BractError
from bract.privacy.accounting import epsilon
from bract.privacy.spec import Mechanism
from bract_client.audits import AuditRecord, audit_bound, keep, kept
from bract_client.cli.main import app
from bract_client.home import SiteHome, create

AT = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = Path(__file__).parents[2] / "deploy" / "plans" / "adult.toml"


@pytest.fixture
def home(tmp_path: Path) -> SiteHome:
    return create(tmp_path / "clinic", name="clinic")


def audited(home: SiteHome, *words: str) -> Any:
    done = CliRunner().invoke(app, ["audit-mechanism", "--site", str(home.root), *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


def record(sigma: float, steps: int, bound: float, delta: float = 1e-5, hours: int = 0) -> AuditRecord:
    return AuditRecord(
        mechanism=Mechanism(sigma, 0.5, steps),
        clip=1.0,
        delta=delta,
        objective="masked-table",
        engine="bract",
        claimed=3.0,
        lower_bound=bound,
        confidence=0.95,
        canaries=100,
        guesses=50,
        right=40,
        estimate=2.0,
        estimate_normal=True,
        audited_at=AT + timedelta(hours=hours),
    )


@pytest.mark.privacy
def test_the_bound_of_this_machine_stands_beside_the_claim_and_is_kept(home: SiteHome) -> None:
    told = json.loads(audited(home, "--sigma", "2", "--steps", "4", "--delta", "1e-5", "--json"))
    claimed = epsilon([Mechanism(2.0, 1.0, 4)], 1e-5)
    assert told["claimed"] == pytest.approx(claimed)
    assert 0.4 < told["lower_bound"] <= claimed
    assert told["estimate_label"] == "estimate, not a bound"
    assert not told["refuted"]
    (one,) = kept(home)
    assert one.lower_bound == told["lower_bound"]
    assert audit_bound(home, Mechanism(2.0, 1.0, 4), delta=1e-5) == one
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (home.root / "audits").iterdir()]
    assert modes == [0o600]


@pytest.mark.privacy
def test_a_plan_is_audited_over_all_its_rounds(home: SiteHome) -> None:
    shown = audited(home, "--plan", str(PLAN), "--canaries", "200")
    assert "σ = 0.92, q = 0.045, 200 steps, masked-table" in shown
    assert "estimate, not a bound" in shown
    assert "no proof" in shown


def test_an_audit_speaks_of_mechanisms_that_reveal_at_least_as_much(home: SiteHome) -> None:
    assert audit_bound(home, Mechanism(1.0, 0.5, 10), delta=1e-6) is None
    weak, strong = record(1.0, 10, 0.5), record(1.0, 20, 1.0, hours=1)
    for one in (strong, weak):
        keep(home, one)
    assert kept(home) == [weak, strong]
    assert audit_bound(home, Mechanism(1.0, 0.5, 10), delta=1e-6) == weak
    assert audit_bound(home, Mechanism(1.0, 0.5, 20), delta=1e-5) == strong
    assert audit_bound(home, *[Mechanism(1.0, 0.5, 5)] * 4, delta=1e-5) == strong
    assert audit_bound(home, Mechanism(1.0, 0.5, 9), delta=1e-6) is None
    assert audit_bound(home, Mechanism(1.1, 0.5, 20), delta=1e-6) is None
    assert audit_bound(home, Mechanism(1.0, 0.4, 20), delta=1e-6) is None
    assert audit_bound(home, Mechanism(1.0, 0.5, 20), delta=1e-4) is None


def test_only_a_bound_above_the_claim_refutes_it() -> None:
    assert not record(1.0, 10, 3.0).refuted
    assert record(1.0, 10, 3.01).refuted


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--canaries", "1000000"], MALFORMED),
        (["--sigma", "0"], MALFORMED),
        (["--rate", "1.5"], MALFORMED),
        (["--confidence", "1"], MALFORMED),
        (["--plan", "gone.toml"], MALFORMED),
        (["--site", "nowhere"], NOT_INITIALISED),
    ],
)
def test_what_cannot_be_audited_is_refused_and_nothing_is_kept(home: SiteHome, words: list[str], code: str) -> None:
    with pytest.raises(BractError) as refused:
        audited(home, *words)
    assert refused.value.code == code
    assert kept(home) == []
