"""Two implementations of one format check each other."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.independent_log import LogMaker, check, make_log

from vram_residency.audit import AuditLogger, create_log, verify
from vram_residency.audit import events as e
from vram_residency.core import context
from vram_residency.core.identifiers import CorrelationId

pytestmark = pytest.mark.filterwarnings("ignore::vram_residency.audit.KeyPlacementWarning")


def _sealed(number: int, **more: str) -> e.VramSealed:
    return e.VramSealed(
        shard_id=f"shard-{number}",
        gpu_device=0,
        vram_bytes=1 << 20,
        digest="blake3:" + "ab" * 32,
        worker_id="worker-1",
        **more,
    )


def test_a_log_of_the_product_passes_the_independent_check(tmp_path: Path) -> None:
    new = create_log(tmp_path / "log", service_id="worker-gpu-0")
    actor = {"user_id": "u\u202e", "auth_method": "internal"}
    for _ in range(3):
        with AuditLogger.open(tmp_path / "log", service_id="worker-gpu-0") as logger:
            correlation = context.correlation_id.set(CorrelationId("req-1"))
            token = context.actor.set(actor)
            for number in range(20):
                logger.emit(_sealed(number))
            context.actor.reset(token)
            context.correlation_id.reset(correlation)
            logger.emit(_sealed(99, model_ref="evil\n" * 1000))
    entries = check(tmp_path / "log", k0=bytes.fromhex(new.mac_genesis_key), vkey=new.vkey)
    assert [entry["event_type"] for entry in entries].count("vram_sealed") == 63
    assert [entry["event_type"] for entry in entries[-2:]] == ["log_closed", "epoch_closed"]
    assert entries[1]["correlation_id"] == "req-1"
    assert entries[1]["actor"]["user_id"] == "u\\u{202E}"
    assert entries[1]["sanitized"] == ["actor.user_id"]


def test_an_empty_log_of_the_product_passes_the_independent_check(tmp_path: Path) -> None:
    new = create_log(tmp_path / "log", service_id="worker-gpu-0")
    assert check(tmp_path / "log", k0=bytes.fromhex(new.mac_genesis_key), vkey=new.vkey) == []
    assert verify(tmp_path / "log", vkey=new.vkey, mac_key=new.mac_genesis_key).verdict == "intact"


@pytest.mark.parametrize("trusted", ["vkey", "k0", "both"])
def test_a_log_of_the_other_implementation_is_intact(tmp_path: Path, trusted: str) -> None:
    maker = make_log(seals=20)
    keys = {"vkey": maker.vkey} if trusted in {"vkey", "both"} else {}
    keys |= {"mac_key": maker.k0} if trusted in {"k0", "both"} else {}
    verdict = verify(maker.write(tmp_path / "log"), **keys)
    assert (verdict.verdict, verdict.trust, verdict.first_bad) == ("intact", "given", None)
    assert (verdict.entries, verdict.tree_size, verdict.root_hash) == (23, 23, maker.root().hex())
    assert verdict.checked.mac is (trusted != "vkey")
    assert verdict.checked.tree
    assert verdict.checked.checkpoint
    assert (verdict.unvouched_entries, verdict.unprotected_entries) == (0, 23)


@given(
    plan=st.lists(st.sampled_from(["seal", "end_epoch", "reopen", "crash", "unknown"]), max_size=25),
    data=st.data(),
)
def test_any_lawful_history_is_intact(
    plan: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Epochs, clean restarts after days, kills, and types nobody knows, in any order."""
    maker = LogMaker()
    maker.open()
    for step in plan:
        if step == "seal":
            maker.seal()
        elif step == "end_epoch":
            maker.end_epoch()
        elif step == "unknown":
            maker.append("acme.new_thing", words=["a", "b"], nested={"x": {"y": [None, True, -3]}})
        else:
            if step == "reopen":
                maker.close()
            maker.now += timedelta(days=data.draw(st.integers(0, 400)))
            maker.open(clean=step == "reopen")
    size = data.draw(st.integers(0, len(maker.lines)))
    cut = data.draw(st.integers(1, len(maker.lines)))
    segments = (0,) if cut >= len(maker.lines) else (0, cut)
    directory = maker.write(tmp_path_factory.mktemp("log") / "log", size=size, segments=segments)
    verdict = verify(directory, vkey=maker.vkey, mac_key=maker.k0)
    assert verdict.verdict == "intact", verdict.first_bad
    assert verdict.entries == len(maker.lines)
    assert verify(directory, vkey=maker.vkey).unvouched_entries == len(maker.lines) - size


def test_entries_after_the_checkpoint_are_reported_but_not_vouched_for_by_a_vkey(tmp_path: Path) -> None:
    maker = make_log(seals=5)
    directory = maker.write(tmp_path / "log", size=4)
    assert verify(directory, vkey=maker.vkey).unvouched_entries == 4
    assert verify(directory, mac_key=maker.k0).unvouched_entries == 0


def test_the_tail_of_a_killed_writer_is_intact_and_a_torn_line_is_no_entry(tmp_path: Path) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal()
    directory = maker.write(tmp_path / "log", size=1)
    maker.seal()
    with (directory / "entries" / "00000000000000000000.jsonl").open("ab") as file:
        file.write(maker.lines[-1][:100])
    verdict = verify(directory, mac_key=maker.k0)
    assert (verdict.verdict, verdict.entries, verdict.torn_bytes) == ("intact", 2, 100)


def test_a_checkpoint_kept_elsewhere_protects_what_it_covers(tmp_path: Path) -> None:
    maker = make_log(seals=5)
    directory = maker.write(tmp_path / "log")
    verdict = verify(directory, vkey=maker.vkey, checkpoint=maker.checkpoint(6))
    assert (verdict.verdict, verdict.unprotected_entries) == ("intact", 2)


def test_without_any_key_a_consistent_log_is_unverifiable(tmp_path: Path) -> None:
    verdict = verify(make_log().write(tmp_path / "log"))
    assert (verdict.verdict, verdict.trust, verdict.exit_code) == ("unverifiable", "self-asserted", 5)
    assert verdict.first_bad is None


def test_the_keys_of_this_machine_count_as_local(tmp_path: Path) -> None:
    with AuditLogger.open(tmp_path / "log", service_id="w", create=True) as logger:
        logger.emit(_sealed(1))
    assert verify(tmp_path / "log").trust == "local"
    assert verify(tmp_path / "log").checked.mac
    (tmp_path / "log.keys" / "genesis.key").unlink()
    verdict = verify(tmp_path / "log")
    assert (verdict.verdict, verdict.checked.mac, verdict.checked.tree) == ("intact", False, True)


def test_recovered_entries_are_counted(tmp_path: Path) -> None:
    maker = LogMaker()
    maker.open()
    maker.seal(0)
    maker.seal(1)
    maker.open(clean=False, recovered_events=2, recovered_first_index=1)
    verdict = verify(maker.write(tmp_path / "log"), mac_key=maker.k0)
    assert (verdict.verdict, verdict.recovered_entries) == ("intact", 2)


def test_a_log_can_be_verified_while_it_is_written(tmp_path: Path) -> None:
    with AuditLogger.open(tmp_path / "log", service_id="w", create=True) as logger:
        for round_number in range(20):
            for number in range(50):
                logger.emit(_sealed(number))
            verdict = verify(tmp_path / "log")
            assert verdict.verdict == "intact", (round_number, verdict.first_bad)
