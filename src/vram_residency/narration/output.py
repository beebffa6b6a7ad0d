"""Where narration goes: a structlog chain that ends in JSON lines, the console form, or standard logging.

The process's structlog and logging configurations are used and never changed. structlog is imported when
the first event is really put out.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, MutableMapping
from typing import Any, Final, Literal, NamedTuple, TextIO, get_args

from vram_residency.core.clock import SYSTEM_CLOCK, Clock
from vram_residency.core.errors import ConfigurationError
from vram_residency.core.version import __version__
from vram_residency.narration.event import NarrationEvent
from vram_residency.narration.gate import gate
from vram_residency.narration.vocabulary import LEVELS, OURSELVES

Form = Literal["console", "json", "logging"]
Mode = Literal["human", "cute"]

LOGGER_NAME: Final = "vram_residency.narration"
_LEVEL_METHODS: Final = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "error": "error",
    "fatal": "critical",
}
#: Attributes that a LogRecord has already; ``extra`` must not name them.
_RECORD_NAMES: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}

_Fields = MutableMapping[str, Any]
_logger = logging.getLogger(LOGGER_NAME)


class Settings(NamedTuple):
    """One configuration, replaced whole."""

    form: Form = "logging"
    mode: Mode = "human"
    stream: TextIO | None = None
    colour: bool | None = None
    uuids: bool = False
    emitted_by: str = f"{OURSELVES}@{__version__}"
    clock: Clock = SYSTEM_CLOCK


_lock = threading.Lock()  # guards writing to the stream, so that lines stay whole
_settings = Settings()
_chain: Callable[[NarrationEvent], None] | None = None
_lost_events = 0


def configure(
    *,
    level: str = "info",
    form: Form = "console",
    mode: Mode = "human",
    stream: TextIO | None = None,
    colour: bool | None = None,
    uuids: bool = False,
    emitted_by: str | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> None:
    """Say where narration goes; what is not named returns to the default shown.

    ``form``: ``"console"`` or ``"json"`` lines to ``stream`` (standard error at the time of writing), or
    ``"logging"``, what holds without any configuration: the application's structlog where it has configured
    that, else the standard logger ``vram_residency.narration``. ``level`` is the lowest level that is put
    out. ``mode="cute"`` tells the friendly sentences. ``colour`` None means: on a terminal, unless NO_COLOR
    is set. ``uuids`` redacts UUIDs in texts as well. Raises ConfigurationError.
    """
    global _settings, _chain  # noqa: PLW0603 - one configuration per process
    for setting, value, allowed in (
        ("level", level, tuple(LEVELS)),
        ("form", form, get_args(Form)),
        ("mode", mode, get_args(Mode)),
    ):
        if value not in allowed:
            raise ConfigurationError(setting, f"must be one of {', '.join(allowed)}")
    by = Settings().emitted_by if emitted_by is None else emitted_by
    _settings = Settings(form, mode, stream, colour, uuids, by, clock)
    _chain = None
    gate.set_level(LEVELS[level])


def settings() -> Settings:
    """The configuration in force."""
    return _settings


def lost_events() -> int:
    """How many events an output could not take; narration never fails the operation it tells of."""
    return _lost_events


def note_lost(count: int) -> None:
    """Count events that a listener could not take."""
    global _lost_events  # noqa: PLW0603 - as in put_out()
    _lost_events += count


def accepts(level: int) -> bool:
    """Whether the output takes an event of this level, which the gate has let pass."""
    return _settings.form != "logging" or _logger.isEnabledFor(level) or _users_structlog()


def put_out(event: NarrationEvent) -> None:
    """Give one event to the configured output. Raises nothing."""
    global _chain, _lost_events  # noqa: PLW0603 - built at the first event
    try:
        if _settings.form == "logging" and _users_structlog():
            _to_users_structlog(event)
            return
        if _chain is None:
            _chain = _built(_settings)
        _chain(event)
    except Exception:  # noqa: BLE001 - whatever a foreign handler or stream does, the operation goes on
        _lost_events += 1


def _built(chosen: Settings) -> Callable[[NarrationEvent], None]:
    import structlog

    if chosen.form == "logging":
        log = structlog.wrap_logger(
            _logger,
            processors=[_record_names, structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.BoundLogger,
        )
        return lambda event: _call(log, event, chosen.mode)
    render = (
        structlog.processors.JSONRenderer(serializer=_json_line)
        if chosen.form == "json"
        else _console(chosen)
    )
    log = structlog.wrap_logger(
        _Stream(chosen.stream), processors=[_as_fields, render], wrapper_class=structlog.BoundLogger
    )
    return lambda event: log.write(_sentence(event, chosen.mode), **_fields(event, chosen.mode))


def _sentence(event: NarrationEvent, mode: Mode) -> str:
    """The line to show: a missing variant falls back to the plain one."""
    return event.cute if mode == "cute" and event.cute else event.human


def _fields(event: NarrationEvent, mode: Mode) -> dict[str, Any]:
    hidden = "" if mode == "cute" else "cute"
    return {name: value for name, value in event.as_dict().items() if name != hidden}


def _as_fields(_wrapped: object, _method: str, fields: _Fields) -> _Fields:
    fields["sentence"] = fields.pop("event")
    return fields


def _json_line(fields: _Fields, **_options: object) -> str:
    import msgspec

    fields.pop("sentence")
    return msgspec.json.encode(fields).decode()


def _console(chosen: Settings) -> Callable[[object, str, _Fields], str]:
    from vram_residency.narration.console import console_form, wants_colour

    def render(_wrapped: object, _method: str, fields: _Fields) -> str:
        stream = chosen.stream or sys.stderr
        is_coloured = wants_colour(stream) if chosen.colour is None else chosen.colour
        return console_form(dict(fields), sentence=fields["sentence"], is_coloured=is_coloured)

    return render


def _record_names(_wrapped: object, _method: str, fields: _Fields) -> _Fields:
    return {f"narration_{name}" if name in _RECORD_NAMES else name: value for name, value in fields.items()}


def _call(log: Any, event: NarrationEvent, mode: Mode) -> None:
    fields = _fields(event, mode)
    method = _LEVEL_METHODS[str(fields.pop("level"))]
    sentence = _sentence(event, mode)
    if fields["human"] == sentence:
        del fields["human"]  # it is the message
    getattr(log, method)(sentence, **fields)


def _users_structlog() -> bool:
    structlog = sys.modules.get("structlog")
    return structlog is not None and bool(structlog.is_configured())


def _to_users_structlog(event: NarrationEvent) -> None:
    import structlog

    _call(structlog.get_logger(LOGGER_NAME), event, _settings.mode)


class _Stream:
    """What structlog writes to: whole lines, to the stream that is standard error now if none was named."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, line: str) -> None:
        stream = self._stream or sys.stderr
        encoding = getattr(stream, "encoding", None) or "utf-8"
        printable = line.encode(encoding, "backslashreplace").decode(encoding)
        with _lock:
            stream.write(f"{printable}\n")
            stream.flush()
