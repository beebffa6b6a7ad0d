"""The double of the audit log: it validates like the real one and can be told to fail."""

from __future__ import annotations

import pytest
from tests.audit_logs import sealed

from vram_residency import BufferFullError, InvalidEventError
from vram_residency.core import context
from vram_residency.testing import MemoryLog


def test_it_keeps_events_in_order_with_the_correlation_id_in_force():
    log = MemoryLog()
    with context.operation() as correlation_id:
        log.emit(sealed(1))
    log.emit_all([sealed(2), sealed(3)])
    assert [each.fields["shard_id"] for each in log.recorded] == ["shard-1", "shard-2", "shard-3"]
    assert [each.correlation_id for each in log.recorded] == [correlation_id, None, None]
    assert log.of_type("vram_sealed")[0]["vram_bytes"] == 1_048_576
    assert log.of_type("seal_verified") == []


def test_it_refuses_what_the_real_log_refuses():
    log = MemoryLog()
    with pytest.raises(InvalidEventError):
        log.emit(sealed(1, gpu_device=-1))
    assert log.recorded == []


def test_it_fails_as_it_was_told_until_it_is_told_otherwise():
    log = MemoryLog()
    log.fail_with(BufferFullError(5))
    with pytest.raises(BufferFullError, match="5 events"):
        log.emit(sealed(1))
    log.fail_with(None)
    log.emit(sealed(2))
    assert [each.fields["shard_id"] for each in log.recorded] == ["shard-2"]


def test_it_stands_in_for_a_log_wherever_one_is_opened_closed_and_asked():
    with MemoryLog() as log:
        assert log.is_enabled
        assert log.directory is None
        assert log.flush() is None
        assert list(log.query(event="vram_sealed")) == []
        log.tick()
        assert log.stats().accepted == 0
        log.emit(sealed(1))
        assert log.stats().accepted == 1
