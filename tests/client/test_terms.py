"""What a data set's notice forbids is neither cleared nor trained, whoever consented; the hub hears it before anything else."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from bract.digest import digest
from bract.errors import MALFORMED, OFF_PURPOSE, UNKNOWN_DATASET, UNREACHABLE, BractError
from bract.log import archive, verify
from bract.model import DatasetTerms
from bract.plan import Place, Proposal
from bract.signing import Envelope, sign, unseal
from bract.value import digest_value
from bract.vocabulary.modifiers import TIME_LIMIT, Modifier
from bract.vocabulary.purposes import Purpose
from bract_client.admission import admit
from bract_client.cli.main import app
from bract_client.executor import send_terms
from bract_client.hub import connect
from bract_client.policy import SitePolicy
from bract_client.site import Site
from tests.client.site_world import (
    HOUR,
    SIGNING,
    T0,
    add_table,
    campaign,
    open_registry,
    persons,
    round_of,
    write_table,
)
from tests.loopback import loopback, now

HUB = Ed25519PrivateKey.generate()
PLAN = campaign(deadline_s=12 * 3600.0)
NOTICE = digest(b"notice")
NO_METHODS, SWISS = Modifier("DUO:0000015"), Modifier("DUO:0000022", ("CH",))
UNTIL = Modifier(TIME_LIMIT, ((T0 + 2 * HOUR).isoformat(),))


@pytest.fixture
def site(database_url: str, tmp_path: Path) -> Iterator[Site]:
    engine, registry = open_registry(database_url)
    add_table(registry, write_table(tmp_path / "t.parquet", persons(4)))
    registry.ingest("adult", T0)
    yield Site("ward", HUB.public_key(), SitePolicy(min_subjects=1, min_cohort=1), registry)
    registry.check()
    engine.dispose()


def propose(site: Site, number: int) -> None:
    at = T0 + number * HOUR
    site.answer(sign(Proposal(digest_value(PLAN), number, at), HUB), sign(PLAN, HUB), at)


def declared(site: Site, *modifiers: Modifier, hours: int = 0) -> Envelope:
    return site.registry.declare("adult", [Purpose.FINETUNING], modifiers, NOTICE, T0 + hours * HOUR)


def refusal(call: object) -> str:
    assert callable(call)
    with pytest.raises(BractError) as refused:
        call()
    return refused.value.code


def test_the_newest_terms_decide_and_without_any_the_consents_do(site: Site) -> None:
    propose(site, 1)
    declared(site, SWISS)
    propose(site, 2)
    declared(site, NO_METHODS, hours=2)
    assert refusal(lambda: propose(site, 3)) == OFF_PURPOSE
    declared(site, SWISS, UNTIL, hours=3)
    assert refusal(lambda: propose(site, 3)) == OFF_PURPOSE, "their time is over"
    declared(site, hours=4)
    propose(site, 5)
    assert refusal(lambda: site.registry.declare("other", [], [], NOTICE, T0)) == UNKNOWN_DATASET


def test_what_was_cleared_before_is_not_trained_under_terms_that_forbid_it(site: Site) -> None:
    registry, name = site.registry, digest_value(PLAN)
    snapshot = registry.freeze("adult", PLAN.purpose, T0)
    clearance = registry.clearance(PLAN, 1, snapshot, 24 * HOUR, 1, T0).name
    reservation = registry.reserve(name, 1, "adult", PLAN.privacy.mechanism, T0, 24 * HOUR).name
    plan = replace(round_of(PLAN, 1, clearance, T0), cohort=(Place("ward", clearance, reservation),))
    payload: dict[str, bytes | str] = {"plan": sign(plan, HUB).to_json(), "campaign": sign(PLAN, HUB).to_json()}
    site.task(payload, (), T0)
    assert len(admit(registry, PLAN, plan, T0)) == 4
    declared(site, NO_METHODS)
    assert refusal(lambda: site.task(payload, (), T0)) == OFF_PURPOSE
    assert refusal(lambda: admit(registry, PLAN, plan, T0)) == OFF_PURPOSE


def test_what_was_declared_stays_and_is_in_the_sites_bundle(site: Site, tmp_path: Path) -> None:
    first, second = declared(site, NO_METHODS), declared(site)
    declared(site)
    assert [one.name for one in site.registry.untold_terms()] == [first.name, second.name]
    site.registry.mark_told(first.name, T0)
    assert [one.name for one in site.registry.untold_terms()] == [second.name]
    for change in ("DELETE FROM dataset_terms", "UPDATE dataset_terms SET dataset = 'x'"):
        with pytest.raises(DBAPIError, match="keeps its rows"), site.registry._engine.begin() as connection:
            connection.execute(text(change))
    site.registry.checkpoint(T0)
    archive.write(tmp_path / "site.zip", site.registry.bundle(HUB.public_key()))
    done = verify.verify(tmp_path / "site.zip")
    assert (done.signed, done.verified) == (2, True)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_hub_hears_of_terms_once_and_again_while_it_is_away(site: Site, tmp_path: Path) -> None:
    said = declared(site, NO_METHODS)
    assert unseal(DatasetTerms, said, SIGNING.public_key()).modifiers == (NO_METHODS,)
    with loopback(tmp_path / "hub", "ward") as running, connect(running.sites["ward"], now(), patience_s=1.0) as client:
        send_terms(site, client)
        send_terms(site, client)
        assert running.book.taken == [("declare", "ward", said)]
        client.close()
        declared(site)

    class Away:
        def declare(self, terms: Envelope) -> None:
            raise BractError(UNREACHABLE)

    assert refusal(lambda: send_terms(site, Away())) == UNREACHABLE  # type: ignore[arg-type]  # all that is asked of it
    assert len(site.registry.untold_terms()) == 1


def test_the_steward_declares_by_a_verb(tmp_path: Path) -> None:
    home, notice = str(tmp_path / "north"), tmp_path / "notice.txt"
    notice.write_text("We may also fine-tune.")
    table = write_table(tmp_path / "t.parquet", persons(2))

    def run(*arguments: str) -> list[dict[str, object]]:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        if done.exception is not None:
            raise done.exception
        told: list[dict[str, object]] = json.loads(done.stdout)
        return told

    run("init", home, "--name", "north")
    run("data", "add", "adult", "--table", str(table), "--site", home)
    given = ("data", "terms", "adult", "--document", str(notice), "--site", home)
    run(*given, "--declare", "supervised-finetuning", "--modifier", "DUO:0000022=DE,CH")
    (told,) = run("data", "list", "--site", home)
    assert (told["declares"], told["modifiers"]) == (["supervised-finetuning"], ["DUO:0000022=CH,DE"])
    assert refusal(lambda: run(*given, "--modifier", "DUO:9999999")) == MALFORMED
    assert refusal(lambda: run(*given[:3], "--document", "none", "--site", home)) == MALFORMED
