"""Real processes under attack: a bundle with code, a site that was shut out, a stop in the middle, a second hub in a folder."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from bract.errors import FOREIGN_CODE, OPERATOR_TOKEN, QUORUM, BractError
from bract.flower import Operator
from bract_server.campaigns import operator
from bract_server.demo.stage import free_ports
from bract_server.home import open_home
from bract_server.hub import open_registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

BIN = Path(sys.executable).parent


def command(program: str, *words: object) -> Any:
    done = subprocess.run(
        [BIN / program, *map(str, words), "--json"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(program: str, *words: object) -> dict[str, str]:
    done = subprocess.run([BIN / program, *map(str, words), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    told: dict[str, str] = json.loads(done.stderr.strip().splitlines()[-1])["error"]
    assert told["cause"] and told["remedy"]
    return told


def eventually(holds: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.2)


@dataclass
class World:
    folder: Path
    running: dict[str, subprocess.Popen[bytes]]

    @property
    def hub(self) -> Path:
        return self.folder / "hub"

    def start(self, program: str, verb: str, home: Path) -> None:
        with (self.folder / f"{home.name}.out").open("wb") as log:
            self.running[home.name] = subprocess.Popen([BIN / program, verb, str(home)], stdout=log, stderr=log)

    def plan(self, name: str, rounds: int = 1, steps: int = 2, deadline_s: float = 90.0, sigma: float = 2.0) -> None:
        text = Path("deploy/plans/digits.toml").read_text(encoding="utf-8")
        text = text.replace('"digits-trial"', f'"{name}"').replace("rounds = 3", f"rounds = {rounds}")
        text = text.replace("steps = 10", f"steps = {steps}").replace(
            "deadline_s = 300.0", f"deadline_s = {deadline_s}"
        )
        text = text.replace("noise_multiplier = 2.0", f"noise_multiplier = {sigma}")
        (self.folder / f"{name}.toml").write_text(text, encoding="utf-8")
        command("bract", "campaign", "create", self.folder / f"{name}.toml", "--hub", self.hub)

    def children(self, name: str) -> list[psutil.Process]:
        return psutil.Process(self.running[name].pid).children(recursive=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("journey"), {})
    fleet, wire, *runtime = free_ports(4)
    told = command("bract", "init", made.hub, "--fleet-port", fleet, "--wire-port", wire)
    made.start("bract", "hub", made.hub)
    command("bract", "sample", "digits", made.folder / "data", "--site", "north", "--site", "south")
    for name, port in zip(("north", "south"), runtime, strict=True):
        home = made.folder / name
        command("bract-site", "init", home, "--name", name, "--subjects-floor", 250, "--runtime-port", port)
        command("bract", "enrol", "approve", home / f"{name}.request", "--hub", made.hub)
        command("bract-site", "enrol", home / f"{name}.bundle", "--fingerprint", told["fingerprint"], "--site", home)
        data = made.folder / "data" / name
        images = ("--images", data, "--shape", "1x8x8", "--decisions", data / "consent.csv")
        command("bract-site", "data", "add", "digits", *images, "--site", home)
        made.start("bract-site", "run", home)
    try:
        yield made
    finally:
        everything = [
            child for name in made.running for child in made.children(name) if made.running[name].poll() is None
        ]
        for process in made.running.values():
            process.send_signal(signal.SIGINT)
        for process in made.running.values():
            process.wait(30)
        _, alive = psutil.wait_procs(everything, 10)
        assert [process.cmdline() for process in alive] == [], "nothing is left behind"


def test_images_are_pretrained_over_real_processes(world: World) -> None:
    world.plan("images", rounds=2)
    told = command("bract", "campaign", "run", "images", "--hub", world.hub)
    assert told["state"] == "completed"
    assert [r["participants"] for r in told["rounds"] if r["state"] == "committed"] == [["north", "south"]] * 2
    out = world.folder / "encoder.safetensors"
    command("bract", "encoder", "export", "images", out, "--hub", world.hub)
    assert out.stat().st_size > 1000
    assert command("bract-site", "ledger", "--site", world.folder / "north")[0]["rounds"] == 2
    eventually(lambda: len(command("bract-site", "receipts", "--site", world.folder / "north")) == 2, 60)
    healthy = command("bract-site", "doctor", "--site", world.folder / "north")
    assert [check for check in healthy if not check["ok"]] == []
    assert [check for check in command("bract", "doctor", "--hub", world.hub) if not check["ok"]] == []


def test_a_bundle_that_ships_its_own_client_is_refused_by_every_site_and_runs_nowhere(world: World) -> None:
    marker, registry = world.folder / "evil-ran", open_registry(open_home(world.hub))
    for name in ("evil", "evil-2", "evil-3"):
        world.plan(name, deadline_s=30.0)
        slip_in(world, name, evil_bundle(marker))
        eventually(lambda name=name: registry.campaign(name).state in ("failed", "completed"), 240)  # type: ignore[misc]
        assert not marker.exists()
        if registry.campaign(name).state == "failed":
            break  # else the hub noticed a run that nobody had asked for, and served the campaign by its own
    campaign = registry.campaign(name)
    assert campaign.state == "failed", campaign
    for report in registry.rounds(campaign.digest):
        # once one has refused, the quorum is out of reach and the other is not waited for
        codes = set(report.missing.values())
        assert FOREIGN_CODE in codes and codes <= {FOREIGN_CODE, QUORUM}
    assert [v for v in registry.versions() if v.value.campaign == campaign.digest and v.value.number] == []


def slip_in(world: World, name: str, bundle: bytes) -> None:
    """Start a campaign's run with a bundle of one's own, before the launcher starts one with ours."""
    home, registry = open_home(world.hub), open_registry(open_home(world.hub))
    with operator(home) as door:
        door.start({"campaign": name, "epoch": "1"}, bundle)
        registry.set_state(name, "running", "", datetime.now(UTC))
        registry.open_run(name, None, failed=False, at=datetime.now(UTC))


def evil_bundle(marker: Path) -> bytes:
    """A well-formed bundle whose `bract_client` and `bract_server` would leave a mark."""
    from flwr.cli.build import build_fab_from_files

    from bract import flower

    with zipfile.ZipFile(io.BytesIO(flower.bundle())) as archive:
        project = archive.read("pyproject.toml")
    code = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\napp = None\n".encode()
    names = ("bract_client/__init__.py", "bract_client/app.py", "bract_server/__init__.py", "bract_server/app.py")
    content, _ = build_fab_from_files({"pyproject.toml": project} | dict.fromkeys(names, code))
    assert set(flower.bundle_files(bytes(content))) > {"bract_client/app.py"}, "the control: the code is really in it"
    return bytes(content)


def test_a_wrong_operator_token_is_refused(world: World) -> None:
    home = open_home(world.hub)
    with Operator(home.settings().fleet, home.authority_file.read_bytes(), "not-the-token") as door:
        for call in (door.nodes, door.runs, lambda: door.start({"campaign": "images"})):
            with pytest.raises(BractError) as caught:
                call()
            assert caught.value.code == OPERATOR_TOKEN


def test_a_round_over_the_budget_is_refused_by_the_sites_own_ledgers_before_anything_is_read(world: World) -> None:
    world.plan("greedy", steps=100_000, deadline_s=30.0)
    told = subprocess.run(
        [BIN / "bract", "campaign", "run", "greedy", "--hub", str(world.hub), "--json"],
        capture_output=True,
        check=False,
    )
    assert told.returncode == 1
    rounds = json.loads(told.stdout)["rounds"]
    assert {code for report in rounds for code in report["missing"].values()} == {"budget-exhausted"}


def works(process: psutil.Process) -> bool:
    """Whether it computes; raises when it is gone."""
    before = sum(process.cpu_times()[:2])
    time.sleep(2.0)
    return bool(sum(process.cpu_times()[:2]) > before + 0.2)


def test_stopping_a_campaign_ends_the_training_at_the_sites_within_seconds(world: World) -> None:
    world.plan("long", steps=50_000, deadline_s=600.0, sigma=100.0)
    command("bract", "campaign", "run", "long", "--no-watch", "--hub", world.hub)
    busy = [
        trainer
        for name in ("north", "south")
        for trainer in world.children(name)
        if "bract_client.trainer" in trainer.cmdline()
    ]
    assert len(busy) == 2
    before = {trainer.pid: sum(trainer.cpu_times()[:2]) for trainer in busy}
    eventually(lambda: all(sum(trainer.cpu_times()[:2]) > before[trainer.pid] + 2 for trainer in busy), 180)
    subprocess.run([BIN / "bract", "campaign", "stop", "long", "--hub", str(world.hub)], check=True)
    eventually(lambda: not any(works(trainer) for trainer in busy), 20)
    assert all(trainer.is_running() for trainer in busy), "the next round need not wait until torch is loaded again"
    spent = command("bract-site", "ledger", "--site", world.folder / "north")[0]
    assert spent["rounds"] >= 3, "what was reserved stays spent"


def test_a_site_that_was_shut_out_is_not_let_in_again(world: World) -> None:
    world.plan("without-south", deadline_s=20.0)
    subprocess.run([BIN / "bract", "enrol", "revoke", "south", "--hub", str(world.hub)], check=True)
    told = subprocess.run(
        [BIN / "bract", "campaign", "run", "without-south", "--hub", str(world.hub), "--json"],
        capture_output=True,
        check=False,
    )
    assert told.returncode == 1
    registry = open_registry(open_home(world.hub))
    assert registry.campaign("without-south").state == "failed"
    wrong = subprocess.run(
        [BIN / "bract-site", "doctor", "--site", str(world.folder / "south"), "--json"],
        capture_output=True,
        check=False,
    )
    assert wrong.returncode == 1
    assert any("unknown-site" in check["detail"] for check in json.loads(wrong.stdout) if not check["ok"])


def test_a_site_that_another_hub_approved_is_nobody_here(world: World) -> None:
    settings = open_home(world.hub).settings()
    other, home = world.folder / "other-hub", world.folder / "stranger"
    told = command("bract", "init", other, "--fleet-port", settings.fleet_port, "--wire-port", settings.wire_port)
    command("bract-site", "init", home, "--name", "north", "--runtime-port", free_ports(1)[0])
    command("bract", "enrol", "approve", home / "north.request", "--hub", other)
    command("bract-site", "enrol", home / "north.bundle", "--fingerprint", told["fingerprint"], "--site", home)
    wrong = subprocess.run(
        [BIN / "bract-site", "doctor", "--site", str(home), "--json"], capture_output=True, check=False
    )
    assert wrong.returncode == 1
    found = {check["name"] for check in json.loads(wrong.stdout) if not check["ok"]}
    assert "clock" in found, "the hub's clock is asked over mutual TLS, which a stranger does not get"


def test_two_hubs_in_one_folder_are_refused(world: World) -> None:
    second = subprocess.run([BIN / "bract", "hub", str(world.hub)], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "concurrent" in second.stderr


def test_mistakes_get_a_code_a_cause_and_a_remedy_and_change_nothing(world: World, tmp_path: Path) -> None:
    typo = tmp_path / "typo.toml"
    typo.write_text(Path("deploy/plans/digits.toml").read_text().replace("quorum", "quorm"), encoding="utf-8")
    assert "quorm" in refused("bract", "campaign", "create", typo, "--hub", world.hub)["detail"]
    unknown = tmp_path / "unknown.toml"
    unknown.write_text(
        Path("deploy/plans/digits.toml").read_text().replace("masked-image", "in-batch-infonce"), encoding="utf-8"
    )
    told = refused("bract", "campaign", "create", unknown, "--hub", world.hub)
    assert (told["code"], told["detail"]) == ("unknown-objective", "objective: in-batch-infonce")
    assert refused("bract", "campaign", "run", "nothing", "--hub", world.hub)["code"] == "unknown-campaign"
    assert refused("bract", "doctor", "--hub", tmp_path)["code"] == "not-initialised"
    assert refused("bract", "init", world.hub)["code"] == "already-exists"
    bundle = world.folder / "north" / "north.bundle"
    wrong = ("--fingerprint", "00" * 32, "--site", world.folder / "north")
    assert refused("bract-site", "enrol", bundle, *wrong)["code"] == "fingerprint"
    key = world.folder / "north" / "keys" / "signing.pem"
    key.chmod(0o644)
    try:
        assert refused("bract-site", "ledger", "--site", world.folder / "north")["code"] == "key-permissions"
    finally:
        key.chmod(0o600)
    assert os.access(key, os.R_OK)
