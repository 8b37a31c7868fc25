"""Our checkpoints are C2SP notes: a parser written from the standard's text alone, here, reads and verifies them."""

import base64
import hashlib
import struct

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import MALFORMED, UNTRUSTED, BractError
from bract.log.note import (
    COSIGNED,
    SIGNED,
    Head,
    Note,
    check_cosignature,
    cosign,
    open_note,
    parse_note,
    parse_vkey,
    sign_head,
    vkey,
)

LOG_KEY, WITNESS_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(b"w" * 32)
HEAD = Head("example.com/behind-the-sofa", 20_852_163, bytes(range(32)))


def by_the_standard(note: bytes, keys: dict[tuple[str, int], Ed25519PublicKey]) -> dict[str, object]:
    """Signed-note, tlog-checkpoint and tlog-cosignature, read sentence by sentence; nothing of bract is used."""
    text, signatures = note.decode("utf-8").rsplit("\n\n", 1)
    text += "\n"
    origin, size, root = text.splitlines()[:3]
    assert size == str(int(size))
    verified: dict[str, object] = {"origin": origin, "size": int(size), "root": base64.b64decode(root)}
    for line in signatures.splitlines():
        dash, name, encoded = line.split(" ")
        assert dash == "—"
        raw = base64.b64decode(encoded)
        for (known, kind), key in keys.items():
            identity = hashlib.sha256(known.encode() + b"\n" + bytes([kind]) + key.public_bytes_raw()).digest()[:4]
            if (known, identity) != (name, raw[:4]):
                continue
            if kind == 1:
                key.verify(raw[4:], text.encode())
                verified[name] = True
            else:
                (time,) = struct.unpack(">Q", raw[4:12])
                key.verify(raw[12:], f"cosignature/v1\ntime {time}\n{text}".encode())
                verified[name] = time
    return verified


def test_our_note_verifies_by_the_standards_words() -> None:
    line = cosign(HEAD, "witness.example.com/w1", WITNESS_KEY, 1_679_315_147)
    note = Note(HEAD, (*sign_head(HEAD, LOG_KEY).signatures, line)).to_bytes()
    keys = {(HEAD.origin, 1): LOG_KEY.public_key(), ("witness.example.com/w1", 4): WITNESS_KEY.public_key()}
    assert by_the_standard(note, keys) == {
        "origin": HEAD.origin,
        "size": HEAD.size,
        "root": HEAD.root,
        HEAD.origin: True,
        "witness.example.com/w1": 1_679_315_147,
    }
    with pytest.raises(InvalidSignature):  # the other parser's positive control
        by_the_standard(note.replace(b"20852163", b"20852164"), keys)


def test_the_example_of_the_standard_has_our_form() -> None:
    """The checkpoint with a cosignature of C2SP tlog-cosignature; the keys are not published."""
    example = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/"
        "Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5n"
        "No0xUe+mbIUBkBIfZ+qnA==\n"
    ).encode()
    note = parse_note(example)
    assert (note.head.origin, note.head.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert [len(one.data) for one in note.signatures] == [64, 72]
    assert struct.unpack(">Q", note.signatures[1].data[:8]) == (1_679_315_147,)
    assert note.to_bytes() == example


def test_a_key_of_another_implementation_is_read() -> None:
    """The verifier key and note in the documentation of golang.org/x/mod/sumdb/note."""
    name, key = parse_vkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", SIGNED)
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    raw = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    assert (name, raw[:4].hex()) == ("PeterNeumann", "c74f20a3")
    key.verify(raw[4:], text.encode())


def test_only_the_logs_key_opens_a_note() -> None:
    note = sign_head(HEAD, LOG_KEY)
    assert open_note(parse_note(note.to_bytes()), LOG_KEY.public_key()) == HEAD
    renamed = Note(Head("example.com/other", HEAD.size, HEAD.root), note.signatures)
    larger = Note(Head(HEAD.origin, HEAD.size + 1, HEAD.root), note.signatures)
    for bad, key in ((note, WITNESS_KEY), (renamed, LOG_KEY), (larger, LOG_KEY), (Note(HEAD, ()), LOG_KEY)):
        with pytest.raises(BractError) as refusal:
            open_note(bad, key.public_key())
        assert refusal.value.code == UNTRUSTED


def test_a_cosignature_is_of_one_witness_one_head_and_one_time() -> None:
    line = cosign(HEAD, "w1", WITNESS_KEY, 1000)
    key = WITNESS_KEY.public_key()
    assert check_cosignature(HEAD, line, "w1", key) == 1000
    later = type(line)(line.name, line.key_id, struct.pack(">Q", 1001) + line.data[8:])
    other = Head(HEAD.origin, HEAD.size, bytes(32))
    signed = sign_head(Head("w1", 1, bytes(32)), WITNESS_KEY).signatures[0]
    for head, one, name in ((other, line, "w1"), (HEAD, later, "w1"), (HEAD, line, "w2"), (HEAD, signed, "w1")):
        with pytest.raises(BractError) as refusal:
            check_cosignature(head, one, name, key)
        assert refusal.value.code == UNTRUSTED


def test_a_verifier_key_is_told_and_read_back() -> None:
    text = vkey("w1", COSIGNED, WITNESS_KEY.public_key())
    assert parse_vkey(text, COSIGNED)[1].public_bytes_raw() == WITNESS_KEY.public_key().public_bytes_raw()
    for bad, kind in ((text, SIGNED), (text.replace("w1", "w2"), COSIGNED), ("w1+00", COSIGNED), ("", COSIGNED)):
        with pytest.raises(BractError) as refusal:
            parse_vkey(bad, kind)
        assert refusal.value.code == MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"hub\n1\n\n",
        b"hub\n01\n" + base64.b64encode(bytes(32)) + b"\n\n\xe2\x80\x94 hub AAAAAAA=\n",
        b"hub\n1\n" + base64.b64encode(bytes(31)) + b"\n\n\xe2\x80\x94 hub AAAAAAA=\n",
        b"hub\n1\n" + base64.b64encode(bytes(32)) + b"\nextension\n\n\xe2\x80\x94 hub AAAAAAA=\n",
        b"cosignature/v1\n1\n" + base64.b64encode(bytes(32)) + b"\n\n\xe2\x80\x94 hub AAAAAAA=\n",
        b"hub\n1\n" + base64.b64encode(bytes(32)) + b"\n\n\xe2\x80\x94 h+b AAAAAAA=\n",
        b"\xff" * 90,
        b"a" * 70_000,
    ],
)
def test_what_is_no_checkpoint_is_refused(text: bytes) -> None:
    with pytest.raises(BractError) as refusal:
        parse_note(text)
    assert refusal.value.code == MALFORMED


@given(place=st.integers(0, 200), bit=st.integers(0, 7))
def test_no_byte_of_a_note_can_change(place: int, bit: int) -> None:
    whole = sign_head(HEAD, LOG_KEY).to_bytes()
    changed = bytearray(whole)
    changed[place % len(whole)] ^= 1 << bit
    with pytest.raises(BractError):
        open_note(parse_note(bytes(changed)), LOG_KEY.public_key())
