"""Canonical JSON: one value, one sequence of bytes (residency.md section 4; RFC 8785 for strings)."""

from __future__ import annotations

import msgspec

_encoder = msgspec.json.Encoder(order="sorted")


def canonical_json(value: object) -> bytes:
    """Encode ``value`` as UTF-8 JSON with sorted keys and no spaces.

    Floats are outside the canonical form: RFC 8785's number rules are a trap that no format here needs.
    """
    return _encoder.encode(value)
