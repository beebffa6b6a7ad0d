"""AuditLogger: what emit, flush, durable events, time and closing promise."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
from tests.audit_logs import (
    SERVICE,
    ManualClock,
    event_types,
    make_log,
    open_log,
    read_entries,
    read_lines,
    reference_check,
    sealed,
)

from vram_residency.audit.events.base import Actor, Success
from vram_residency.audit.events.family import AuthFailure, AuthSuccess, InferenceExecuted
from vram_residency.audit.events.own import EpochClosed
from vram_residency.audit.events.vram import PolicyViolation, SealVerificationFailed, SealVerified
from vram_residency.audit.format import tree
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.writing.options import LogOptions
from vram_residency.audit.writing.placement import KeyPlacementWarning
from vram_residency.core import context
from vram_residency.core.errors import (
    BufferFullError,
    ConfigurationError,
    InvalidEventError,
    InvalidInputError,
    LogClosedError,
    LogLockedError,
)


def _violation() -> PolicyViolation:
    return PolicyViolation(
        policy="vram_only",
        violation="host_memory",
        details="",
        severity="HIGH",
        worker_id=SERVICE,
        action_taken="worker_stopped",
    )


def test_events_stand_in_the_order_of_emit_between_opening_and_closing(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger:
        for number in range(5):
            assert logger.emit(sealed(number)) is None
    entries = reference_check(tmp_path)
    assert event_types(tmp_path) == ["log_opened", *["vram_sealed"] * 5, "log_closed", "epoch_closed"]
    assert [entry["shard_id"] for entry in entries[1:6]] == [f"shard-{number}" for number in range(5)]
    assert entries[-2]["reason"] == "closed"


def test_an_entry_carries_the_loggers_own_clock_service_and_key(tmp_path: Path) -> None:
    new = make_log(tmp_path, clock=ManualClock())
    with open_log(tmp_path, clock=ManualClock()) as logger:
        logger.emit(sealed(claimed_at="1999-01-01T00:00:00Z"))
    line, entry = read_lines(tmp_path)[1], read_entries(tmp_path)[1]
    assert entry["timestamp"] == "2025-10-09T08:53:20.000000Z"
    assert list(entry)[-2:] == ["claimed_at", "mac"]
    assert entry["claimed_at"] == "1999-01-01T00:00:00Z"
    assert entry["audit_id"] == new.vkey.split("+")[1] + "-1"
    assert line.startswith(b'{"index":1,"timestamp":"')


def test_a_durable_emit_gives_a_receipt_of_what_stands_in_the_segment(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger:
        logger.emit(sealed(1))
        receipt = logger.emit(sealed(2), durable=True)
        assert receipt is not None
        line = read_lines(tmp_path)[receipt.index]
        assert receipt.leaf_hash == tree.leaf_hash(line).hex()
        assert receipt.audit_id.encode() in line
        assert b"shard-2" in line


def test_emit_all_waits_for_room_and_gives_a_receipt_for_each(tmp_path: Path) -> None:
    with open_log(tmp_path, capacity=7, reserved=0) as logger:
        receipts = logger.emit_all(sealed(number) for number in range(50))
        assert [receipt.index for receipt in receipts] == list(range(1, 51))
        assert logger.stats().dropped == 0
        assert logger.emit_all([]) == []
    entries = reference_check(tmp_path)
    assert [entry["shard_id"] for entry in entries[1:51]] == [f"shard-{number}" for number in range(50)]


def test_flush_returns_a_checkpoint_over_what_was_emitted(tmp_path: Path) -> None:
    with open_log(tmp_path, clock=ManualClock()) as logger:
        logger.emit(sealed())
        checkpoint = logger.flush()
        assert checkpoint is not None
        assert checkpoint.size == 2
        assert bytes(checkpoint) == (tmp_path / "log" / "checkpoint").read_bytes()


def test_checkpoints_are_signed_at_most_once_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        sizes = []
        for number in range(8):
            logger.emit(sealed(number))
            checkpoint = logger.flush()
            assert checkpoint is not None
            sizes.append(checkpoint.size)
            clock.advance(0.25)
        assert sizes == [2, 2, 2, 2, 6, 6, 6, 6]


def test_entries_that_nobody_flushes_are_written_after_a_second_and_signed_a_second_later(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        logger.flush()
        logger.emit(sealed())
        logger.tick()
        clock.advance(0.9)
        logger.tick()
        assert len(read_lines(tmp_path)) == 1
        clock.advance(0.1)
        logger.tick()
        assert len(read_lines(tmp_path)) == 2
        clock.advance(1)
        logger.tick()
        assert logger.stats().checkpoint_size == 2


def test_a_full_batch_and_a_critical_event_do_not_wait(tmp_path: Path) -> None:
    with open_log(tmp_path, clock=ManualClock(), max_events=3) as logger:
        for number in range(3):
            logger.tick()
            assert len(read_lines(tmp_path)) == 1
            logger.emit(sealed(number))
        logger.tick()
        assert len(read_lines(tmp_path)) == 4
        logger.emit(_violation())
        logger.tick()
        assert len(read_lines(tmp_path)) == 5


def test_an_epoch_ends_when_its_time_is_over_also_in_silence(tmp_path: Path) -> None:
    clock = ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        for _ in range(3):
            clock.advance(899)
            logger.tick()
            clock.advance(1)
            logger.tick()
            logger.tick()
    entries = reference_check(tmp_path)
    closed = [entry for entry in entries if entry["event_type"] == "epoch_closed"]
    assert [entry["epoch"] for entry in closed] == [0, 1, 2, 3]
    assert [entry["index"] for entry in closed] == [1, 2, 3, 5]


def test_a_machine_that_slept_closes_its_epoch_by_the_wall_clock(tmp_path: Path) -> None:
    clock = ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        clock.step(3 * 3600)
        logger.tick()
        assert logger.stats().epoch == 1


def test_a_clock_that_steps_back_is_an_entry_right_before(tmp_path: Path) -> None:
    clock = ManualClock()
    with open_log(tmp_path, clock=clock) as logger:
        logger.emit(sealed(1))
        clock.step(-0.5)
        logger.emit(sealed(2))
        logger.emit(sealed(3))
        clock.step(-0.000_001)
    entries = reference_check(tmp_path)
    assert event_types(tmp_path)[1:7] == [
        "vram_sealed",
        "clock_stepped_back",
        "vram_sealed",
        "vram_sealed",
        "clock_stepped_back",
        "log_closed",
    ]
    assert [entry["by_us"] for entry in entries if "by_us" in entry] == [500_000, 1]
    for before, entry in itertools.pairwise(entries):
        if entry["event_type"] != "clock_stepped_back":
            assert before["timestamp"] <= entry["timestamp"]


def test_the_epochs_end_may_be_where_the_clock_stepped_back(tmp_path: Path) -> None:
    clock = ManualClock()
    logger = open_log(tmp_path, clock=clock)
    clock.advance(900)
    clock.step(-5000)
    logger.tick()
    logger.close()
    reference_check(tmp_path)
    assert event_types(tmp_path)[1:3] == ["clock_stepped_back", "epoch_closed"]


def test_a_full_buffer_refuses_counts_and_records_the_loss(tmp_path: Path) -> None:
    clock = ManualClock()
    logger = open_log(tmp_path, clock=clock, capacity=3, reserved=2)
    for number in range(3):
        logger.emit(sealed(number))
    clock.advance(1)
    with pytest.raises(BufferFullError, match="3 events"):
        logger.emit(sealed(3))
    logger.emit(SealVerified(shard_id="a", worker_id=SERVICE))
    logger.emit(_violation())
    clock.advance(1)
    with pytest.raises(BufferFullError, match="3 events"):
        logger.emit(_violation())
    assert logger.stats().dropped == 2
    assert logger.stats().dropped_critical == 1
    logger.flush()
    logger.emit(sealed(4))
    logger.close()
    entries = reference_check(tmp_path)
    assert event_types(tmp_path)[1:8] == [
        *["vram_sealed"] * 3,
        "seal_verified",
        "policy_violation",
        "events_dropped",
        "vram_sealed",
    ]
    dropped = entries[6]
    assert (dropped["count"], dropped["critical_count"]) == (2, 1)
    assert dropped["first_timestamp"] == "2025-10-09T08:53:21.000000Z"
    assert dropped["last_timestamp"] == "2025-10-09T08:53:22.000000Z"


def test_reserved_slots_are_for_seals_and_violations_alone(tmp_path: Path) -> None:
    with open_log(tmp_path, capacity=1, reserved=1) as logger:
        logger.emit(sealed())
        failure = AuthFailure(reason="bad_token", ip="10.0.0.1", path="/")
        assert type(failure).critical
        with pytest.raises(BufferFullError, match="1 events"):
            logger.emit(failure)
        logger.emit(SealVerified(shard_id="a", worker_id=SERVICE))


def test_a_wrong_type_is_refused_and_nothing_is_accepted(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger:
        for wrong in (
            sealed(vram_bytes="many"),
            sealed(shard_id=None),
            sealed(gpu_device=-1),
            sealed(gpu_device=1.5),
        ):
            with pytest.raises(InvalidEventError, match="vram_sealed"):
                logger.emit(wrong)
        with pytest.raises(InvalidEventError, match="not registered"):
            logger.emit({"event_type": "vram_sealed"})  # type: ignore[arg-type]
        assert logger.stats().accepted == 0


def test_the_logs_own_events_are_refused_from_outside(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger, pytest.raises(InvalidEventError, match="only the log itself"):
        logger.emit(EpochClosed(epoch=0, tree_size=1, root_hash="00"))


def test_what_the_caller_does_to_an_event_afterwards_changes_nothing(tmp_path: Path) -> None:
    tensors = ["encoder.weight"]
    with open_log(tmp_path) as logger:
        logger.emit(
            SealVerificationFailed(
                shard_id="a",
                reason="digest_mismatch",
                expected_digest="x",
                actual_digest="y",
                worker_id=SERVICE,
                severity="CRITICAL",
                tensors=tensors,
            )
        )
        tensors.append("forged")
    assert read_entries(tmp_path)[1]["tensors"] == ["encoder.weight"]


def test_the_context_is_carried_unless_the_event_says_it_itself(tmp_path: Path) -> None:
    actor = context.actor.set({"user_id": "alice", "auth_method": "peer_uid"})
    try:
        with context.operation() as correlation_id, open_log(tmp_path) as logger:
            logger.emit(sealed())
            logger.emit(
                AuthSuccess(actor=Actor(user_id="bob", auth_method="api_key"), method="GET", path="/")
            )
    finally:
        context.actor.reset(actor)
    first, second = read_entries(tmp_path)[1:3]
    assert list(first)[4:8] == ["audit_id", "correlation_id", "actor", "shard_id"]
    assert first["correlation_id"] == correlation_id
    assert first["actor"] == {"user_id": "alice", "auth_method": "peer_uid"}
    assert list(second)[4:8] == ["audit_id", "correlation_id", "actor", "method"]
    assert second["actor"]["user_id"] == "bob"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a\\u{202E}b"),
        ("a\nb", "a\\u{000A}b"),
        ("a\ud800b", "a\\u{D800}b"),
        ("\\u{202E}", "\\u{005C}u{202E}"),
    ],
)
def test_bad_strings_are_cleaned_not_refused(tmp_path: Path, text: str, shown: str) -> None:
    with open_log(tmp_path) as logger:
        logger.emit(sealed(shard_id=text))
    entry = reference_check(tmp_path)[1]
    assert entry["shard_id"] == shown
    assert entry["sanitized"] == ["shard_id"]


def test_a_large_event_is_cut_at_emit_and_keeps_its_context(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger, context.operation() as correlation_id:
        logger.emit(sealed(model_ref="m" * 1_000_000))
    entry = reference_check(tmp_path)[1]
    assert entry["correlation_id"] == correlation_id
    assert entry["sanitized"] == ["model_ref"]
    assert "[1000000 bytes, sha256:" in entry["model_ref"]
    assert len(entry["model_ref"].encode()) < 1024


def test_a_bad_context_cannot_suppress_an_event(tmp_path: Path) -> None:
    token = context.correlation_id.set("\ud800")  # type: ignore[arg-type]
    try:
        with open_log(tmp_path) as logger:
            logger.emit(sealed())
    finally:
        context.correlation_id.reset(token)
    entry = reference_check(tmp_path)[1]
    assert entry["correlation_id"] == "\\u{D800}"
    assert entry["sanitized"] == ["correlation_id"]


def test_customers_appear_as_pseudonyms_that_stay_the_same(tmp_path: Path) -> None:
    event = InferenceExecuted(
        customer_id="ACME Corp", job_id="1", model_ref="m", tokens_processed=1, result=Success()
    )
    for _ in range(2):
        with open_log(tmp_path) as logger:
            logger.emit(event)
    names = {entry["customer_id"] for entry in read_entries(tmp_path) if "customer_id" in entry}
    assert len(names) == 1
    assert b"ACME" not in b"".join(read_lines(tmp_path))


def test_many_threads_lose_nothing_and_keep_their_own_order(tmp_path: Path) -> None:
    with open_log(tmp_path, background=True, capacity=5000) as logger:

        def emit(thread: int) -> None:
            for number in range(200):
                logger.emit(sealed(shard_id=f"{thread}-{number}"), durable=number % 50 == 0)

        threads = [threading.Thread(target=emit, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = reference_check(tmp_path)
    assert "clock_stepped_back" not in event_types(tmp_path)
    for thread in range(6):
        own = [entry["shard_id"] for entry in entries if entry.get("shard_id", "").startswith(f"{thread}-")]
        assert own == [f"{thread}-{number}" for number in range(200)]


def test_the_background_thread_writes_a_critical_event_by_itself(tmp_path: Path) -> None:
    with open_log(tmp_path, background=True, max_delay_s=3600) as logger:
        logger.emit(_violation())
        waiting = threading.Event()
        for _ in range(1000):
            if logger.stats().waiting == 0:
                break
            waiting.wait(0.01)
        assert logger.stats().waiting == 0
        assert event_types(tmp_path)[1] == "policy_violation"


def test_flush_with_a_timeout_flushes(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger:
        logger.emit(sealed())
        logger.flush(timeout_s=30)
        assert logger.stats().waiting == 0


def test_a_closed_log_takes_nothing_more(tmp_path: Path) -> None:
    logger = open_log(tmp_path)
    logger.close()
    logger.close()
    for call in (
        logger.flush,
        logger.tick,
        lambda: logger.emit(sealed()),
        lambda: logger.emit_all([sealed()]),
    ):
        with pytest.raises(LogClosedError, match="is closed"):
            call()
    assert logger.stats().tree_size == 3


def test_a_second_writer_fails_at_once_and_names_the_first(tmp_path: Path) -> None:
    import os

    with open_log(tmp_path), pytest.raises(LogLockedError, match=f"pid {os.getpid()}"):
        open_log(tmp_path)
    open_log(tmp_path).close()


def test_a_disabled_logger_takes_everything_and_keeps_nothing(tmp_path: Path) -> None:
    with AuditLogger.disabled() as logger:
        assert logger.emit(sealed()) is None
        assert logger.emit(sealed(), durable=True) is None
        assert logger.flush() is None
        assert logger.emit_all([sealed()]) == []
        assert list(logger.query()) == []
        assert logger.stats().accepted == 0
        assert not logger.is_enabled
        assert logger.directory is None
        logger.tick()
    assert logger.emit(sealed()) is None


def test_open_refuses_a_directory_without_a_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not an audit log") as caught:
        AuditLogger.open(tmp_path / "log", service_id=SERVICE, keys=tmp_path / "keys")
    assert "vram audit init" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_create_makes_a_log_keeps_the_genesis_key_and_warns(tmp_path: Path) -> None:
    with pytest.warns(KeyPlacementWarning, match=r"genesis key kept in .*log\.keys"):
        logger = AuditLogger.open(tmp_path / "log", service_id=SERVICE, create=True)
    logger.close()
    assert (tmp_path / "log.keys" / "genesis.key").exists()
    with pytest.warns(KeyPlacementWarning, match="lie beside it"):
        AuditLogger.open(tmp_path / "log", service_id=SERVICE, create=True).close()
    assert event_types(tmp_path).count("log_opened") == 2


def test_another_services_log_is_not_opened(tmp_path: Path) -> None:
    make_log(tmp_path)
    with pytest.raises(ConfigurationError, match="belongs to 'worker-gpu-0'"):
        AuditLogger.open(tmp_path / "log", service_id="other", keys=tmp_path / "keys")


def test_a_service_id_with_other_characters_is_refused(tmp_path: Path) -> None:
    for service_id in ("", "a b", "a/b", "a\n", "x" * 129):
        with pytest.raises(InvalidInputError, match="service_id"):
            AuditLogger.open(tmp_path / "log", service_id=service_id, keys=tmp_path / "keys", create=True)


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="capacity"):
        LogOptions(capacity=0)
    with pytest.raises(ConfigurationError, match="max_delay_s"):
        LogOptions(max_delay_s=-1)
