"""The text form of digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.errors import InvalidInputError
from vram_residency.digest.value import GROUP_BYTES, Digest, group_count

HEX = "0123456789abcdef" * 4


@given(algorithm=st.sampled_from(["blake3", "sha256"]), data=st.binary(min_size=32, max_size=32))
def test_printing_and_parsing_are_inverse(algorithm: str, data: bytes) -> None:
    """What is printed parses to the same digest."""
    text = f"{algorithm}:{data.hex()}"
    assert str(Digest.parse(text)) == text
    assert Digest.parse(text) == Digest(algorithm, data.hex())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f"md5:{HEX}",
        f"BLAKE3:{HEX}",
        f"blake3:{HEX.upper()}",
        f"blake3:{HEX[:-1]}",
        f"blake3:{HEX}0",
        f"blake3:{HEX}\n",
        f" blake3:{HEX}",
        f"blake3 :{HEX}",
        f"sha256:{HEX[:-1]}\u0660",
        None,
        7,
        HEX.encode(),
    ],
)
def test_anything_else_is_refused(text: object) -> None:
    """There is one form only."""
    with pytest.raises(InvalidInputError, match="64 lower-case hex digits"):
        Digest.parse(text)


@given(st.text())
def test_no_text_gives_another_error(text: str) -> None:
    """Total: a digest or InvalidInputError."""
    try:
        assert str(Digest.parse(text)) == text
    except InvalidInputError as error:
        assert error.field == "digest"  # noqa: PT017


@pytest.mark.parametrize(
    ("size_bytes", "count"),
    [(0, 0), (1, 1), (GROUP_BYTES - 1, 1), (GROUP_BYTES, 1), (GROUP_BYTES + 1, 2), (10 * GROUP_BYTES, 10)],
)
def test_the_number_of_groups_is_rounded_up(size_bytes: int, count: int) -> None:
    """The last group may be short."""
    assert group_count(size_bytes) == count
