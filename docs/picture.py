"""Draws `docs/demo.svg`, the README's picture: the real output of `vram demo`, in the colours of a terminal.

``python docs/picture.py`` runs the demo on a pseudo-terminal and draws what it prints.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

PICTURE = Path(__file__).with_name("demo.svg")
COLUMNS = 84
# The font is the reader's own: a picture must not fetch one from elsewhere.
_FONTS = re.compile(r"@font-face \{\{.*?\}\}", re.DOTALL)


def terminal_output(*command: str) -> str:
    """What a command prints when it believes that somebody watches."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environment.pop("NO_COLOR", None)
    captured = bytearray()
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ) as running:
        os.close(theirs)
        with contextlib.suppress(OSError):  # a pseudo-terminal whose other end is closed reads as an error
            while data := os.read(ours, 65536):
                captured += data
    if running.returncode:
        sys.exit(f"{' '.join(command)} ended with status {running.returncode}")
    return captured.decode().replace("\r\n", "\n")


def main() -> None:
    """Run the demo and draw it."""
    from rich._export_format import CONSOLE_SVG_FORMAT
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print("$ vram demo", style="bold")
    console.print(Text.from_ansi(terminal_output("vram", "demo")))
    form = _FONTS.sub("", CONSOLE_SVG_FORMAT)
    PICTURE.write_text(console.export_svg(title="vram demo", unique_id="demo", code_format=form), "utf-8")


if __name__ == "__main__":
    main()
