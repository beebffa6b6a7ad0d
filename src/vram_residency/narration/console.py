"""The console form: three lines for people (narration.md, Output)."""

from __future__ import annotations

import json
import os
from typing import Final, TextIO

from vram_residency.narration.event import Value
from vram_residency.narration.units import number

#: The fields of the third line, in this order; details stay in the structured forms.
_SHOWN: Final = (
    "worker_id",
    "correlation_id",
    "session_id",
    "job_id",
    "task_id",
    "pool_id",
    "replica_id",
    "model_ref",
    "engine",
    "engine_version",
    "device",
    "error_kind",
    "queue_position",
    "retry_after_ms",
    "backoff_ms",
    "tokens_in",
    "tokens_out",
    "duration_ms",
    "trace_id",
    "span_id",
    "parent_span_id",
)
_COLOURS: Final = {"trace": "2", "debug": "2", "info": "32", "warn": "33", "error": "31", "fatal": "1;31"}
_RESET: Final = "\x1b[0m"
_SECONDS: Final = len("2025-10-02T10:00:00")


def console_form(fields: dict[str, Value], *, sentence: str, is_coloured: bool) -> str:
    """Head, sentence and fields of one event, without a newline at the end."""
    level = str(fields["level"])
    moment = f"{str(fields['emitted_at'])[:_SECONDS]}Z"
    name = level.upper()
    if is_coloured:
        name = f"\x1b[{_COLOURS.get(level, '0')}m{name}{_RESET}"
    head = f"{moment} {name} {fields['actor']} {fields['action']} {_word(fields['target'])}"
    tail = " ".join(f"{field}={_word(fields[field])}" for field in _SHOWN if field in fields)
    return f"{head}\n  {sentence}" + (f"\n  {tail}" if tail else "")


def wants_colour(stream: TextIO) -> bool:
    """Colour only on a terminal that can show it, and not where NO_COLOR is set (no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def _word(value: Value) -> str:
    if isinstance(value, str):
        # Quoted where it would look like more than one word, or like a field of its own.
        return json.dumps(value, ensure_ascii=False) if not value or set(value) & _AMBIGUOUS else value
    return number(value) if value is not None and not isinstance(value, bool) else str(value).lower()


_AMBIGUOUS: Final = frozenset(' \u00a0\u3000="')
