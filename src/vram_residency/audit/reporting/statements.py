"""What every report says of itself: what its words mean, and where its evidence ends."""

from __future__ import annotations

from typing import Final, Literal, get_args

Status = Literal["evidence available", "partial", "not provided by this software"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)

MEANINGS: Final[dict[Status, str]] = {
    "evidence available": (
        "the log verifies, and in this period it holds entries of every kind that bears on the control "
        "and is due in ordinary work"
    ),
    "partial": (
        "kinds of entries that are due are missing in this period, or the software sees one side of the "
        "control, or the log does not verify"
    ),
    "not provided by this software": (
        "nothing in this log and period bears on the control: show it by other means"
    ),
}
NOTICE: Final = (
    "This report lists evidence. It does not say that a standard or a law is complied with: that is a "
    "judgement about an organisation, which no software can make. Numbers are those of the standard, "
    "titles are in our own words, and the standard's own text decides."
)
LIMITS: Final = (
    (
        "A log shows what the holder of its keys recorded, and in which order. It does not show that this "
        "is true."
    ),
    "What was never sent to this log does not appear here, and its absence proves nothing.",
    (
        "Timestamps are the clock of the machine that wrote the log. Only cosignatures by witnesses prove "
        "time; this report does not look at them."
    ),
    (
        "Entries after the last checkpoint that is kept elsewhere could still be rewritten by whoever "
        "owns the machine and its keys; they are counted above as unprotected."
    ),
    (
        "Entries about memory say what driver and kernel reported, and that bytes matched when they were "
        "read: nothing about the moment after."
    ),
    "No retention period is named here: how long records must be kept follows from law and contracts.",
    (
        "This page is not signed. Whoever doubts it makes it again: the same entries, keys and "
        "checkpoints give the same statements."
    ),
)
