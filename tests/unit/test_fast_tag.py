"""Keys of the fast tag, and the passes that live and die with them."""

from __future__ import annotations

import pickle
import struct

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from tests.reference import tag_reference

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest import passes
from vram_residency.digest.passes import FullPass
from vram_residency.digest.tag import KEY_BYTES, SPREAD_KEY_BYTES, TagKey, taken
from vram_residency.digest.value import GROUP_BYTES, VALUE_BYTES

SEED = b"s" * 32
SEAL_ID = "ab" * 16
OTHER_ID = "cd" * 16
SIZE = GROUP_BYTES + 1


def new_key(seed: bytes = SEED) -> TagKey:
    return TagKey.derive(bytearray(seed))


def sums(fill: int = 1, groups: int = 2) -> bytearray:
    return bytearray([fill]) * (VALUE_BYTES * groups)


class Device:
    """Counts how often its copy of the key is wiped."""

    def __init__(self) -> None:
        self.wipes = 0

    def wipe(self) -> None:
        self.wipes += 1


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def full(device: Device) -> FullPass:
    """A pass that has admitted two shards."""
    made = FullPass(7, new_key(), device.wipe)
    for seal_id in (SEAL_ID, OTHER_ID):
        assert made.admit(seal_id, size_bytes=SIZE, sums=sums(), is_digest_right=True)
    return made


def test_the_key_is_derived_as_the_spec_says() -> None:
    """32,774 words by derive_key in XOF mode."""
    words = struct.unpack_from("<32774I", new_key().universal())
    assert words == tag_reference.key_words(SEED)
    assert len(new_key().universal()) == KEY_BYTES


def test_the_spread_key_holds_each_chunk_s_window_side_by_side() -> None:
    """Piece p of the window of chunk c stands at p * 128 + c."""
    key = new_key()
    plain, spread = key.universal(), key.spread()
    assert len(spread) == SPREAD_KEY_BYTES
    for piece in (0, 1, 63, 64, 65):
        for chunk in (0, 1, 64, 127):
            there = 16 * (piece * 128 + chunk)
            here = 16 * (64 * chunk + piece)
            assert spread[there : there + 16] == plain[here : here + 16]


def test_the_seed_is_wiped_when_the_keys_are_there() -> None:
    """And when it is refused for its size it is the caller's still."""
    seed = bytearray(SEED)
    TagKey.derive(seed)
    assert seed == bytes(32)
    with pytest.raises(InvalidInputError, match="must have 32 bytes"):
        TagKey.derive(bytearray(31))


def test_two_seeds_have_nothing_in_common() -> None:
    """One pass says nothing of the next."""
    assert new_key().universal() != new_key(b"t" * 32).universal()


@pytest.mark.parametrize("use", ["universal", "spread", "tag"])
def test_a_wiped_key_refuses_to_work(use: str) -> None:
    """Zeros would be a key that everybody knows."""
    key = new_key()
    key.wipe()
    key.wipe()
    calls = {
        "universal": key.universal,
        "spread": key.spread,
        "tag": lambda: key.tag(SEAL_ID, pass_number=1, size_bytes=1, group_values=sums(groups=1)),
    }
    assert key.is_wiped
    with pytest.raises(InvalidInputError, match="has been wiped"):
        calls[use]()


def test_a_key_shows_and_pickles_nothing() -> None:
    """It stays in its process."""
    key = new_key()
    assert repr(key) == "TagKey(is_wiped=False)"
    with pytest.raises(TypeError, match="stays in its process"):
        pickle.dumps(key)


def test_taking_a_secret_overwrites_where_it_came_from() -> None:
    """Python keeps bytes as they are; these are given up."""
    original = blake3(b"secret").digest()
    expected = bytes(bytearray(original))
    assert taken(original) == expected
    assert original == bytes(32)


