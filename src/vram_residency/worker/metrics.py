"""The worker's metrics for Prometheus (worker.md, "Metrics"): counted as things happen, or read at a scrape.

Every metric is labelled with ``device`` and ``worker``. Counters start at 0, whatever their other labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from vram_residency.audit.events.registry import BUILT_IN
from vram_residency.audit.format.entry import event_type_in
from vram_residency.core.clock import parse_rfc3339
from vram_residency.core.errors import UnknownShardError
from vram_residency.device.base import DeviceInfo
from vram_residency.residency import Verification
from vram_residency.residency.observer import Observer
from vram_residency.worker.service import WorkerService
from vram_residency.worker.states import State

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_LABELS: Final = ("device", "worker")
_SEAL_RESULTS: Final = ("sealed", "refused", "no_room", "failed")
_SCOPES: Final = ("full", "fast", "sample")
_VERIFY_RESULTS: Final = ("verified", "damaged")
#: Of a handle that was refused: nothing was read.
_NO_SCOPE: Final = ("none", "refused")
_ALLOCATION_REASONS: Final = ("insufficient_vram", "driver_error")
#: From a header's look to a large model's whole pass.
_LONG_BUCKETS_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_FLUSH_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_NS: Final = 1e9


class WorkerMetrics(Observer):
    """The figures of one worker: an observer of its manager. Thread-safe.

    Give it to ``ManagerOptions(observer=…)``, then ``watch`` the service that is made.
    """

    def __init__(self, device: DeviceInfo, worker_id: str) -> None:
        self._labels = {"device": _name_of(device), "worker": worker_id}
        self._registry = CollectorRegistry()
        self._seals = self._counter("vram_seal_operations", "Seals, by what became of them.", "result")
        self._verifications = self._counter(
            "vram_verify_operations", "Verifications, by scope and result.", "scope", "result"
        )
        self._verified_bytes = self._counter("vram_verified_bytes", "Bytes read to verify.", "scope")
        self._allocation_failures = self._counter(
            "vram_allocation_failures", "Memory that was refused.", "reason"
        )
        self._violations = self._counter("vram_policy_violations", "Findings against the policy.")
        self._events = self._counter(
            "vram_audit_events_emitted", "Audit entries that are durable, by type.", "event_type"
        )
        self._seal_s = self._histogram("vram_seal_duration_seconds", "Load, measure, sign.", _LONG_BUCKETS_S)
        self._verify_s = self._histogram(
            "vram_verify_duration_seconds", "One verification.", _LONG_BUCKETS_S, "scope"
        )
        self._flush_s = self._histogram(
            "vram_audit_flush_duration_seconds", "One write of the log, to the disk.", _FLUSH_BUCKETS_S
        )
        self._begin_at_zero()

    def watch(self, service: WorkerService) -> None:
        """Read this service at every scrape, and its log as it is written."""
        self._registry.register(_AtScrape(service, self._labels))
        service.audit_logger.on_written(self._written)

    def render(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(_Collected(self._registry))  # type: ignore[arg-type] # collect() is all it takes

    def sealed(self, duration_s: float) -> None:
        """Count a seal."""
        self._seals.labels(**self._labels, result="sealed").inc()
        self._seal_s.labels(**self._labels).observe(duration_s)

    def seal_failed(self, result: str) -> None:
        """Count a seal that came to nothing."""
        self._seals.labels(**self._labels, result=result).inc()

    def verified(self, result: Verification) -> None:
        """Count a verification that found no damage."""
        self._count(result, "verified")

    def damage_found(self, result: Verification) -> None:
        """Count a verification that found damage."""
        self._count(result, "damaged")

    def handle_refused(self) -> None:
        """Count a handle that was refused."""
        scope, result = _NO_SCOPE
        self._verifications.labels(**self._labels, scope=scope, result=result).inc()

    def allocation_failed(self, reason: str) -> None:
        """Count memory that was refused."""
        self._allocation_failures.labels(**self._labels, reason=reason).inc()

    def policy_violated(self) -> None:
        """Count a finding against the policy."""
        self._violations.labels(**self._labels).inc()

    def _count(self, result: Verification, word: str) -> None:
        labels = {**self._labels, "scope": result.scope}
        self._verifications.labels(**labels, result=word).inc()
        self._verified_bytes.labels(**labels).inc(result.bytes_checked)
        self._verify_s.labels(**labels).observe(result.duration_s)

    def _written(self, lines: Sequence[bytes], duration_s: float) -> None:
        self._flush_s.labels(**self._labels).observe(duration_s)
        for line in lines:
            self._events.labels(**self._labels, event_type=event_type_in(line)).inc()

    def _begin_at_zero(self) -> None:
        """Make every series, so that its first increase can be seen as one."""
        for result in _SEAL_RESULTS:
            self._seals.labels(**self._labels, result=result)
        for scope in _SCOPES:
            self._verified_bytes.labels(**self._labels, scope=scope)
            self._verify_s.labels(**self._labels, scope=scope)
            for result in _VERIFY_RESULTS:
                self._verifications.labels(**self._labels, scope=scope, result=result)
        scope, result = _NO_SCOPE
        self._verifications.labels(**self._labels, scope=scope, result=result)
        for reason in _ALLOCATION_REASONS:
            self._allocation_failures.labels(**self._labels, reason=reason)
        for event_type in BUILT_IN:
            self._events.labels(**self._labels, event_type=event_type)
        for metric in (self._violations, self._seal_s, self._flush_s):
            metric.labels(**self._labels)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, (*_LABELS, *labels), registry=self._registry)

    def _histogram(self, name: str, help_text: str, buckets_s: Sequence[float], *labels: str) -> Histogram:
        return Histogram(name, help_text, (*_LABELS, *labels), registry=self._registry, buckets=buckets_s)


#: The values of further labels → the metric's value.
_Values: TypeAlias = dict[tuple[str, ...], float]


class _Source(Protocol):
    def collect(self) -> Iterator[Metric]: ...


class _Collected:
    """What a registry holds, without the times at which its series were made, which nobody asked for."""

    def __init__(self, registry: _Source) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


class _AtScrape:
    """What need not be counted, since it can be read when somebody asks."""

    def __init__(self, service: WorkerService, labels: dict[str, str]) -> None:
        self._service = service
        self._values = tuple(labels.values())

    def describe(self) -> Iterator[Metric]:
        """Nothing: names are known, and a registry that asks must not read the device."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read everything now."""
        yield from self._device()
        yield from self._shards()
        yield from self._log()
        yield self._family(
            "vram_worker_state",
            "1 for the state that the worker is in.",
            {(state.value,): float(state is self._service.watchman.state) for state in State},
            "state",
        )

    def _device(self) -> Iterator[Metric]:
        capacity = self._service.manager.capacity()
        yield self._gauge("vram_capacity_bytes", "Bytes that the device has.", capacity.total_bytes)
        yield self._gauge("vram_used_bytes", "Bytes that shards use.", capacity.used_bytes)
        yield self._gauge("vram_headroom_bytes", "Bytes that are kept free.", capacity.headroom_bytes)

    def _shards(self) -> Iterator[Metric]:
        counts: _Values = {("sealed",): 0.0, ("quarantined",): 0.0}
        times: _Values = {}
        for shard in self._service.manager.shards():
            with suppress(UnknownShardError):  # freed meanwhile
                report = self._service.manager.describe(shard.shard_id)
                counts[report.state,] = counts.get((report.state,), 0.0) + 1
                times[shard.shard_id,] = parse_rfc3339(report.fully_verified_at) / _NS
        yield self._family("vram_shards", "Shards that are held, by state.", counts, "state")
        yield self._family(
            "vram_shard_last_full_verification_timestamp_seconds",
            "When each shard was last wholly verified.",
            times,
            "shard",
        )

    def _log(self) -> Iterator[Metric]:
        stats = self._service.audit_logger.stats()
        yield self._counter(
            "vram_audit_events_dropped",
            "Events that were lost for want of room, critical ones apart.",
            {
                ("false",): float(stats.dropped - stats.dropped_critical),
                ("true",): float(stats.dropped_critical),
            },
            "critical",
        )
        failures: _Values = {(): float(self._service.manager.audit_failures)}
        yield self._counter("vram_audit_emit_failures", "Events that could not be recorded.", failures)
        yield self._gauge("vram_audit_buffer_events", "Events that are not durable yet.", stats.waiting)
        yield self._gauge("vram_audit_tree_size", "Entries of the log.", stats.tree_size)
        yield self._gauge(
            "vram_audit_checkpoint_timestamp_seconds",
            "When the newest checkpoint was written; 0 where no log is kept.",
            self._checkpoint_time_s(),
        )

    def _checkpoint_time_s(self) -> float:
        directory = self._service.audit_logger.directory
        with suppress(OSError):
            return 0.0 if directory is None else (directory / "checkpoint").stat().st_mtime
        return 0.0

    def _gauge(self, name: str, help_text: str, value: float) -> Metric:
        return self._family(name, help_text, {(): float(value)})

    def _family(self, name: str, help_text: str, values: _Values, *labels: str) -> Metric:
        family = GaugeMetricFamily(name, help_text, labels=(*_LABELS, *labels))
        return self._filled(family, values)

    def _counter(self, name: str, help_text: str, values: _Values, *labels: str) -> Metric:
        family = CounterMetricFamily(name, help_text, labels=(*_LABELS, *labels))
        return self._filled(family, values)

    def _filled(self, family: GaugeMetricFamily | CounterMetricFamily, values: _Values) -> Metric:
        for more, value in values.items():
            family.add_metric((*self._values, *more), value)
        return family


def _name_of(device: DeviceInfo) -> str:
    """The name by which ``--device`` knows it."""
    return device.kind if device.kind == "host" else f"{device.kind}:{device.index}"
