"""The forms of the output: console, JSON lines, standard logging, and a user's own structlog."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest
import structlog
from tests.narration_calls import CALLS, EVERY_CALL, call

from vram_residency.core.errors import ConfigurationError
from vram_residency.narration import configure, narrate, output

MOMENT_NS = 1_759_399_200_000_000_000  # 2025-10-02T10:00:00Z


class StoppedClock:
    """Always the moment of the specification's example."""

    def now_ns(self) -> int:
        return MOMENT_NS

    def monotonic_ns(self) -> int:
        return 0


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def seal(**changed: object) -> None:
    """The call of the specification's example."""
    call("seal", worker_id="worker-gpu-0", correlation_id="req-xyz", **changed)


def put_out(**settings: object) -> str:
    """What the example looks like under these settings."""
    stream = settings.pop("stream", None) or io.StringIO()
    configure(stream=stream, clock=StoppedClock(), **settings)
    seal()
    return stream.getvalue()


def test_the_console_form_is_the_one_of_the_specification() -> None:
    """Three lines, to the letter."""
    assert put_out(form="console") == (
        "2025-10-02T10:00:00Z INFO vram-residency seal shard-abc123\n"
        "  Sealed model shard 'shard-abc123' in 1 MB VRAM on GPU 0 (2 ms)\n"
        "  worker_id=worker-gpu-0 correlation_id=req-xyz device=GPU0 duration_ms=2\n"
    )


def test_an_event_without_fields_has_two_lines() -> None:
    """No empty third one."""
    stream = io.StringIO()
    configure(stream=stream, clock=StoppedClock())
    narrate(action="audit_failed", target="two words", human="It failed")
    assert (
        stream.getvalue()
        == '2025-10-02T10:00:00Z ERROR vram-residency audit_failed "two words"\n  It failed\n'
    )


def test_a_value_that_looks_like_another_field_is_quoted() -> None:
    """Nobody can add a field to the third line."""
    stream = io.StringIO()
    configure(stream=stream)
    call("seal", model_ref="x device=GPU9", worker_id="")
    assert 'worker_id="" model_ref="x device=GPU9" device=GPU0' in stream.getvalue()


