"""The tree against its definition, and every forgery against its verifiers."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import LOG, MALFORMED, BractError
from bract.log import merkle

LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(40)]

# The RFC 6962 test vectors that Certificate Transparency logs publish: inputs and the roots of their first n.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def _by_definition(leaves: list[bytes]) -> bytes:
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    cut = 1
    while cut * 2 < len(leaves):
        cut *= 2
    return hashlib.sha256(b"\x01" + _by_definition(leaves[:cut]) + _by_definition(leaves[cut:])).digest()


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_the_published_ones(size: int) -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(data)) for data in INPUTS[:size]]
    assert merkle.root(leaves).hex() == ROOTS[size - 1]


def test_the_frontier_gives_the_root_of_the_definition() -> None:
    for size in range(len(LEAVES) + 1):
        edge = merkle.frontier(LEAVES[:size])
        assert edge.root == _by_definition(LEAVES[:size])
        assert merkle.parse_frontier(size, edge.to_bytes()) == edge


@pytest.mark.parametrize(("size", "length"), [(-1, 0), (1, 0), (3, 32), (3, 63), (0, 32)])
def test_a_frontier_of_another_size_is_refused(size: int, length: int) -> None:
    with pytest.raises(BractError) as refusal:
        merkle.parse_frontier(size, bytes(length))
    assert refusal.value.code == MALFORMED


def test_every_leaf_is_proved_and_no_other_place_passes() -> None:
    for size in range(1, len(LEAVES) + 1):
        root = merkle.root(LEAVES[:size])
        for index in range(size):
            proof = merkle.prove_inclusion(index, LEAVES[:size])
            merkle.verify_inclusion(LEAVES[index], index, size, proof, root)
            for leaf, place in ((LEAVES[index], (index + 1) % size), (merkle.leaf_hash(b"x"), index)):
                if (leaf, place) != (LEAVES[index], index):
                    with pytest.raises(BractError):
                        merkle.verify_inclusion(leaf, place, size, proof, root)


def test_every_earlier_tree_is_proved_and_no_other_passes() -> None:
    for later in range(1, len(LEAVES) + 1):
        root = merkle.root(LEAVES[:later])
        for size in range(1, later + 1):
            proof = merkle.prove_consistency(size, LEAVES[:later])
            merkle.verify_consistency(size, later, merkle.root(LEAVES[:size]), root, proof)
            for old, new in ((bytes(32), root), (merkle.root(LEAVES[:size]), bytes(32))):
                with pytest.raises(BractError) as refusal:
                    merkle.verify_consistency(size, later, old, new, proof)
                assert refusal.value.code == LOG


@given(size=st.integers(1, 40), data=st.data())
def test_a_changed_proof_never_passes(size: int, data: st.DataObject) -> None:
    leaves, index = LEAVES[:size], data.draw(st.integers(0, size - 1))
    proof = list(merkle.prove_inclusion(index, leaves))
    wrong = data.draw(st.sampled_from(["longer", "shorter", "flipped"]))
    if wrong == "longer" or not proof:
        proof.append(bytes(32))
    elif wrong == "shorter":
        proof.pop()
    else:
        place = data.draw(st.integers(0, len(proof) - 1))
        proof[place] = bytes([proof[place][0] ^ 1]) + proof[place][1:]
    with pytest.raises(BractError) as refusal:
        merkle.verify_inclusion(leaves[index], index, size, proof, merkle.root(leaves))
    assert refusal.value.code == LOG


@pytest.mark.parametrize(
    "refused",
    [
        lambda: merkle.prove_inclusion(3, LEAVES[:3]),
        lambda: merkle.prove_inclusion(-1, LEAVES[:3]),
        lambda: merkle.prove_consistency(0, LEAVES[:3]),
        lambda: merkle.prove_consistency(4, LEAVES[:3]),
        lambda: merkle.verify_inclusion(LEAVES[0], 1, 1, (), LEAVES[0]),
        lambda: merkle.verify_consistency(2, 1, LEAVES[0], LEAVES[0], ()),
        lambda: merkle.verify_consistency(3, 5, LEAVES[0], LEAVES[0], ()),
    ],
)
def test_what_is_outside_the_tree_is_refused(refused: object) -> None:
    assert callable(refused)
    with pytest.raises(BractError):
        refused()
