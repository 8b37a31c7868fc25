"""A hub's bundle verifies anywhere with public keys; whatever is changed in it is found and named."""

import base64
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from bract.database import open_engine
from bract.digest import canonical, digest
from bract.errors import FINGERPRINT, LOG, LOG_FORKED, STATE, UNTRUSTED, BractError
from bract.files import write_private
from bract.identity import private_pem
from bract.log import archive, auditor, verify
from bract.log.bundle import (
    BODIES,
    CHECKPOINT,
    KEYS,
    MANIFEST,
    SEAL,
    Keys,
    Manifest,
    Party,
    Seal,
    signed_line,
)
from bract.log.note import COSIGNED, SIGNED, Note, cosign, parse_note, vkey
from bract.log.verify import Verified
from bract.model import DatasetTerms
from bract.signing import key_id, key_text, parse_envelope, sign
from bract.value import decode, encode
from bract_server.cli.main import app
from bract_server.home import create
from bract_server.hub import open_registry
from bract_server.registry import MIGRATIONS
from bract_server.registry.store import HubRegistry
from tests.migrated import migrated
from tests.server.registry.studio import Studio
from tests.server.registry.world import AT, SITES, World, campaign_plan, named

KEY = Ed25519PrivateKey.from_private_bytes(b"hub key of the bundle's tests...")
FINGERPRINT_OF_KEY = key_id(KEY.public_key())
ERASED = 9


def journey(engine: Engine) -> World:
    """Two rounds, a refusal, a withdrawal and an erased body."""
    world = World(engine, HubRegistry(engine, KEY))
    for site in SITES:
        world.enrol(site)
    campaign = world.start(campaign_plan())
    world.whole_round(campaign, "alder", "birch")
    number, _ = world.open(campaign, "alder", "birch")
    world.registry.abort_round(campaign, number, {"alder": STATE}, AT)
    number = world.registry.propose(campaign, AT).number
    world.registry.refuse("cedar", world.refusal("cedar", campaign, number, STATE), AT)
    world.registry.withdraw("alder", world.notice("alder", named("snapshot alder")), AT)
    world.registry.erase_body(ERASED, "D. Officer", "Art. 17 GDPR", AT)
    return world


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Path]]:
    folder = tmp_path_factory.mktemp("bundle")
    engine = open_engine(f"sqlite:///{folder / 'registry.db'}")
    migrated(engine, MIGRATIONS)
    world = journey(engine)
    archive.write(folder / "hub.zip", world.registry.bundle(""))
    yield world, folder / "hub.zip"
    engine.dispose()


