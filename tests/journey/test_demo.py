"""The demo is the journey: one hub, three sites, every process real; what it prints as JSON is what must hold."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def of_this_tree(folder: Path) -> list[str]:
    """Command lines of processes that work in this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(folder) in words and process.pid != os.getpid():
            found.append(words)
    return found


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    words = [str(Path(sys.executable).with_name("bract")), "demo", "--out", str(folder / "out"), "--json", "demo.json"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((folder / "demo.json").read_text()), folder / "out", done.stdout


def test_consent_decides_who_is_admitted_and_refusals_are_counted_by_reason(told: Any) -> None:
    sites = told[0]["sites"]
    assert len(sites) == 3
    for site in sites:
        assert site["admitted"] > 10_000
        assert set(site["refused"]) >= {"denied", "withdrawn", "expired", "no-consent"}
        assert 0 < site["epsilon"] <= site["epsilon_cap"]


def test_rounds_are_committed_with_versions_and_say_who_is_missing(told: Any) -> None:
    committed = [r for r in told[0]["rounds"] if r["state"] == "committed"]
    assert len(committed) == 6
    for report in committed:
        assert report["version"].startswith("sha256:") and report["seconds"] > 0 and report["bytes"] > 0
        assert len(report["participants"]) + len(report["missing"]) == 3


def test_a_withdrawn_person_is_in_no_later_snapshot_and_the_affected_models_are_listed(told: Any) -> None:
    withdrawal = told[0]["withdrawal"]
    assert withdrawal["round_excluded"] > withdrawal["after_round"]
    assert {model["effect"] for model in withdrawal["affected_models"]} == {"bounded-by-dp"}
    assert withdrawal["after_round"] in {model["round"] for model in withdrawal["affected_models"]}


def test_a_killed_site_does_not_stop_the_round_and_comes_back(told: Any) -> None:
    fault = told[0]["fault"]
    assert fault["committed"] is True
    assert fault["rejoined_round"] > fault["round"]


def test_the_encoder_beats_random_initialisation_at_few_labels_beyond_the_spread(told: Any) -> None:
    probe = told[0]["probe"]
    assert probe["labels"][0] < probe["labels"][1]
    gain = probe["ssl"]["mean"][0] - probe["random"]["mean"][0]
    draws = 10
    assert gain > 2 * probe["gain"]["sd"][0] / draws**0.5, probe
    assert set(probe) >= {"random", "raw", "ssl", "supervised"}


def test_two_accountants_and_the_sites_own_ledger_agree(told: Any) -> None:
    privacy = told[0]["privacy"]
    assert (privacy["unit"], privacy["adjacency"], privacy["delta"]) == ("subject", "add-or-remove-one", 1e-6)
    for site in privacy["sites"]:
        assert abs(site["epsilon_pld"] - site["epsilon_prv"]) < 0.05
        assert site["epsilon_pld"] <= site["epsilon_rdp"]
        assert site["epsilon_ledger"] == site["epsilon_pld"]


def test_the_log_verifies(told: Any) -> None:
    assert told[0]["log"]["verified"] is True
    assert told[0]["log"]["entries"] > 50


def test_a_bundle_verifies_offline_and_one_changed_byte_in_it_is_found(told: Any, tmp_path: Path) -> None:
    audit = told[0]["audit"]
    assert audit["verified"] and audit["pinned"] and audit["size"] == told[0]["log"]["entries"]
    bundle = Path(audit["bundle"])
    words = [sys.executable, "-m", "bract.log.verify"]
    pin = ["--key", audit["fingerprint"]]
    done = subprocess.run([*words, str(bundle), *pin], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    data = bytearray(bundle.read_bytes())
    for place in range(7, len(data), len(data) // 12):
        data[place] ^= 1
        broken = tmp_path / "broken.zip"
        broken.write_bytes(data)
        data[place] ^= 1
        done = subprocess.run([*words, str(broken), *pin], capture_output=True, text=True, check=False)
        assert done.returncode == 1 and "log-inconsistent" in done.stderr, (place, done.stderr)


def test_the_sites_have_cosigned_the_hubs_log(told: Any) -> None:
    assert set(told[0]["audit"]["witnesses"]) >= {"north", "south"}


def test_no_process_is_left(told: Any) -> None:
    time.sleep(1)
    assert of_this_tree(told[1]) == []


def test_nothing_of_a_person_is_in_any_file_that_the_hub_has_or_in_any_log(told: Any) -> None:
    folder: Path = told[1]
    import pyarrow.parquet as pq

    persons = pq.read_table(folder / "data" / "north" / "records.parquet", columns=["subject_id"])[
        "subject_id"
    ].to_pylist()
    needles = [person.encode() for person in persons[:200]]
    files = [path for path in (folder / "hub").rglob("*") if path.is_file()]
    files += [path for site in (folder / "sites").iterdir() for path in (site / "logs").rglob("*")]
    files += [site / "registry.db" for site in (folder / "sites").iterdir()]
    assert len(files) > 20
    for path in files:
        data = path.read_bytes()
        assert not any(needle in data for needle in needles), path
    control = (folder / "data" / "north" / "consent.csv").read_bytes()
    assert b"P-" in control, "the needles are of the form that the site's own files have"
