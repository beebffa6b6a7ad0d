"""Opening a device that is wanted and not there (residency.md section 6)."""

from __future__ import annotations

import pytest

from vram_residency import AuditWriteError, DeviceLostError, VramManager
from vram_residency.testing import MemoryLog, Story


def test_a_gpu_that_is_required_and_not_there_is_a_recorded_violation(narration: Story):
    log = MemoryLog()
    with pytest.raises(DeviceLostError, match="cuda:3"):
        VramManager.new_with_token("a seal token of some length", 3, log, "worker-1", device="cuda")
    (violation,) = log.of_type("policy_violation")
    assert (violation["policy"], violation["action_taken"]) == ("gpu_required", "worker_stopped")
    assert violation["worker_id"] == "worker-1"
    narration.one(action="policy_violation", level="fatal")


def test_a_log_whose_writer_fails_in_the_background_is_narrated_and_counted(narration: Story):
    log = MemoryLog()
    with VramManager.new_with_token("a seal token of some length", 0, log, device="host") as manager:
        log.fail_write(AuditWriteError("audit/entries/0.jsonl", "write", "No space left on device"))
        assert manager.audit_failures == 1
    told = narration.one(action="audit_failed", level="error")
    assert told["target"] == "write"
    assert told["error_kind"] == "AuditWriteError"