def files(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as read:
        return {info.filename: read.read(info) for info in read.infolist()}


def resealed(parts: dict[str, bytes], key: Ed25519PrivateKey = KEY, **manifest: object) -> dict[str, bytes]:
    """The files under a new manifest and seal, as the hub itself could forge them."""
    kept = {name: data for name, data in parts.items() if name not in (MANIFEST, SEAL)}
    facts = {name: {"size": len(data), "sha256": digest(data)} for name, data in kept.items()}
    listed = encode(decode(Manifest, {**json.loads(parts[MANIFEST]), "files": facts, **manifest}))
    point = json.loads(parse_envelope(parts["log/checkpoint.json"]).payload)
    seal = Seal(point["origin"], "hub", point["size"], point["root"], digest(listed))
    return {**kept, MANIFEST: listed, SEAL: sign(seal, key).to_json()}


def refused(parts: dict[str, bytes], tmp_path: Path, **asked: object) -> BractError:
    path = tmp_path / "bad.zip"
    path.unlink(missing_ok=True)
    archive.write(path, parts.items())
    with pytest.raises(BractError) as refusal:
        verify.verify(path, **asked)  # type: ignore[arg-type]
    return refusal.value


def test_a_bundle_verifies_on_both_databases_and_is_the_same_each_time(database_url: str, tmp_path: Path) -> None:
    engine = open_engine(database_url)
    migrated(engine, MIGRATIONS)
    world = journey(engine)
    archive.write(tmp_path / "one.zip", world.registry.bundle(""))
    archive.write(tmp_path / "two.zip", world.registry.bundle(""))
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    done = verify.verify(tmp_path / "one.zip", fingerprint=FINGERPRINT_OF_KEY)
    report = world.registry.verify_log()
    assert (done.size, done.root, done.pinned, done.verified) == (report.entries, report.root, True, True)
    assert (done.bodies, done.erased, done.withheld) == (report.entries - 1, 1, 0)
    assert done.signed >= 15
    engine.dispose()


def test_without_a_fingerprint_it_says_that_it_is_only_consistent_with_itself(small: tuple[World, Path]) -> None:
    done = verify.verify(small[1])
    assert not done.pinned
    assert "only consistent with itself" in verify.summary(done)
    assert FINGERPRINT_OF_KEY in verify.summary(done)


def test_another_owner_is_refused(small: tuple[World, Path], tmp_path: Path) -> None:
    with pytest.raises(BractError) as refusal:
        verify.verify(small[1], fingerprint=str(digest(b"somebody else")))
    assert refusal.value.code == UNTRUSTED
    stranger = Ed25519PrivateKey.generate()
    assert SEAL in refused(resealed(files(small[1]), stranger), tmp_path).detail


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_byte_of_any_file_is_missed_by_nobody(small: tuple[World, Path], data: st.DataObject) -> None:
    whole = small[1].read_bytes()
    with small[1].open("rb") as file:
        inside = archive.members(file)
    # a file first, so that the small ones have their share; None is what stands between them
    one = data.draw(st.sampled_from([None, *inside.values()]))
    first, last = (0, len(whole) - 1) if one is None else (one.offset, one.offset + 29 + len(one.name) + one.size)
    place, bit = data.draw(st.integers(first, last)), data.draw(st.integers(0, 7))
    changed = bytearray(whole)
    changed[place] ^= 1 << bit
    bad = small[1].with_name("flipped.zip")
    bad.write_bytes(changed)
    with pytest.raises(BractError) as refusal:
        verify.verify(bad)
    assert refusal.value.detail


@pytest.mark.parametrize("name", ["log/checkpoint", "keys.json", "rule.txt", "lineage.json", "log/tile/0/", "signed/"])
def test_a_byte_of_each_kind_of_file_names_it_or_its_entry(
    small: tuple[World, Path], tmp_path: Path, name: str
) -> None:
    parts = files(small[1])
    (found,) = [one for one in parts if one == name or (name.endswith("/") and one.startswith(name))]
    data = bytearray(parts[found])
    data[len(data) // 2] ^= 1
    told = refused({**parts, found: bytes(data)}, tmp_path).detail
    assert told.startswith(found) or "log entry" in told


def entry_of(parts: dict[str, bytes], seq: int) -> tuple[str, int, int]:
    """The file of entries, and from where to where an entry of it goes."""
    (name,) = [one for one in parts if one.startswith("log/tile/entries/")]
    place, data = 0, parts[name]
    for _ in range(seq - 1):
        place += 2 + int.from_bytes(data[place : place + 2])
    return name, place, place + 2 + int.from_bytes(data[place : place + 2])


def flip_entry(parts: dict[str, bytes]) -> None:
    name, begin, _ = entry_of(parts, 7)
    place = parts[name].index(b'"actor":"', begin) + 9
    parts[name] = parts[name][:place] + b"x" + parts[name][place + 1 :]


def drop_entry(parts: dict[str, bytes]) -> None:
    name, begin, end = entry_of(parts, 7)
    parts[name] = parts[name][:begin] + parts[name][end:]


def reorder(parts: dict[str, bytes]) -> None:
    name, begin, middle = entry_of(parts, 7)
    _, _, end = entry_of(parts, 8)
    data = parts[name]
    parts[name] = data[:begin] + data[middle:end] + data[begin:middle] + data[end:]


def lines_of(parts: dict[str, bytes], folder: str) -> tuple[str, list[bytes]]:
    (name,) = [one for one in parts if one.startswith(folder)]
    return name, parts[name].splitlines(keepends=True)


def flip_body(parts: dict[str, bytes]) -> None:
    name, lines = lines_of(parts, BODIES)
    assert b'"subjects_floor":1000' in lines[2]
    lines[2] = lines[2].replace(b'"subjects_floor":1000', b'"subjects_floor":1001')
    parts[name] = b"".join(lines)


def lose_body(parts: dict[str, bytes]) -> None:
    name, lines = lines_of(parts, BODIES)
    parts[name] = b"".join(lines[:4] + lines[5:])


def lose_signed(parts: dict[str, bytes]) -> None:
    name, lines = lines_of(parts, "signed/")
    parts[name] = b"".join(lines[:-1])


def swap_signed(parts: dict[str, bytes]) -> None:
    name, lines = lines_of(parts, "signed/")
    one, other = (line.split(b",", 1) for line in lines[2:4])
    lines[2:4] = [one[0] + b"," + other[1], other[0] + b"," + one[1]]
    parts[name] = b"".join(lines)


def change_tile(parts: dict[str, bytes]) -> None:
    (name,) = [one for one in parts if one.startswith("log/tile/0/")]
    parts[name] = bytes(32) + parts[name][32:]


def add_file(parts: dict[str, bytes]) -> None:
    parts["extra.txt"] = b"see"


def lose_file(parts: dict[str, bytes]) -> None:
    del parts["rule.txt"]


def other_key(parts: dict[str, bytes]) -> None:
    keys = json.loads(parts["keys.json"])
    keys["parties"][0]["key"] = keys["parties"][1]["key"]
    parts["keys.json"] = json.dumps(keys, sort_keys=True, separators=(",", ":")).encode()


def lose_edges(parts: dict[str, bytes]) -> None:
    parts["lineage.json"] = b'{"edges":[]}'


FORGED: dict[Callable[[dict[str, bytes]], None], str] = {
    flip_entry: "log entry 7 (",
    drop_entry: "log entry 7 is missing",
    reorder: "log entry 7 is missing",
    flip_body: "log entry 3 (site.add): the body is not the one it commits to",
    lose_body: "log entry 5 (version.add): its body is missing and was never erased",
    lose_signed: "what it tells of is missing",
    swap_signed: "the signed thing is not the one that it tells of|signed by another key|verify",
    change_tile: "log/tile/0/",
    add_file: "extra.txt: does not belong here",
    lose_file: "rule.txt: missing",
    other_key: "was enrolled with another key",
    lose_edges: "comes from nowhere",
}


@pytest.mark.parametrize("forge", FORGED, ids=lambda forge: forge.__name__)
def test_what_the_owner_itself_forges_and_seals_anew_is_named(
    small: tuple[World, Path], tmp_path: Path, forge: Callable[[dict[str, bytes]], None]
) -> None:
    parts = files(small[1])
    forge(parts)
    told = refused(resealed(parts), tmp_path)
    assert told.code == LOG
    assert any(text in told.detail for text in FORGED[forge].split("|")), told.detail


def test_a_body_that_was_called_withheld_and_one_that_was_erased_may_not_be_there(
    small: tuple[World, Path], tmp_path: Path
) -> None:
    parts = files(small[1])
    assert "withheld and is here" in refused(resealed(parts, withheld=("site.add",)), tmp_path).detail
    assert "withheld and is here" in refused(resealed(parts, withheld_entries=(2,)), tmp_path).detail


def test_a_later_bundle_continues_an_earlier_one_and_no_other(small: tuple[World, Path], tmp_path: Path) -> None:
    world, first = small
    note = tmp_path / "kept"
    note.write_bytes(files(first)["log/checkpoint"])
    sealed = tmp_path / "kept.json"
    sealed.write_bytes(files(first)["log/checkpoint.json"])
    world.registry.revoke_site("cedar", AT)
    later = tmp_path / "later.zip"
    archive.write(later, world.registry.bundle(""))
    size = verify.verify(first).size
    for older in (first, note, sealed):
        assert verify.verify(later, since=older).since == size
    with pytest.raises(BractError, match="it was cut back"):
        verify.verify(first, since=later)


def rewritten(tmp_path: Path, entries: int) -> Path:
    """Another history under the same key, from a copy of nothing."""
    engine = open_engine(f"sqlite:///{tmp_path / 'other.db'}")
    migrated(engine, MIGRATIONS)
    world = World(engine, HubRegistry(engine, KEY))
    for number in range(entries):
        world.enrol(f"site-{number}")
    archive.write(tmp_path / "other.zip", world.registry.bundle(""))
    engine.dispose()
    return tmp_path / "other.zip"


def test_a_rewritten_log_verifies_by_itself_and_is_found_by_whoever_kept_a_checkpoint(
    small: tuple[World, Path], tmp_path: Path
) -> None:
    size = verify.verify(small[1]).size
    for entries in (size, size + 3):
        (tmp_path / str(entries)).mkdir()
        other = rewritten(tmp_path / str(entries), entries)
        assert verify.verify(other).size == entries
        with pytest.raises(BractError, match="rewritten"):
            verify.verify(other, since=small[1])


def test_an_auditors_witness_follows_a_log_and_finds_its_fork(small: tuple[World, Path], tmp_path: Path) -> None:
    world, first = small
    state, key = tmp_path / "witness.json", FINGERPRINT_OF_KEY
    with pytest.raises(BractError) as refusal:
        auditor.witness(first, state, name="dpa.example", key=None, at=AT)
    assert refusal.value.code == FINGERPRINT
    one = auditor.witness(first, state, name="dpa.example", key=key, at=AT)
    assert one.before == 0
    assert world.registry.take_cosignatures(one.note, one.witness, AT)
    assert not world.registry.take_cosignatures(one.note, one.witness, AT)
    world.enrol("dogwood")
    later = tmp_path / "later.zip"
    archive.write(later, world.registry.bundle(""))
    assert verify.verify(later).witnesses == {"dpa.example": one.head.size}
    two = auditor.witness(later, state, name="", key=None, at=AT)
    assert (two.before, two.head) == (one.head.size, world.registry.head())
    before = state.read_bytes()
    for bad in (first, rewritten(tmp_path, two.head.size)):
        with pytest.raises(BractError) as refusal:
            auditor.witness(bad, state, name="", key=None, at=AT)
        assert refusal.value.code == LOG_FORKED
    assert state.read_bytes() == before
    stranger = vkey("dpa.example", 4, Ed25519PrivateKey.generate().public_key())
    with pytest.raises(BractError) as refusal:
        world.registry.take_cosignatures(two.note, stranger, AT)
    assert refusal.value.code == UNTRUSTED


def cosigned(world: World, name: str, key: Ed25519PrivateKey) -> bool:
    """What an auditor of that name and key said of the newest checkpoint, given to the hub."""
    read = parse_note(world.registry.note())
    note = Note(read.head, (*read.signatures[:1], cosign(read.head, name, key, int(AT.timestamp()))))
    return world.registry.take_cosignatures(note.to_bytes(), vkey(name, COSIGNED, key.public_key()), AT)


@pytest.fixture(scope="module")
def offices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """The files of a bundle in which an officer signed something."""
    folder = tmp_path_factory.mktemp("offices")
    engine = open_engine(f"sqlite:///{folder / 'registry.db'}")
    migrated(engine, MIGRATIONS)
    world = journey(engine)
    Studio(world).declare(sites=("alder",))
    archive.write(folder / "hub.zip", world.registry.bundle(""))
    assert verify.verify(folder / "hub.zip").verified
    yield files(folder / "hub.zip")
    engine.dispose()


def about_people(parts: dict[str, bytes]) -> tuple[str, list[bytes], int, int]:
    """The file of signed things, its lines, and which are dora's registration and her terms."""
    name, lines = lines_of(parts, "signed")
    payloads = [base64.b64decode(json.loads(line).get("signed", {}).get("payload", "")) for line in lines]
    (added,) = (n for n, payload in enumerate(payloads) if b'"name":"dora"' in payload)
    (terms,) = (n for n, payload in enumerate(payloads) if b'"declares"' in payload)
    return name, lines, added, terms


def test_a_persons_word_and_key_can_be_neither_left_out_nor_exchanged(
    offices: dict[str, bytes], tmp_path: Path
) -> None:
    name, lines, added, terms = about_people(offices)
    entry = json.loads(lines[terms])
    for place, kind in ((added, "person.add"), (terms, "terms.take")):
        rest = b"".join(lines[:place] + lines[place + 1 :])
        assert kind in refused(resealed({**offices, name: rest}), tmp_path).detail

    stranger, keys = Ed25519PrivateKey.generate(), decode(Keys, offices[KEYS])
    said = decode(DatasetTerms, parse_envelope(canonical(entry["signed"])).payload)
    others = tuple(party for party in keys.people if party.name != "person:dora")
    another = (*others, Party("person:dora", key_text(stranger.public_key())))
    for signer, people in ((stranger, another), (KEY, others)):
        forged = signed_line(entry["entry"], sign(said, signer).to_json(), envelope=True)
        told = b"".join([*lines[:terms], forged, *lines[terms + 1 :]])
        changed = {name: told, KEYS: encode(replace(keys, people=people))}
        assert "person.add" in refused(resealed({**offices, **changed}), tmp_path).detail


def test_a_witness_is_one_name_and_one_key_and_never_the_log_itself(database_url: str, tmp_path: Path) -> None:
    engine = open_engine(database_url)
    migrated(engine, MIGRATIONS)
    world, one, other = journey(engine), Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    assert cosigned(world, "dpa.example", one)
    world.registry.revoke_site("cedar", AT)  # the log grows, so that there is another checkpoint
    for name, key in (("dpa.example", other), ("other.example", one), ("hub.example", KEY), ("alder", other)):
        with pytest.raises(BractError) as refusal:
            cosigned(world, name, key)
        assert refusal.value.code == UNTRUSTED, name
    assert cosigned(world, "alder", world.keys["alder"])
    archive.write(tmp_path / "hub.zip", world.registry.bundle(""))
    done = verify.verify(tmp_path / "hub.zip")
    assert done.witness_keys["dpa.example"] == vkey("dpa.example", COSIGNED, one.public_key())
    assert done.witness_keys["dpa.example"] in verify.summary(done)
    assert set(done.witness_keys) == {"alder", "dpa.example"} and done.strangers == ("dpa.example",)
    engine.dispose()


def test_a_line_of_the_owner_is_nobodys_cosignature(small: tuple[World, Path], tmp_path: Path) -> None:
    parts = files(small[1])
    note, keys = parse_note(parts[CHECKPOINT]), decode(Keys, parts[KEYS])
    (mine,) = note.signatures
    stranger = Ed25519PrivateKey.generate()
    theirs = cosign(note.head, "dpa.example", stranger, 1)
    for lines, told in (((mine, mine), {}), ((theirs, mine), {"dpa.example": note.head.size})):
        named = replace(keys, witnesses=(Party("dpa.example", key_text(stranger.public_key())),))
        forged = resealed({**parts, CHECKPOINT: Note(note.head, lines).to_bytes(), KEYS: encode(named)})
        path = tmp_path / f"{len(told)}.zip"
        archive.write(path, forged.items())
        assert verify.verify(path).witnesses == told
    for group in (("self.example", KEY), ("a.example", stranger), ("b.example", stranger)):
        keys = replace(keys, witnesses=(*keys.witnesses, Party(group[0], key_text(group[1].public_key()))))
    assert KEYS in refused(resealed({**parts, KEYS: encode(keys)}), tmp_path).detail


def test_a_seal_over_more_entries_than_are_there_is_refused_at_once(small: tuple[World, Path], tmp_path: Path) -> None:
    parts = files(small[1])
    point = json.loads(parse_envelope(parts["log/checkpoint.json"]).payload)
    seal = Seal(point["origin"], "hub", 10**15, point["root"], digest(parts[MANIFEST]))
    assert SEAL in refused({**parts, SEAL: sign(seal, KEY).to_json()}, tmp_path).detail


def test_a_witness_reads_a_folder_of_tiles(small: tuple[World, Path], tmp_path: Path) -> None:
    for name, data in files(small[1]).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    key = vkey("hub", SIGNED, KEY.public_key())
    mine = Ed25519PrivateKey.generate()
    write_private(tmp_path / "w.json.key", private_pem(mine))  # the key by which hubs know this auditor
    done = auditor.witness(tmp_path / "log", tmp_path / "w.json", name="w", key=key, at=AT + timedelta(days=1))
    assert done.head.size == verify.verify(small[1]).size
    assert done.witness == vkey("w", COSIGNED, mine.public_key())


def test_the_verifier_starts_without_database_torch_flower_or_network(small: tuple[World, Path]) -> None:
    code = (
        "import sys; from bract.log.verify import main; status = main(sys.argv[1:]); "
        "print([m for m in ('sqlalchemy', 'torch', 'flwr', 'grpc', 'httpx', 'opacus') if m in sys.modules]); "
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(small[1])], capture_output=True, check=False, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "[]"), done.stderr


def test_the_commands_write_verify_and_refuse(tmp_path: Path) -> None:
    home = create(tmp_path / "hub", name="hub", at=AT)
    world = World(open_engine(home.database_url()), open_registry(home))
    world.enrol("alder")
    run = CliRunner()
    out = tmp_path / "hub.zip"
    made = run.invoke(app, ["audit", "bundle", str(out), "--hub", str(home.root), "--json"])
    assert made.exit_code == 0, made.output
    told = json.loads(made.output)
    assert told["fingerprint"] == home.fingerprint()
    good = run.invoke(app, ["audit", "verify", str(out), "--key", told["fingerprint"], "--json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.output)["pinned"] is True
    data = bytearray(out.read_bytes())
    data[data.index(b'"body":{') + 20] ^= 1
    out.write_bytes(data)
    program = Path(sys.executable).with_name("bract")
    bad = subprocess.run([program, "audit", "verify", str(out)], capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "log entry 1 (site.add)" in bad.stderr
    world.engine.dispose()


def test_more_than_a_block_on_the_disk_of_a_database(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'registry.db'}")
    migrated(engine, MIGRATIONS)
    world = World(engine, HubRegistry(engine, KEY))
    for number in range(300):
        world.enrol(f"s{number}")
    archive.write(tmp_path / "hub.zip", world.registry.bundle(""))
    parts = files(tmp_path / "hub.zip")
    assert {"log/tile/0/000", "log/tile/0/001.p/44", "log/tile/1/000.p/1", "log/tile/entries/000"} <= set(parts)
    assert isinstance(verify.verify(tmp_path / "hub.zip"), Verified)
    parts["log/tile/1/000.p/1"] = bytes(32)
    assert "log/tile/1/000.p/1" in refused(resealed(parts), tmp_path).detail
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM log_tile")) == 1
    engine.dispose()


def test_the_archive_of_a_bundle_is_read_by_any_unzip(small: tuple[World, Path]) -> None:
    with zipfile.ZipFile(io.BytesIO(small[1].read_bytes())) as read:
        assert read.testzip() is None
