"""HKDF-SHA256 without salt against RFC 5869 and against a reference written from its text."""

from __future__ import annotations

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from vram_residency.core.keys import hkdf_sha256


def reference_hkdf(secret: bytes, info: bytes, size_bytes: int) -> bytes:
    """RFC 5869 sections 2.2 and 2.3, with no salt: extract, then expand."""
    pseudorandom_key = hmac.digest(bytes(32), secret, hashlib.sha256)
    output, block, counter = b"", b"", 1
    while len(output) < size_bytes:
        block = hmac.digest(pseudorandom_key, block + info + bytes([counter]), hashlib.sha256)
        output, counter = output + block, counter + 1
    return output[:size_bytes]


def test_rfc_5869_test_case_3() -> None:
    """SHA-256 with zero-length salt and info, 42 bytes of output (appendix A.3)."""
    expected = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    assert hkdf_sha256(bytes([0x0B]) * 22, info=b"", size_bytes=42).hex() == expected


@given(st.binary(min_size=1, max_size=100), st.binary(max_size=100), st.integers(1, 255 * 32))
def test_any_input_agrees_with_the_text_of_the_rfc(secret: bytes, info: bytes, size_bytes: int) -> None:
    """The library's HKDF and the RFC's formulas give the same bytes."""
    assert hkdf_sha256(secret, info=info, size_bytes=size_bytes) == reference_hkdf(secret, info, size_bytes)
