"""Chain, tree and entries against slow references."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.audit_logs import reference_root

from vram_residency.audit.format import chain, tree
from vram_residency.audit.format.entry import (
    EntryFormatError,
    encode_body,
    join_line,
    parse_entry,
    split_line,
)

LEAVES = st.lists(st.binary(max_size=8), max_size=70)
_TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_NAMES = _TEXT.filter(
    lambda name: (
        name not in {"index", "timestamp", "event_type", "service_id", "audit_id", "sanitized", "mac"}
    )
)


@given(LEAVES)
def test_the_frontier_folds_to_the_root_of_the_rfc(leaves: list[bytes]) -> None:
    frontier = tree.Frontier().extend(map(tree.leaf_hash, leaves))
    assert frontier.root() == reference_root(leaves)
    assert len(frontier.subtrees) == frontier.size.bit_count()


@given(LEAVES, LEAVES)
def test_appending_in_two_parts_is_appending_at_once(first: list[bytes], second: list[bytes]) -> None:
    hashes = list(map(tree.leaf_hash, first + second))
    start = tree.Frontier().extend(hashes[: len(first)])
    before = start.root()
    assert start.extend(hashes[len(first) :]) == tree.Frontier().extend(hashes)
    assert start.root() == before


@given(LEAVES)
def test_a_stored_frontier_reads_back(leaves: list[bytes]) -> None:
    frontier = tree.Frontier().extend(map(tree.leaf_hash, leaves))
    assert tree.Frontier.parse(frontier.encode()) == frontier


@given(st.binary(max_size=80))
def test_other_bytes_are_no_frontier_or_print_as_they_were(data: bytes) -> None:
    try:
        frontier = tree.Frontier.parse(data)
    except tree.FrontierFormatError:
        return
    assert frontier.encode() == data


def test_a_frontier_whose_hashes_do_not_fit_its_size_is_refused() -> None:
    for data in (b"1\n", b"0\n00\n", b"1\n00\n", b"-1\n", b"1\n" + b"ab" * 32, b"3\n" + b"ab" * 32 + b"\n"):
        with pytest.raises(tree.FrontierFormatError, match=r"."):
            tree.Frontier.parse(data)


@given(
    st.binary(min_size=32, max_size=32), st.text(max_size=20), st.lists(st.binary(max_size=40), max_size=10)
)
def test_the_mac_chain_is_that_of_the_specification(key: bytes, origin: str, bodies: list[bytes]) -> None:
    origin = origin.encode(errors="replace").decode()
    mac = chain.initial_mac(origin)
    slow = hashlib.sha256(b"vram-residency/audit/v1\n" + origin.encode()).digest()
    for body in bodies:
        assert mac == slow
        mac = chain.next_mac(key, mac, body)
        slow = hmac.new(key, slow + body, hashlib.sha256).digest()
    assert mac == slow


@given(st.binary(min_size=32, max_size=32), st.integers(0, 5))
def test_epoch_keys_are_hashed_forward(key: bytes, epoch: int) -> None:
    slow = key
    for _ in range(epoch):
        slow = hmac.new(slow, b"vram-residency/audit/next-epoch", hashlib.sha256).digest()
    assert chain.epoch_key(key, epoch) == slow
    assert chain.next_epoch_key(slow) == chain.epoch_key(key, epoch + 1)


def test_the_genesis_id_is_the_start_of_a_labelled_hash() -> None:
    key = bytes(32)
    expected = hashlib.sha256(b"vram-residency/audit/genesis-id" + key).hexdigest()[:16]
    assert chain.genesis_id(key) == expected


@given(st.dictionaries(_NAMES, _VALUES, max_size=5), st.lists(_TEXT, max_size=3), st.integers(0, 2**63 - 1))
def test_what_is_written_is_read_again(fields: dict[str, object], sanitized: list[str], index: int) -> None:
    body = encode_body(
        index=index,
        timestamp="2025-10-02T10:00:00.000000Z",
        event_type="x",
        service_id="s",
        audit_id=f"00000000-{index}",
        fields=fields,
        sanitized=sanitized,
    )
    line = join_line(body, bytes(32))
    entry = parse_entry(line)
    assert entry.fields == fields
    assert list(entry.sanitized) == sanitized
    assert split_line(line) == (body, bytes(32))


@given(st.binary(max_size=200))
def test_other_bytes_are_refused_with_our_error_alone(data: bytes) -> None:
    with pytest.raises(EntryFormatError, match=r"."):
        parse_entry(data)
