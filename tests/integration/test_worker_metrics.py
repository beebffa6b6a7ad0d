"""The worker's metrics: every name of the specification, from 0 on, and true to what happened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families
from tests.shards import TOKEN, WORKER, write_model

from vram_residency import AuditLogger, VramManager
from vram_residency.core.errors import BufferFullError
from vram_residency.residency import ManagerOptions
from vram_residency.testing import FaultDevice, MemoryLog, capture_narration
from vram_residency.worker.app import create_app
from vram_residency.worker.echo_stats import EchoStats
from vram_residency.worker.metrics import WorkerMetrics
from vram_residency.worker.metrics_route import metrics_route
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.service import WorkerService

ROOT = Path(__file__).parents[2]
HERE = {"device": "host", "worker": WORKER}
#: worker.md, "Metrics", with the labels that each has beside device and worker.
NAMES: dict[str, set[str]] = {
    "vram_capacity_bytes": set(),
    "vram_used_bytes": set(),
    "vram_headroom_bytes": set(),
    "vram_shards": {"state"},
    "vram_shard_last_full_verification_timestamp_seconds": {"shard"},
    "vram_seal_operations_total": {"result"},
    "vram_verify_operations_total": {"scope", "result"},
    "vram_seal_duration_seconds": set(),
    "vram_verify_duration_seconds": {"scope"},
    "vram_verified_bytes_total": {"scope"},
    "vram_allocation_failures_total": {"reason"},
    "vram_policy_violations_total": set(),
    "vram_worker_state": {"state"},
    "vram_audit_events_emitted_total": {"event_type"},
    "vram_audit_events_dropped_total": {"critical"},
    "vram_audit_buffer_events": set(),
    "vram_audit_flush_duration_seconds": set(),
    "vram_audit_emit_failures_total": set(),
    "vram_audit_tree_size": set(),
    "vram_audit_checkpoint_timestamp_seconds": set(),
}
HISTOGRAMS = {name for name in NAMES if name.endswith("duration_seconds")}


class Measured:
    """A worker that is measured, and what a scrape of it says."""

    def __init__(self, service: WorkerService, device: Any, log: Any, client: Any) -> None:
        self.service, self.device, self.log, self.client = service, device, log, client

    def scrape(self) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
        answer: httpx.Response = self.client.get("/metrics")
        assert (answer.status_code, answer.headers["content-type"][:10]) == (200, "text/plain")
        found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float:
        return self.scrape()[name][frozenset((HERE | labels).items())]


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuditLogger]:
    if request.param == "memory":
        yield MemoryLog()
        return
    with pytest.warns(match="key"):
        log = AuditLogger.open(tmp_path / "log", service_id="s", create=True)
    with log:
        yield log


@pytest.fixture
def worker(tmp_path: Path, log: AuditLogger) -> Iterator[Measured]:
    device = FaultDevice(capacity_bytes=16 << 20)
    metrics = WorkerMetrics(device.info, WORKER)
    options = ManagerOptions(observer=metrics)
    write_model(tmp_path, 300_000, 20)
    with (
        capture_narration(),
        VramManager.new_with_token(TOKEN, 0, log, WORKER, device=device, options=options) as manager,
    ):
        service = WorkerService(
            manager,
            log,
            device=device.info,
            worker_id=WORKER,
            make_engine=EchoStats,
            options=WorkerOptions(model_roots=(tmp_path,)),
        )
        metrics.watch(service)
        service.begin()
        with TestClient(create_app(service, route_handlers=[metrics_route(metrics)])) as client:
            yield Measured(service, device, log, client)
        service.close()


def seal(worker: Measured, **choices: Any) -> httpx.Response:
    return worker.client.post("/v1/commit", json={"path": "model.safetensors", **choices})


def test_every_metric_of_the_specification_is_there_and_nothing_else(worker: Measured):
    """With device and worker, its own labels, and no others."""
    seal(worker, shard_id="m")
    found = worker.scrape()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}
    assert names == NAMES.keys()
    for name, labels in NAMES.items():
        samples = found[f"{name}_count" if name in HISTOGRAMS else name]
        for sample in samples:
            assert {label for label, _ in sample} == {"device", "worker"} | labels, name
            assert HERE.items() <= dict(sample).items()


def test_the_specification_knows_the_same_names():
    """The list above is the one that is published."""
    text = (ROOT / "docs" / "format" / "metrics.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(vram_[a-z_]+)`", text, re.MULTILINE)) == NAMES.keys()


def test_counters_begin_at_zero(worker: Measured):
    """A series that appears with its first event would hide that event from rate()."""
    found = worker.scrape()
    for name in ("seal_operations", "verify_operations", "verified_bytes", "allocation_failures"):
        assert set(found[f"vram_{name}_total"].values()) == {0.0}, name
    assert found["vram_audit_events_dropped_total"].keys() == {
        frozenset((HERE | {"critical": word}).items()) for word in ("true", "false")
    }
    assert worker.value("vram_audit_events_emitted_total", event_type="seal_verification_failed") == 0
    assert not any(name.endswith("_created") for name in found)


def test_a_shards_life_is_counted(worker: Measured):
    """Seals, verifications at the gate too, bytes, room."""
    assert seal(worker, shard_id="m").status_code == 201
    size = worker.value("vram_used_bytes")
    assert size > 300_000
    assert worker.value("vram_seal_operations_total", result="sealed") == 1
    assert worker.value("vram_seal_duration_seconds_count") == 1
    worker.client.post("/v1/shards/m/verify", json={"scope": "full"})
    worker.client.post("/v1/execute", json={"handle_id": "m"})
    assert worker.value("vram_verify_operations_total", scope="full", result="verified") == 1
    assert worker.value("vram_verify_operations_total", scope="sample", result="verified") == 1
    assert worker.value("vram_verified_bytes_total", scope="full") == size
    assert worker.value("vram_verify_duration_seconds_count", scope="full") == 1
    assert worker.value("vram_shards", state="sealed") == 1
    assert worker.value("vram_worker_state", state="ready") == 1
    assert worker.value("vram_worker_state", state="stopped") == 0
    sealed_s = worker.value("vram_shard_last_full_verification_timestamp_seconds", shard="m")
    assert sealed_s > 1.7e9
    worker.client.delete("/v1/shards/m")
    assert worker.value("vram_used_bytes") == 0
    assert not any(
        ("shard", "m") in labels
        for labels in worker.scrape().get("vram_shard_last_full_verification_timestamp_seconds", {})
    )


def test_what_goes_wrong_is_counted_by_its_kind(worker: Measured, tmp_path: Path):
    write_model(tmp_path, 17 << 20, name="large.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    seal(worker, path="large.safetensors")
    assert worker.value("vram_seal_operations_total", result="no_room") == 1
    assert worker.value("vram_allocation_failures_total", reason="insufficient_vram") == 1
    seal(worker, path="bad.safetensors")
    seal(worker, expected_digest="blake3:" + "0" * 64)
    assert worker.value("vram_seal_operations_total", result="refused") == 2
    worker.device.fail_next("allocate", OSError(5, "Input/output error"))
    seal(worker)
    assert worker.value("vram_allocation_failures_total", reason="driver_error") == 1
    worker.client.get("/v1/shards/none")
    assert worker.value("vram_verify_operations_total", scope="none", result="refused") == 1


def test_damage_shows_in_every_figure(worker: Measured):
    seal(worker, shard_id="m")
    worker.device.flip_bit("m", 4096)
    worker.client.post("/v1/shards/m/verify", json={"scope": "full"})
    assert worker.value("vram_verify_operations_total", scope="full", result="damaged") == 1
    assert worker.value("vram_shards", state="quarantined") == 1
    assert worker.value("vram_worker_state", state="stopped") == 1
    worker.service.audit_logger.flush()
    assert worker.value("vram_audit_events_emitted_total", event_type="seal_verification_failed") == 1
    assert worker.value("vram_audit_flush_duration_seconds_count") > 0


def test_the_log_is_measured_as_it_stands(worker: Measured):
    if worker.log.directory is None:
        worker.log.fail_with(BufferFullError(1))
        seal(worker)
        assert worker.value("vram_audit_emit_failures_total") > 0
        assert worker.value("vram_audit_checkpoint_timestamp_seconds") == 0
        return
    checkpoint = worker.log.flush()
    assert worker.value("vram_audit_tree_size") >= checkpoint.size
    assert worker.value("vram_audit_checkpoint_timestamp_seconds") > 1.7e9
    assert worker.value("vram_audit_buffer_events") >= 0


def test_a_shard_that_goes_while_it_is_scraped_is_passed_over(
    worker: Measured, monkeypatch: pytest.MonkeyPatch
):
    seal(worker, shard_id="m")
    handles = worker.service.manager.shards()
    worker.client.delete("/v1/shards/m")
    monkeypatch.setattr(worker.service.manager, "shards", lambda: handles)
    assert worker.value("vram_shards", state="sealed") == 0


def test_the_dashboard_asks_for_metrics_that_exist():
    """Every panel, by the name of each metric in its queries."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text("utf-8"))
    asked = re.findall(r"\bvram_[a-z_]+", json.dumps(dashboard))
    known = NAMES.keys() | {f"{name}{end}" for name in HISTOGRAMS for end in ("_bucket", "_sum", "_count")}
    assert set(asked) <= known
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} == NAMES.keys()
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
