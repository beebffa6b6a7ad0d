"""What damage on a card looks like, by the counters at sealing and now."""

from __future__ import annotations

from typing import Any

import pytest

from vram_residency.residency.triage import looks_like

CALM = {
    "nvml": "read",
    "ecc_corrected": 3,
    "ecc_uncorrected": 0,
    "remapped_rows_corrected": 0,
    "remapped_rows_uncorrected": 0,
}


@pytest.mark.parametrize(
    ("now", "clause"),
    [
        (CALM, "it looks like a write: the card's ECC and remap counters are as at sealing"),
        (
            {**CALM, "ecc_uncorrected": 2, "remapped_rows_uncorrected": 1},
            (
                "it looks like bit rot: since sealing uncorrected ECC errors +2, "
                "rows remapped for uncorrected errors +1"
            ),
        ),
        ({**CALM, "ecc_corrected": 4}, "it looks like bit rot: since sealing corrected ECC errors +1"),
        # Counters that were reset say nothing of a write or against it; they have not risen.
        (
            {**CALM, "ecc_corrected": 0},
            "it looks like a write: the card's ECC and remap counters are as at sealing",
        ),
        ({}, "bit rot and a write look the same here: the card's ECC counters cannot be read"),
        (
            dict.fromkeys(CALM),
            "bit rot and a write look the same here: the card's ECC counters cannot be read",
        ),
    ],
    ids=["calm", "uncorrected", "corrected", "reset", "lost", "unreadable"],
)
def test_a_digest_that_differs_is_bit_rot_or_a_write(now: dict[str, Any], clause: str) -> None:
    assert looks_like("digest_mismatch", CALM, now) == clause


def test_memory_that_is_elsewhere_is_a_mapping() -> None:
    assert looks_like("not_resident", CALM, CALM) == "it looks like a swapped or changed mapping"


def test_the_host_counts_nothing_and_other_findings_need_no_explanation() -> None:
    assert looks_like("digest_mismatch", {"kind": "host"}, {"kind": "host"}) is None
    assert looks_like("read_error", CALM, CALM) is None
    assert looks_like("signature_invalid", CALM, CALM) is None
