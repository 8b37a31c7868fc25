"""Who may sign what: registered persons in their offices, one word each, never the author's own."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from bract.digest import Digest
from bract.errors import ALREADY_EXISTS, MALFORMED, SAME_PERSON, STATE, UNTRUSTED, BractError
from bract.release import Approval, Criterion, Person, PersonRole
from bract.signing import key_text, sign
from bract_server.registry.models import ApprovalRow
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, World, named

one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Of a rule that no database sees; what it reads and writes runs on both in the other tests."""


@pytest.fixture
def studio(world: World) -> Studio:
    return Studio(world)


@pytest.fixture
def release(studio: Studio, campaign: Digest) -> Digest:
    return studio.propose(studio.world.whole_round(campaign, "alder", "birch"))


def test_an_author_does_not_approve_their_own(studio: Studio, release: Digest) -> None:
    with pytest.raises(BractError) as refusal:
        studio.approve("ada", release)
    assert refusal.value.code == SAME_PERSON
    ada = studio.world.registry.persons()[0].fingerprint
    dora = next(p.fingerprint for p in studio.world.registry.persons() if p.name == "dora")
    row = {
        "release": release,
        "decision": "approve",
        "digest": named("x"),
        "envelope": b"",
        "received_at": AT,
    }
    # Nor can the row be written past the verbs: with the true author, or with a false one.
    for author in (ada, dora):
        with Session(studio.world.engine) as session, pytest.raises(IntegrityError):
            session.execute(insert(ApprovalRow), [{**row, "person": ada, "author": author}])


def test_each_person_has_one_word(studio: Studio, release: Digest) -> None:
    word = studio.word("dora", release)
    studio.world.registry.approve(word, AT)
    studio.world.registry.approve(word, AT)
    with pytest.raises(BractError) as refusal:
        studio.approve("dora", release, "reject")
    assert refusal.value.code == STATE
    (told,) = studio.world.registry.approvals()
    assert (told.by, told.roles, told.author, told.decision) == ("dora", (PersonRole.DPO,), "ada", "approve")
    assert (told.release, told.release_name, told.reason) == (release, "spring", "read card and report")


@one_database
def test_only_registered_persons_sign(studio: Studio, release: Digest) -> None:
    studio.keys["eve"] = Ed25519PrivateKey.generate()
    with pytest.raises(BractError) as refusal:
        studio.approve("eve", release)
    assert refusal.value.code == UNTRUSTED
    with pytest.raises(BractError) as refusal:
        studio.approve("dora", named("no release"))
    assert refusal.value.code == MALFORMED
    forged = sign(Approval(release, "approve", "x", studio.by("dora"), AT), studio.keys["eve"])
    stolen = type(forged)(forged.payload_type, forged.payload, studio.word("dora", release).keyid, forged.signature)
    with pytest.raises(BractError) as refusal:
        studio.world.registry.approve(stolen, AT)
    assert refusal.value.code == UNTRUSTED
    # A word in somebody else's name under one's own key.
    with pytest.raises(BractError) as refusal:
        studio.world.registry.approve(studio.sign("otto", Approval(release, "approve", "x", studio.by("dora"), AT)), AT)
    assert refusal.value.code == UNTRUSTED


@one_database
def test_who_left_signs_nothing_more_and_what_they_signed_stands(studio: Studio, release: Digest) -> None:
    registry = studio.world.registry
    studio.approve("dora", release)
    registry.end_person("dora", AT + timedelta(days=1))
    assert len(registry.approvals()) == 1
    with pytest.raises(BractError) as refusal:
        registry.override(studio.override("dora", release, Criterion.PURPOSE), AT)
    assert refusal.value.code == UNTRUSTED
    with pytest.raises(BractError) as refusal:
        registry.end_person("dora", AT)
    assert refusal.value.code == STATE
    ended = {person.name: person.ended_at for person in registry.persons()}
    assert ended["dora"] == AT + timedelta(days=1) and ended["ada"] is None


@one_database
def test_names_and_keys_are_never_used_again(studio: Studio) -> None:
    registry = studio.world.registry
    registry.end_person("dora", AT)
    fresh, old = Ed25519PrivateKey.generate(), studio.keys["dora"]
    for name, key in (("dora", fresh), ("doris", old)):
        with pytest.raises(BractError) as refusal:
            registry.add_person(Person(name, key_text(key.public_key()), (PersonRole.DPO,)), AT)
        assert refusal.value.code == ALREADY_EXISTS


@one_database
def test_overrides_need_the_office_of_their_criterion(studio: Studio, release: Digest) -> None:
    registry = studio.world.registry
    for name, criterion, code in (
        ("otto", Criterion.PURPOSE, UNTRUSTED),
        ("ada", Criterion.MODIFIERS, UNTRUSTED),
        ("dora", Criterion.SOURCES, STATE),
        ("dora", Criterion.APPROVALS, STATE),
        ("dora", Criterion.SIGNATURE, STATE),
    ):
        with pytest.raises(BractError) as refusal:
            registry.override(studio.override(name, release, criterion), AT)
        assert refusal.value.code == code
    envelope = studio.override("emil", release, Criterion.MODIFIERS)
    registry.override(envelope, AT)
    registry.override(envelope, AT)
    assert [one.by for one in registry.overrides()] == ["emil"]
