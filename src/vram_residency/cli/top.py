"""``vram top``: the running worker, live: room, shards, and what happens as it happens."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from vram_residency.cli import output
from vram_residency.cli.connection import worker_option
from vram_residency.cli.options import json_option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from vram_residency.worker.client import WorkerClient
    from vram_residency.worker.wire import Handle, Status

_FEED_LINES = 12
_BAR_COLUMNS = 30


class _Picture(NamedTuple):
    """The worker at one moment."""

    status: Status
    shards: list[Handle]


@click.command()
@click.option("--interval", metavar="S", type=click.FloatRange(min=0.1), default=1.0, show_default=True)
@click.option(
    "--count", metavar="N", type=click.IntRange(min=1), help="End after N pictures [default: never]."
)
@worker_option
@json_option
def top(*, interval: float, count: int | None, worker: WorkerClient, as_json: bool) -> None:
    """Watch the running worker: room, shards, last verification, events.

    Off a terminal, and with --json, pictures follow one another. Ctrl-C ends it.

    \b
    Example:
      vram top
      vram top --count 1 --json
    """
    pictures = _pictures(worker, interval, count)
    if as_json:
        for picture in pictures:
            output.document({"status": picture.status, "shards": picture.shards})
            sys.stdout.flush()
    elif not sys.stdout.isatty():
        for picture in pictures:
            for text in lines(picture, ()):
                output.line(text)
    else:
        with suppress(KeyboardInterrupt):
            _watch(pictures, Feed(worker))


def _pictures(worker: WorkerClient, interval_s: float, count: int | None) -> Iterator[_Picture]:
    taken = 0
    while True:
        yield _Picture(worker.status(), worker.shards())
        taken += 1
        if taken == count:
            return
        time.sleep(interval_s)


def _watch(pictures: Iterator[_Picture], feed: Feed) -> None:
    from rich.live import Live
    from rich.text import Text

    def drawn(picture: _Picture) -> RenderableType:
        return Text.from_ansi("\n".join(lines(picture, feed.lines)), no_wrap=True, overflow="ellipsis")

    with Live(console=output.console(), screen=True, auto_refresh=False) as screen:
        for picture in pictures:
            screen.update(drawn(picture), refresh=True)


class Feed:
    """The newest lines of what happens, read in a thread; a worker without a feed has none."""

    def __init__(self, worker: WorkerClient) -> None:
        self.lines: deque[str] = deque(maxlen=_FEED_LINES)
        self._worker = worker
        threading.Thread(target=self._follow, name="vram-top", daemon=True).start()

    def _follow(self) -> None:
        from vram_residency.core.errors import WorkerError

        try:
            for name, data in self._worker.events():
                text = event_line(name, data)
                if text:
                    self.lines.append(text)
        except WorkerError as error:
            self.lines.append(output.safe(f"no events: {error}"))


def event_line(name: str, data: Any) -> str:
    """An event of the feed on one line; empty for one that is for programs alone."""
    if not isinstance(data, dict):
        return ""
    moment = str(data.get("emitted_at") or data.get("timestamp") or "")[11:19]
    words = data.get("human") or data.get("event_type")
    return "" if words is None else output.safe(f"{moment} {name:<8} {words}")


def lines(picture: _Picture, feed: Any) -> list[str]:
    """A picture as text."""
    from vram_residency.cli import status

    capacity = picture.status.capacity
    return [
        *status.lines(picture.status),
        f"  room    {_bar(capacity.used_bytes, capacity.total_bytes - capacity.headroom_bytes)}",
        "",
        *(_shard_line(handle) for handle in picture.shards),
        "",
        *feed,
    ]


def _bar(used_bytes: int, usable_bytes: int) -> str:
    share = min(used_bytes / usable_bytes, 1.0) if usable_bytes > 0 else 1.0
    filled = round(share * _BAR_COLUMNS)
    return "█" * filled + "░" * (_BAR_COLUMNS - filled) + f" {share:4.0%}"


def _shard_line(handle: Handle) -> str:
    look = "green" if handle.state == "sealed" else "red"
    state = output.style(handle.state.ljust(11), look)
    verified = handle.last_full_verification[:19].replace("T", " ")
    size = output.size(handle.vram_bytes)
    return f"  {state} {size:>9}  verified {verified}  {output.safe(handle.handle_id)}"