@given(
    first=st.tuples(
        st.integers(1, 2**64 - 1), st.integers(1, GROUP_BYTES), st.binary(min_size=32, max_size=32)
    ),
    second=st.tuples(
        st.integers(1, 2**64 - 1), st.integers(1, GROUP_BYTES), st.binary(min_size=32, max_size=32)
    ),
)
def test_pass_length_and_sums_all_go_into_the_tag(
    first: tuple[int, int, bytes], second: tuple[int, int, bytes]
) -> None:
    """Two tags are the same only where all three are."""
    key = new_key()
    tags = [
        key.tag(SEAL_ID, pass_number=number, size_bytes=size, group_values=bytearray(values))
        for number, size, values in (first, second)
    ]
    assert (tags[0] == tags[1]) == (first == second)


def test_the_seal_goes_into_the_tag() -> None:
    """The same bytes under another seal have another tag."""
    key = new_key()
    one, other = (
        key.tag(seal_id, pass_number=1, size_bytes=SIZE, group_values=sums())
        for seal_id in (SEAL_ID, OTHER_ID)
    )
    assert one != other


@pytest.mark.parametrize("groups", [0, 1, 3])
def test_sums_of_another_number_of_groups_are_refused(groups: int) -> None:
    """They would belong to other bytes."""
    with pytest.raises(InvalidInputError, match="do not belong"):
        new_key().tag(SEAL_ID, pass_number=1, size_bytes=SIZE, group_values=sums(groups=groups))


def test_an_unchanged_shard_matches_again_and_again(full: FullPass) -> None:
    """And the sums are gone each time."""
    for _ in range(3):
        read = sums()
        assert full.check(SEAL_ID, size_bytes=SIZE, sums=read) == "match"
        assert not any(read)


@pytest.mark.parametrize(
    ("size", "fill"), [pytest.param(SIZE, 2, id="content"), pytest.param(SIZE + 1, 1, id="length")]
)
def test_the_first_mismatch_ends_the_key_for_all_shards(
    full: FullPass, device: Device, size: int, fill: int
) -> None:
    """Here and on the device, once."""
    read = sums(fill)
    assert full.check(SEAL_ID, size_bytes=size, sums=read) == "mismatch"
    assert (any(read), full.is_over, full.key.is_wiped, device.wipes) == (False, True, True, 1)
    assert full.check(OTHER_ID, size_bytes=SIZE, sums=sums()) == "unknown"
    full.end()
    assert device.wipes == 1


def test_a_shard_that_was_not_in_the_pass_is_unknown(full: FullPass) -> None:
    """Not a mismatch: nothing was ever said of it."""
    read = sums()
    assert full.check("ef" * 16, size_bytes=SIZE, sums=read) == "unknown"
    assert (any(read), full.is_over) == (False, False)


def test_a_tag_counts_only_with_a_right_digest(full: FullPass, device: Device) -> None:
    """A wrong digest is a mismatch like any other; the pass admits nothing after it."""
    read = sums()
    assert not full.admit("ef" * 16, size_bytes=SIZE, sums=read, is_digest_right=False)
    assert (any(read), full.is_over, device.wipes) == (False, True, 1)
    assert not full.admit(SEAL_ID, size_bytes=SIZE, sums=sums(), is_digest_right=True)
    assert device.wipes == 1


def test_the_key_goes_with_the_last_shard(full: FullPass, device: Device) -> None:
    """It has nothing left to guard."""
    full.forget(SEAL_ID)
    assert full.check(OTHER_ID, size_bytes=SIZE, sums=sums()) == "match"
    full.forget(OTHER_ID)
    assert (full.is_over, device.wipes) == (True, 1)


def test_tags_are_compared_in_constant_time(full: FullPass, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the one function that does."""
    compared: list[int] = []
    monkeypatch.setattr(passes.hmac, "compare_digest", lambda a, b: compared.append(len(a)) or a == b)
    assert full.check(SEAL_ID, size_bytes=SIZE, sums=sums()) == "match"
    assert compared == [32]