def test_the_json_form_is_one_object_a_line() -> None:
    """Every field that says something, with microseconds, and no cute line unless asked for."""
    line = put_out(form="json")
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "emitted_at": "2025-10-02T10:00:00.000000Z",
        "level": "info",
        "actor": "vram-residency",
        "action": "seal",
        "target": "shard-abc123",
        "human": "Sealed model shard 'shard-abc123' in 1 MB VRAM on GPU 0 (2 ms)",
        "worker_id": "worker-gpu-0",
        "correlation_id": "req-xyz",
        "device": "GPU0",
        "duration_ms": 2.0,
        "emitted_by": output.settings().emitted_by,
        "shard_id": "shard-abc123",
        "vram_bytes": 1048576,
    }
    assert output.settings().emitted_by.startswith("vram-residency@")


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither where NO_COLOR is set nor on a dumb terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[" not in put_out()
    assert " \x1b[32mINFO\x1b[0m vram-residency" in put_out(stream=Terminal())
    assert "\x1b[" not in put_out(stream=Terminal(), colour=False)
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" not in put_out(stream=Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in put_out(stream=Terminal())


def test_the_cute_mode_tells_the_friendly_sentence() -> None:
    """In the console form as the line, in JSON beside the plain one; without one, the plain one."""
    stream = io.StringIO()
    assert "  Tucked shard-abc123 safely into GPU0's warm 1 MB nest! 🪺\n" in put_out(mode="cute")
    event = json.loads(put_out(mode="cute", form="json"))
    assert event["cute"].startswith("Tucked ")
    assert event["human"].startswith("Sealed ")
    configure(mode="cute", stream=stream)
    narrate(action="audit_failed", target="t", human="It failed")
    assert "  It failed\n" in stream.getvalue()


@pytest.mark.parametrize("threshold", ["trace", "debug", "info", "warn", "error", "fatal", "mute"])
def test_what_is_below_the_level_is_silent(threshold: str) -> None:
    """All thirteen at every threshold."""
    order = ["trace", "debug", "info", "warn", "error", "fatal", "mute"]
    stream = io.StringIO()
    configure(level=threshold, form="json", stream=stream)
    for make in EVERY_CALL.values():
        make()
    told = {json.loads(line)["action"] for line in stream.getvalue().splitlines()}
    expected = {
        name for name, (_, _, level, *_) in CALLS.items() if order.index(level) >= order.index(threshold)
    }
    assert told == expected


def test_without_configuration_standard_logging_gets_the_events(caplog: pytest.LogCaptureFixture) -> None:
    """The sentence is the message, the fields are the record's attributes."""
    with caplog.at_level(logging.INFO, logger="vram_residency.narration"):
        seal()
        call("verify_failed")
        narrate(action="seal", target="t", human="100% sealed", name="a record has a name already")
    sealed, failed, named = caplog.records
    assert sealed.name == "vram_residency.narration"
    assert sealed.getMessage() == "Sealed model shard 'shard-abc123' in 1 MB VRAM on GPU 0 (2 ms)"
    assert (sealed.action, sealed.worker_id, sealed.vram_bytes) == ("seal", "worker-gpu-0", 1 << 20)
    assert (sealed.levelname, failed.levelname) == ("INFO", "CRITICAL")
    assert named.getMessage() == "100% sealed"
    assert named.narration_name == "a record has a name already"


def test_the_applications_logging_levels_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    """A logger at warning hears no info."""
    with caplog.at_level(logging.WARNING, logger="vram_residency.narration"):
        seal()
        call("validate_failed")
    assert [record.action for record in caplog.records] == ["validate_failed"]


def test_the_applications_structlog_is_used_and_kept() -> None:
    """Its processors get the event; its configuration is not touched, by configure() neither."""
    heard = []

    def hear(_logger: object, method: str, event: dict[str, object]) -> str:
        heard.append((method, dict(event)))
        raise structlog.DropEvent

    structlog.configure(processors=[hear])
    seal()
    call("verify_failed")
    assert [method for method, _ in heard] == ["info", "critical"]
    assert heard[0][1]["event"] == "Sealed model shard 'shard-abc123' in 1 MB VRAM on GPU 0 (2 ms)"
    assert heard[0][1]["shard_id"] == "shard-abc123"
    put_out(form="json")
    assert structlog.get_config()["processors"] == [hear]
    assert len(heard) == 2


def test_our_own_forms_do_not_configure_structlog() -> None:
    """A user who configures it later finds it as it was."""
    put_out(form="console")
    assert not structlog.is_configured()


def test_a_stream_that_cannot_show_a_character_gets_an_escape() -> None:
    """An emoji does not cost the line."""
    raw = io.BytesIO()
    configure(mode="cute", stream=io.TextIOWrapper(raw, encoding="ascii"))
    seal()
    assert b"warm 1 MB nest! \\U0001faba\n" in raw.getvalue()


def test_standard_error_is_looked_up_when_it_is_written_to(capsys: pytest.CaptureFixture[str]) -> None:
    """So that redirecting it later works."""
    configure(clock=StoppedClock())
    seal()
    assert capsys.readouterr().err.startswith("2025-10-02T10:00:00Z INFO vram-residency seal")


def test_a_failing_output_never_fails_the_operation() -> None:
    """The event is counted as lost."""
    stream = io.StringIO()
    configure(stream=stream)
    stream.close()
    before = output.lost_events()
    seal()
    assert output.lost_events() == before + 1


@pytest.mark.parametrize(("setting", "value"), [("level", "loud"), ("form", "xml"), ("mode", "grim")])
def test_an_unknown_setting_is_refused(setting: str, value: str) -> None:
    """And nothing is changed."""
    before = output.settings()
    with pytest.raises(ConfigurationError, match=f"{setting}: must be one of"):
        configure(**{setting: value})
    assert output.settings() is before


def test_uuids_are_redacted_on_request() -> None:
    """In texts; the correlation id stays what it is for."""
    stream = io.StringIO()
    uuid = "123e4567-e89b-12d3-a456-426614174000"
    configure(form="json", stream=stream, uuids=True)
    call("seal", model_ref=f"for {uuid}", correlation_id=uuid)
    event = json.loads(stream.getvalue())
    assert (event["model_ref"], event["correlation_id"]) == ("for [REDACTED]", uuid)


def test_importing_narration_is_light() -> None:
    """Loaded with the first event that is put out: structlog; never: the others."""
    code = (
        "import sys; from vram_residency import narration\n"
        "heavy = ('structlog', 'asyncio', 'cryptography', 'logging.handlers', 'rich', 'numpy')\n"
        "print([name for name in heavy if name in sys.modules])\n"
        "narration.narrate_model_sealed(shard_id='s', vram_bytes=1)\n"
        "print('structlog' in sys.modules)\n"
        "narration.configure(); narration.narrate_model_sealed(shard_id='s', vram_bytes=1)\n"
        "print('structlog' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["[]", "False", "True"]


def test_without_any_configuration_info_is_quiet_and_warnings_are_not() -> None:
    """As a library should: standard logging's last resort shows warnings on standard error."""
    code = (
        "from vram_residency import narration as n\n"
        "n.narrate_model_sealed(shard_id='s', vram_bytes=1)\n"
        "n.narrate_validation_failed(what='w', reason='r')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "Input validation failed for w: r\n")
