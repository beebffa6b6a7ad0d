"""No byte of a proof bundle can be changed unseen, and no rebuilt one shows what was never logged."""

from __future__ import annotations

import functools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundles import bundle_of, make_log, shard_bundle

from vram_residency.core.errors import InvalidInputError
from vram_residency.evidence.bundle import Bundle, BundleFormatError, ProvenEntry, Subject, decode, encode
from vram_residency.evidence.checking import Keys, check, parse_keys

MAKER = make_log()
OTHER = make_log()
KEYS = parse_keys(MAKER.vkey)
SMALL = encode(bundle_of(MAKER, [4], Subject(entry=4)))
GOOD = shard_bundle(MAKER)


def _verdict(data: bytes, keys: Keys = KEYS) -> str:
    try:
        return check(data, keys).verdict
    except InvalidInputError:
        return "not a bundle"


def _verdict_of(bundle: Bundle) -> str:
    try:
        return _verdict(encode(bundle))
    except BundleFormatError:
        return "cannot be written"


@pytest.mark.parametrize("share", range(4), ids=["first", "second", "third", "fourth"])
def test_every_single_byte_that_is_changed_is_seen(share: int) -> None:
    """Each byte of the file, each time with another bit flipped; also without any key."""
    quarter = range(len(SMALL) * share // 4, len(SMALL) * (share + 1) // 4)
    for at in quarter:
        changed = bytearray(SMALL)
        changed[at] ^= 1 << (at % 8)
        with pytest.raises(BundleFormatError):
            decode(bytes(changed))


@given(st.integers(0, len(SMALL) - 1))
def test_every_cut_is_seen(length: int) -> None:
    assert _verdict(SMALL[:length]) != "proven"


@given(st.binary(min_size=1, max_size=64), st.integers(0, len(SMALL)))
def test_every_insertion_is_seen(added: bytes, at: int) -> None:
    assert _verdict(SMALL[:at] + added + SMALL[at:]) != "proven"


@given(st.integers(0, 2), st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_line_in_a_rebuilt_bundle_is_refuted(number: int, at: int, change: int) -> None:
    """The archive, its page and its list are made again by the one who changed the line."""
    entries = list(GOOD.entries)
    line = bytearray(entries[number].line)
    line[at % len(line)] ^= change
    entries[number] = msgspec.structs.replace(entries[number], line=bytes(line))
    rebuilt = msgspec.structs.replace(GOOD, entries=tuple(entries))
    assert _verdict_of(rebuilt) in {"refuted", "cannot be written"}


@given(st.integers(0, 2), st.integers(0, 10), st.integers(0, 31), st.integers(1, 255))
def test_a_changed_hash_in_a_rebuilt_bundle_is_refuted(number: int, level: int, at: int, change: int) -> None:
    entries = list(GOOD.entries)
    hashes = [bytearray(hash_) for hash_ in entries[number].hashes]
    hashes[level % len(hashes)][at] ^= change
    entries[number] = msgspec.structs.replace(entries[number], hashes=tuple(map(bytes, hashes)))
    assert _verdict_of(msgspec.structs.replace(GOOD, entries=tuple(entries))) == "refuted"


@given(st.integers(0, len(GOOD.note_bytes) - 1), st.integers(1, 255))
def test_a_changed_checkpoint_in_a_rebuilt_bundle_is_refuted(at: int, change: int) -> None:
    note = bytearray(GOOD.note_bytes)
    note[at] ^= change
    rebuilt = msgspec.structs.replace(GOOD, note_bytes=bytes(note))
    assert _verdict_of(rebuilt) in {"refuted", "cannot be written"}


@functools.cache
def _proven(maker_number: int, index: int) -> ProvenEntry:
    maker = (MAKER, OTHER)[maker_number]
    return bundle_of(maker, [index], Subject(entry=index)).entries[0]


places = st.tuples(st.integers(0, 1), st.integers(0, len(MAKER.lines) - 1))


@given(st.integers(0, len(MAKER.lines) - 1), places, places, st.integers(0, len(MAKER.lines) - 1))
def test_only_the_right_line_with_the_right_proof_at_the_right_place_is_proven(
    subject: int, line: tuple[int, int], path: tuple[int, int], index: int
) -> None:
    mixed = ProvenEntry(index, _proven(*line).line, _proven(*path).hashes)
    bundle = Bundle(
        subject=Subject(entry=subject), vkeys=(MAKER.vkey,), note_bytes=MAKER.checkpoint(), entries=(mixed,)
    )
    is_right = mixed == _proven(0, subject)
    assert (_verdict_of(bundle) == "proven") is is_right


@given(st.lists(st.text(max_size=80), max_size=4), st.text(max_size=80))
def test_what_a_bundle_says_of_its_keys_and_origin_proves_nothing(vkeys: list[str], shard_id: str) -> None:
    """The keys it names are not trusted: any list of them leaves the answer as it is, given the right key."""
    rebuilt = msgspec.structs.replace(GOOD, vkeys=tuple(vkeys))
    assert _verdict_of(rebuilt) in {"proven", "cannot be written"}
    alien = msgspec.structs.replace(GOOD, subject=Subject(shard_id=shard_id))
    assert (_verdict_of(alien) == "proven") is (shard_id == GOOD.subject.shard_id)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_a_bundle(data: bytes) -> None:
    with pytest.raises(BundleFormatError):
        decode(data)
