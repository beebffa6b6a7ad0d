"""What is printed and where: results on stdout, everything else on stderr (cli.md).

Nothing heavy is imported before it is used: ``rich`` costs 38 ms and only tables for people need it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Literal, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

_WIDE_COLUMNS = 400


def prepare_streams() -> None:
    """Make sure that no character and no closed stream can break a command half way."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - lives to the end
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon_stdout() -> None:
    """Drop what stdout still holds: its reader is gone, and the interpreter's last flush must not say so."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def document(value: object) -> None:
    """One JSON document on one line of stdout; called once per entry it gives NDJSON.

    Pure ASCII, so that neither an encoding nor a terminal can be harmed by what stands in it.
    """
    import json

    sys.stdout.write(json.dumps(value, ensure_ascii=True, default=_builtins) + "\n")


def line(text: str = "") -> None:
    """A line of result for people. Text from outside goes through ``safe`` first."""
    sys.stdout.write(text + "\n")


def advice(text: str) -> None:
    """What to do next: the last line of a result for people."""
    line(f"{style('Next:', 'bold')} {text}")


def raw(data: bytes) -> None:
    """Bytes, unchanged, on stdout."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def note(text: str) -> None:
    """A line on stderr."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")


def safe(text: str) -> str:
    """``text`` on one line and without control characters (audit-log.md section 5)."""
    from vram_residency.core.text import clean

    return clean(text)


def size(size_bytes: int) -> str:
    """``14.9 GB``: the same words as the narration's."""
    from vram_residency.narration import units

    return units.size(size_bytes)


def safe_entry(text: str) -> str:
    r"""``text`` of an audit entry, which is cleaned already: what it shows as ``\u{…}`` stays as it is.

    A log that was tampered with may still hold anything, so each character goes through ``safe`` alone.
    """
    from vram_residency.core.text import visible

    return visible(text)


def has_colour(stream: TextIO | None = None) -> bool:
    """Whether ``stream`` (default stdout) is a terminal that wants colour (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return not plain and (stream or sys.stdout).isatty()


def style(text: str, look: str) -> str:
    """``text`` in a colour of the terminal, ``bold`` or ``dim``; plain where no colour is wanted."""
    if not has_colour():
        return text
    return click.style(text, **({look: True} if look in {"bold", "dim"} else {"fg": look}))


def console(*, stderr: bool = False) -> Console:
    """A rich console for people; wide where no terminal limits it, so that pipes see whole lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _WIDE_COLUMNS
    plain = not has_colour(stream)
    return Console(file=stream, width=width, no_color=plain, highlight=False, markup=False, emoji=False)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    make_safe: Callable[[str], str] = safe,
    is_list: bool = False,
) -> None:
    """A table for people on stdout; every cell is made safe here.

    is_list: one line a row: on a terminal what does not fit is cut, the last two columns first.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    grid.header_style = "bold" if has_colour() else ""
    for column in columns:
        # A column that may wrap is narrowed before the others.
        grid.add_column(column, overflow="fold", no_wrap=is_list and column not in columns[-2:])
    overflow: Literal["ellipsis"] | None = "ellipsis" if is_list else None
    for row in rows:
        grid.add_row(*(Text(make_safe(cell), no_wrap=is_list, overflow=overflow) for cell in row))
    screen = console()
    with screen.capture() as drawn:
        screen.print(grid)
    for text in drawn.get().splitlines():
        line(text.rstrip())


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Give a callback ``(bytes_done, bytes_total)`` that draws one line on stderr, erased at the end.

    ``label`` is our own text. Off a terminal, or within the first second, nothing is ever drawn.
    """
    from vram_residency.cli.progress import ProgressBar

    bar = ProgressBar(label)
    try:
        yield bar.update if sys.stderr.isatty() else _no_progress
    finally:
        bar.erase()


def _no_progress(done_bytes: int, total_bytes: int) -> None:
    del done_bytes, total_bytes


def _builtins(value: object) -> object:
    """What the standard encoder does not know: msgspec structs and paths."""
    import msgspec

    return msgspec.to_builtins(value, enc_hook=os.fspath)
