"""Reading the log can be an entry of its own: audit_log_accessed."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.audit_logs import FaultyFiles, sealed

from vram_residency.audit import AuditLogger, LogOptions, create_log, verify
from vram_residency.audit.events.content import accept_own, recover
from vram_residency.audit.events.own import AuditLogAccessed
from vram_residency.cli.main import main
from vram_residency.core import context
from vram_residency.core.errors import AuditWriteError, LogClosedError

ACCOUNT = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def log(tmp_path: Path) -> Path:
    create_log(tmp_path / "log", service_id="w-0", keys=tmp_path / "keys")
    return tmp_path / "log"


def _open(log: Path, **options: object) -> AuditLogger:
    chosen = LogOptions(background=False, **options)  # type: ignore[arg-type]
    return AuditLogger.open(log, service_id="w-0", keys=log.parent / "keys", options=chosen)


def _accesses(lines: Iterator[bytes]) -> list[tuple[str, dict[str, object]]]:
    entries = [json.loads(line) for line in lines]
    return [
        (entry["accessor"], json.loads(entry["query"]))
        for entry in entries
        if entry["event_type"] == "audit_log_accessed"
    ]


def test_where_configured_a_query_is_durable_before_its_first_line(log: Path) -> None:
    with _open(log, audit_queries=True) as logger:
        logger.emit(sealed(1))
        lines = logger.query(event=["vram_sealed", "audit_log_accessed"], limit=10)
        assert _accesses(iter(lines)) == [
            (ACCOUNT, {"event": ["vram_sealed", "audit_log_accessed"], "limit": 10})
        ]
    assert verify(log, keys=log.parent / "keys").verdict == "intact"


def test_the_accessor_is_the_contexts_actor(log: Path) -> None:
    token = context.actor.set({"user_id": "auditor-7", "auth_method": "m_tls"})
    try:
        with _open(log, audit_queries=True) as logger:
            assert _accesses(logger.query()) == [("auditor-7", {})]
    finally:
        context.actor.reset(token)


def test_by_default_a_query_leaves_no_entry(log: Path) -> None:
    with _open(log) as logger:
        assert _accesses(logger.query()) == []
    assert _accesses(AuditLogger.disabled().query()) == []


def test_what_was_asked_for_is_cleaned_like_any_text(log: Path) -> None:
    with _open(log) as logger:
        logger.record_access(shard="password=hunter2 \u202e")
        (line,) = logger.query(event="audit_log_accessed")
    assert b"hunter2" not in line
    assert json.loads(line)["sanitized"] == ["query"]


def test_a_query_that_cannot_be_recorded_gives_nothing(log: Path) -> None:
    files = FaultyFiles()
    logger = _open(log, audit_queries=True, files=files)
    files.free = 0
    with pytest.raises(AuditWriteError, match="nearly full"):
        logger.query()
    files.free = None
    logger.close()
    with pytest.raises(LogClosedError):
        logger.query()
    AuditLogger.disabled().record_access(shard="s")


def test_it_has_a_reserved_place_in_the_buffer_and_survives_there() -> None:
    content = accept_own(AuditLogAccessed(accessor="a", query="{}"))
    assert content.kind.is_reserved
    again = recover(content.prefix + content.payload)
    assert (again.kind.event_type, again.payload) == ("audit_log_accessed", content.payload)


@pytest.mark.filterwarnings("ignore::vram_residency.audit.KeyPlacementWarning")
def test_the_command_records_who_asked_for_what(
    log: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    command = ["audit", "query", str(log), "--event", "audit_log_accessed", "--json"]
    recording = [*command, "--record-access", "--keys", str(log.parent / "keys")]
    assert main(recording) == 0
    lines = capsysbinary.readouterr().out.splitlines()
    assert _accesses(iter(lines)) == [(ACCOUNT, {"event": ["audit_log_accessed"]})]
    with _open(log):
        assert main(recording) == 5
    assert json.loads(capsysbinary.readouterr().out)["error"]["code"] == "log_locked"
    assert main(command) == 0
    assert len(capsysbinary.readouterr().out.splitlines()) == 1
