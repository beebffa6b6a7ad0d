"""One point of a standard: what it asks about, what evidence bears on it, and what it takes beyond."""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

StandardId = Literal["soc2", "iso27001", "gdpr", "ai-act"]
STANDARD_IDS: Final[tuple[StandardId, ...]] = get_args(StandardId)


class Standard(msgspec.Struct, frozen=True):
    """A standard's name, and what its numbered points are called."""

    name: str
    plural: str


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One point of a standard.

    ``needs`` and ``also`` name kinds of evidence (kinds.py); ``also`` are incidents and rarities, whose
    absence is no gap. ``whole``: where all ``needs`` are there, the evidence is of the very thing that the
    control is about, for the part of the system that this log covers. ``beyond``: what it asks for that no
    entry shows.
    """

    standard: StandardId
    id: str
    title: str
    needs: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    whole: bool = False
    beyond: str


def row(
    point: tuple[StandardId, str, str], needs: str = "", *, also: str = "", whole: bool = False, beyond: str
) -> Control:
    """A line of the table: standard, number and title, then the kinds of evidence by name."""
    standard, number, title = point
    return Control(
        standard=standard,
        id=number,
        title=title,
        needs=tuple(needs.split()),
        also=tuple(also.split()),
        whole=whole,
        beyond=beyond,
    )
