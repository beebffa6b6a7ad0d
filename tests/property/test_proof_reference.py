"""Proofs against the words of RFC 6962, for every index and every pair of sizes up to 300."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.merkle_reference import ReferenceTree, recomputed_roots

from vram_residency.audit.format import proof

SIZE_MAX = 300
REFERENCE = ReferenceTree(SIZE_MAX)
NODES = [proof.Node(level, number) for level in range(9) for number in range(SIZE_MAX >> level)]


def _collected() -> dict[proof.Node, bytes]:
    collector = proof.NodeCollector(NODES)
    collector.feed(REFERENCE.leaf_hashes)
    return collector.found


FOUND = _collected()


def _hashes(spans: list[proof.Span]) -> list[bytes]:
    return [proof.root_of(span, FOUND) for span in spans]


def test_every_perfect_subtree_is_collected_and_right() -> None:
    for level, number in NODES:
        expected = REFERENCE.mth(number << level, (number + 1) << level)
        assert FOUND[proof.Node(level, number)] == expected
    assert len(FOUND) == len(NODES)


def test_every_inclusion_proof_up_to_300_is_the_reference_s_and_verifies() -> None:
    for size in range(1, SIZE_MAX + 1):
        root = REFERENCE.root(size)
        for index in range(size):
            hashes = _hashes(proof.inclusion_spans(index, size))
            assert hashes == REFERENCE.path(index, 0, size)
            leaf_hash = REFERENCE.leaf_hashes[index]
            proof.verify_inclusion(leaf_hash, index=index, size=size, root=root, hashes=hashes)


def test_every_consistency_proof_up_to_300_is_the_reference_s_and_verifies() -> None:
    for size in range(SIZE_MAX + 1):
        root = REFERENCE.root(size)
        for old_size in range(size + 1):
            hashes = _hashes(proof.consistency_spans(old_size, size))
            old_root = REFERENCE.root(old_size)
            proof.verify_consistency(hashes, old_size=old_size, old_root=old_root, size=size, root=root)
            if old_size:
                assert hashes == REFERENCE.proof(old_size, size)
                assert recomputed_roots(hashes, old_size, size, old_root) == (old_root, root)


@pytest.mark.parametrize("batches", [[300], [1] * 300, [7, 256, 1, 36], [255, 1, 44], [0, 299, 0, 1]])
def test_how_leaves_arrive_changes_nothing(batches: list[int]) -> None:
    collector = proof.NodeCollector(NODES)
    start = 0
    for count in batches:
        collector.feed(REFERENCE.leaf_hashes[start : start + count])
        start += count
        assert collector.root() == REFERENCE.root(start)
    assert collector.found == FOUND


@given(st.data())
def test_a_proof_holds_for_nothing_but_its_own_statement(data: st.DataObject) -> None:
    """Another index, size, leaf or root, a changed, missing, added or exchanged hash: each is refused."""
    size = data.draw(st.integers(1, SIZE_MAX))
    index = data.draw(st.integers(0, size - 1))
    hashes = _hashes(proof.inclusion_spans(index, size))
    right = (REFERENCE.leaf_hashes[index], index, size, REFERENCE.root(size), hashes)
    leaf_hash, root = right[0], right[3]
    other = data.draw(st.integers(0, SIZE_MAX - 1).filter(lambda number: number != index))
    flipped = bytes([leaf_hash[0] ^ 1]) + leaf_hash[1:]
    wrong = [
        (leaf_hash, other, size, root, hashes),
        (flipped, index, size, root, hashes),
        (leaf_hash, index, size, flipped, hashes),
        (leaf_hash, index, size, root, [*hashes, flipped]),
        (leaf_hash, -1, size, root, hashes),
        (leaf_hash, index, index, root, hashes),
        (leaf_hash, index, 2**63, root, hashes),
        (leaf_hash[:-1], index, size, root, hashes),
    ]
    for at in range(len(hashes)):
        wrong.append((leaf_hash, index, size, root, hashes[:at] + hashes[at + 1 :]))
        wrong.append((leaf_hash, index, size, root, [*hashes[:at], flipped, *hashes[at + 1 :]]))
        wrong.append((leaf_hash, index, size, root, [*hashes[:at], hashes[at][:-1], *hashes[at + 1 :]]))
    for statement in wrong:
        with pytest.raises(proof.ProofError):
            _verify(*statement)


def _verify(*statement: Any) -> None:
    leaf_hash, index, size, root, hashes = statement
    proof.verify_inclusion(leaf_hash, index=index, size=size, root=root, hashes=hashes)


@given(st.data())
def test_a_consistency_proof_holds_for_nothing_but_its_own_statement(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, SIZE_MAX))
    old_size = data.draw(st.integers(1, size - 1))
    hashes = _hashes(proof.consistency_spans(old_size, size))
    old_root, root = REFERENCE.root(old_size), REFERENCE.root(size)
    flipped = bytes([root[0] ^ 1]) + root[1:]
    wrong = [
        (hashes, old_size, flipped, size, root),
        (hashes, old_size, old_root, size, flipped),
        (hashes, old_size, root, size, old_root),
        ([*hashes, flipped], old_size, old_root, size, root),
        ([], old_size, old_root, size, root),
        (hashes, 0, old_root, size, root),
        (hashes, size, old_root, size, root),
        (hashes, size + 1, old_root, size, root),
        (hashes, old_size, old_root, 2**63, root),
    ]
    for at in range(len(hashes)):
        wrong.append((hashes[:at] + hashes[at + 1 :], old_size, old_root, size, root))
        wrong.append(([*hashes[:at], flipped, *hashes[at + 1 :]], old_size, old_root, size, root))
    for statement in wrong:
        with pytest.raises(proof.ProofError):
            _verify_consistency(*statement)


def _verify_consistency(*statement: Any) -> None:
    hashes, old_size, old_root, size, root = statement
    proof.verify_consistency(hashes, old_size=old_size, old_root=old_root, size=size, root=root)


def test_the_empty_tree_is_a_beginning_of_every_tree_and_only_it() -> None:
    empty, root = REFERENCE.root(0), REFERENCE.root(5)
    _verify_consistency([], 0, empty, 5, root)
    _verify_consistency([], 0, empty, 0, empty)
    for statement in [
        ([], 0, root, 5, root),
        ([root], 0, empty, 5, root),
        ([], 0, empty, 0, root),
        ([root], 5, root, 5, root),
        ([], 5, empty, 5, root),
    ]:
        with pytest.raises(proof.ProofError):
            _verify_consistency(*statement)


def test_what_is_not_in_a_tree_has_no_proof() -> None:
    for index, size in [(0, 0), (5, 5), (-1, 5)]:
        with pytest.raises(ValueError, match="no leaf"):
            proof.inclusion_spans(index, size)
    for old_size, size in [(6, 5), (-1, 5)]:
        with pytest.raises(ValueError, match="no beginning"):
            proof.consistency_spans(old_size, size)


@given(st.integers(1, 2**63 - 1).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_no_proof_has_more_than_63_hashes(index_and_size: tuple[int, int]) -> None:
    """In trees of any size; a consistency proof may have one more than the tree is deep."""
    index, size = index_and_size
    assert len(proof.inclusion_spans(index, size)) <= 63
    assert len(proof.consistency_spans(index, size)) <= proof.HASHES_MAX + 1
