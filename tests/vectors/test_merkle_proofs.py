"""Proofs against the published vectors of Certificate Transparency (RFC 6962 reference implementation)."""

from __future__ import annotations

import pytest

from vram_residency.audit.format import proof, tree

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
_5F = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
_6B = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
_96 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
_BC = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
_CA = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
_D3 = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
#: (index, size) → the published path; the indexes there begin with 1.
INCLUSION = {
    (0, 1): [],
    (0, 8): [_96, _5F, _6B],
    (5, 8): [_BC, _CA, _D3],
    (2, 3): [ROOTS[2]],
    (1, 5): [ROOTS[1], _5F, _BC],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): [_96, _5F, _6B],
    (6, 8): ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a", _CA, _D3],
    (2, 5): [_5F, _BC],
}


def _hashes(spans: list[proof.Span]) -> list[str]:
    collector = proof.NodeCollector(node for span in spans for node in proof.nodes_of(span))
    collector.feed(tree.leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES)
    return [proof.root_of(span, collector.found).hex() for span in spans]


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_an_inclusion_proof_is_the_published_one(index: int, size: int) -> None:
    published = INCLUSION[index, size]
    assert _hashes(proof.inclusion_spans(index, size)) == published
    proof.verify_inclusion(
        tree.leaf_hash(bytes.fromhex(LEAVES[index])),
        index=index,
        size=size,
        root=bytes.fromhex(ROOTS[size]),
        hashes=[bytes.fromhex(hash_) for hash_ in published],
    )


@pytest.mark.parametrize(("old_size", "size"), CONSISTENCY)
def test_a_consistency_proof_is_the_published_one(old_size: int, size: int) -> None:
    published = CONSISTENCY[old_size, size]
    assert _hashes(proof.consistency_spans(old_size, size)) == published
    proof.verify_consistency(
        [bytes.fromhex(hash_) for hash_ in published],
        old_size=old_size,
        old_root=bytes.fromhex(ROOTS[old_size]),
        size=size,
        root=bytes.fromhex(ROOTS[size]),
    )
