"""The manager with a real audit log: what it records is on disk, chained, and tells the same story."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import FaultyFiles, abandon, failing, open_log, read_entries, reference_check
from tests.shards import CAPACITY, TOKEN, WORKER, altered, memfds, raw_bytes, write_model

from vram_residency import (
    AuditError,
    AuditLogger,
    BufferFullError,
    SealVerificationError,
    UnknownShardError,
    VramManager,
)
from vram_residency.core import context
from vram_residency.residency import ManagerOptions
from vram_residency.seal import open_attestation
from vram_residency.testing import FaultDevice, capture_narration


@pytest.fixture
def logger(tmp_path: Path) -> Iterator[AuditLogger]:
    with open_log(tmp_path, background=True) as opened:
        yield opened


def manager_with(logger: AuditLogger, **options: Any) -> tuple[VramManager, FaultDevice]:
    device = FaultDevice(capacity_bytes=CAPACITY)
    choices = ManagerOptions(**options)
    return VramManager.new_with_token(TOKEN, 0, logger, WORKER, device=device, options=choices), device


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """The entries, each with its correlation id, but those of the log itself."""
    own = {"log_opened", "log_closed", "epoch_closed"}
    return [entry for entry in read_entries(folder) if entry["event_type"] not in own]


def test_a_whole_life_is_on_disk_in_order_and_verifies(tmp_path: Path, logger: AuditLogger):
    path = write_model(tmp_path, 200_000, 100_000)
    manager, device = manager_with(logger)
    with manager, capture_narration() as story:
        context.correlation_id.set("req-life")  # type: ignore[arg-type]
        shard = manager.seal_file(path, shard_id="life")
        manager.verify_sealed(shard)
        with pytest.raises(UnknownShardError):
            manager.verify_sealed(altered(shard, digest="blake3:"))
        device.flip_bit("life", 290_000)
        with pytest.raises(SealVerificationError):
            manager.verify_sealed(shard)
        context.correlation_id.set(None)
    logger.close()
    reference_check(tmp_path)
    entries = entries_of(tmp_path)
    assert [entry["event_type"] for entry in entries] == [
        "policy_violation",
        "vram_allocated",
        "vram_sealed",
        "seal_verified",
        "seal_verification_failed",
        "seal_verification_failed",
        "shard_quarantined",
        "vram_deallocated",
    ]
    by_request = [entry for entry in entries if entry.get("correlation_id") == "req-life"]
    assert len(by_request) == 6
    assert {each.correlation_id for each in story.events if each.action == "seal"} == {"req-life"}
    forged, damaged = (entry for entry in entries if entry["event_type"] == "seal_verification_failed")
    assert (forged["reason"], forged["action_taken"]) == ("signature_invalid", "request_rejected")
    assert damaged["tensors"] == ["t1"]
    assert damaged["first_bad_offset"] <= 290_000 <= damaged["last_bad_offset"]


def test_nothing_secret_and_no_address_reaches_the_disk(tmp_path: Path, logger: AuditLogger):
    manager, device = manager_with(logger)
    with manager:
        # Two groups: the value of a single one would be the digest itself.
        shard = manager.seal_model(raw_bytes(200_000))
        record = manager._parts.registry.find(shard.shard_id)
        device.flip_bit(shard.shard_id, 0)
        with pytest.raises(SealVerificationError):
            manager.verify_sealed(shard)
        address = record.content._memory._region._address
        secrets = [TOKEN, record.signature.hex(), f"{address:x}", str(address)]
        secrets += [record.group_values[:32].hex(), record.group_values[32:].hex()]
    logger.close()
    text = "".join(path.read_text() for path in (tmp_path / "log" / "entries").iterdir())
    assert [secret for secret in secrets if secret in text] == []
    assert "0x" not in text


def test_damage_is_on_disk_when_the_error_is_raised(tmp_path: Path):
    logger = open_log(tmp_path)
    manager, device = manager_with(logger)
    shard = manager.seal_model(raw_bytes(1000))
    device.flip_bit(shard.shard_id, 0)
    with pytest.raises(SealVerificationError):
        manager.verify_sealed(shard)
    # Read while the log is open and nothing but the damage has flushed it.
    assert [entry["event_type"] for entry in entries_of(tmp_path)][-2:] == [
        "seal_verification_failed",
        "shard_quarantined",
    ]
    manager.close()
    logger.close()


def test_a_full_buffer_loses_events_but_no_operation_and_the_loss_is_on_record(tmp_path: Path):
    logger = open_log(tmp_path, capacity=1, reserved=0)
    manager, _device = manager_with(logger)
    with capture_narration() as story:
        shard = manager.seal_model(raw_bytes(1000))
        manager.verify_sealed(shard)
    assert manager.audit_failures > 0
    assert {each.error_kind for each in story.events if each.action == "audit_failed"} == {"BufferFullError"}
    manager.close()
    logger.close()
    dropped = [entry for entry in read_entries(tmp_path) if entry["event_type"] == "events_dropped"]
    assert sum(entry["count"] for entry in dropped) == manager.audit_failures
    reference_check(tmp_path)


def test_where_audit_is_required_a_full_buffer_fails_the_seal(tmp_path: Path):
    logger = open_log(tmp_path, capacity=1, reserved=0)
    manager, _device = manager_with(logger, audit_required=True)
    before = memfds()
    with pytest.raises(BufferFullError):
        manager.seal_model(raw_bytes(1000), shard_id="m")
    assert memfds() == before
    assert (manager.shards(), manager.used_vram()) == ([], 0)
    logger.flush()
    manager.close()
    logger.close()


@pytest.mark.parametrize("is_required", [True, False])
def test_a_log_that_was_closed_too_early_is_an_audit_failure_like_others(tmp_path: Path, is_required: bool):
    logger = open_log(tmp_path)
    manager, _device = manager_with(logger, audit_required=is_required)
    shard = manager.seal_model(raw_bytes(1000))
    logger.close()
    if is_required:
        with pytest.raises(AuditError, match="closed"):
            manager.verify_sealed(shard)
    else:
        assert manager.verify_sealed(shard).scope == "full"
    manager.close()
    assert manager.audit_failures > 0


def test_a_disk_that_fails_hides_no_damage(tmp_path: Path):
    files = FaultyFiles()
    logger = open_log(tmp_path, files=files)
    manager, device = manager_with(logger)
    shard = manager.seal_model(raw_bytes(1000))
    device.flip_bit(shard.shard_id, 0)
    files.on_call = failing("write", OSError(28, "No space left on device"))
    with capture_narration() as story, pytest.raises(SealVerificationError):
        manager.verify_sealed(shard)
    story.one(action="audit_failed", target="flush")
    manager.close()
    logger.close()
    assert "seal_verification_failed" in [entry["event_type"] for entry in entries_of(tmp_path)]


def test_an_attestation_names_the_entry_that_proves_it(tmp_path: Path, logger: AuditLogger):
    manager, _device = manager_with(logger)
    with manager:
        shard = manager.seal_model(raw_bytes(1000))
        envelope = manager.attest(shard, nonce="a question")
        attestation = open_attestation(
            envelope, public_key=manager.attestation_public_key, nonce="a question"
        )
    assert attestation.audit_index is not None
    entry = read_entries(tmp_path)[attestation.audit_index]
    assert (entry["event_type"], entry["shard_id"]) == ("seal_verified", shard.shard_id)
    assert json.loads(json.dumps(entry))["digest"] == shard.digest


def test_what_a_death_leaves_behind_is_still_a_sound_log(tmp_path: Path):
    logger = open_log(tmp_path)
    manager, _device = manager_with(logger)
    manager.seal_model(raw_bytes(1000))
    logger.flush()
    abandon(logger)
    manager.close()
    with open_log(tmp_path):
        pass
    assert "vram_sealed" in [entry["event_type"] for entry in reference_check(tmp_path)]
