"""What the page shows, in one document: gathered from the service, reading no shard's memory."""

from __future__ import annotations

import time

import msgspec

from vram_residency.audit.log import AuditLogger
from vram_residency.audit.store.directory import Directory
from vram_residency.audit.writing.stats import LogStats
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import UnknownShardError
from vram_residency.dashboard.forecast import Forecast, Point, forecast
from vram_residency.dashboard.guarantees import Caveat, Host, caveats
from vram_residency.dashboard.recollection import Damage, Recollection
from vram_residency.dashboard.verdict import Seen, Verdict, judge
from vram_residency.residency import ShardReport, VramManager
from vram_residency.worker import wire
from vram_residency.worker.host_check import judge_host, read_facts
from vram_residency.worker.service import WorkerService

_NS = 1_000_000_000


class ShardView(msgspec.Struct, frozen=True):
    """One shard, and the damage that was found in it."""

    handle: wire.Handle
    damage: Damage | None


class LogView(msgspec.Struct, frozen=True, kw_only=True):
    """Where the audit log stands.

    head: the root hash (hex) of the newest signed checkpoint, over ``stats.checkpoint_size`` entries.
    unsigned: durable entries behind it.
    """

    is_kept: bool
    origin: str | None
    head: str | None
    unsigned: int
    stats: LogStats


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """The page's document. now: RFC 3339, the clock that all other times are of."""

    now: str
    verdict: Verdict
    status: wire.Status
    shards: list[ShardView]
    log: LogView
    history: list[Point]
    forecast: Forecast
    caveats: list[Caveat]


class Overseer:
    """Makes overviews of one worker. Thread-safe."""

    def __init__(self, service: WorkerService) -> None:
        self._service = service
        used_bytes = service.manager.capacity().used_bytes
        self.recollection = Recollection(Point(time.time(), used_bytes))
        directory = service.audit_logger.directory
        keys = None if directory is None else Directory(directory).default_keys
        # Keys that lie elsewhere are not looked for.
        self._log = directory if keys is not None and keys.is_dir() else None
        self._has_genesis_key = keys is not None and (keys / "genesis.key").exists()

    def overview(self) -> Overview:
        """What holds now."""
        now_ns = time.time_ns()
        status = self._service.status()
        reports = list(_reports(self._service.manager))
        handles = [wire.handle_of(report) for report in reports]
        damages = self.recollection.damage_among({handle.handle_id for handle in handles})
        log = _log_view(self._service.audit_logger)
        capacity = status.capacity
        history = self.recollection.points()
        return Overview(
            now=rfc3339(now_ns),
            verdict=judge(
                Seen(
                    state=self._service.watchman.state,
                    stopped_by=status.reason,
                    handles=handles,
                    damages=damages,
                    lost_events=log.stats.dropped,
                    last_failure=log.stats.last_failure,
                    now_ns=now_ns,
                )
            ),
            status=status,
            shards=[ShardView(handle, damages.get(handle.handle_id)) for handle in handles],
            log=log,
            history=history,
            forecast=forecast(
                history, now_s=now_ns / _NS, usable_bytes=capacity.total_bytes - capacity.headroom_bytes
            ),
            caveats=caveats(self._host(reports)),
        )

    def _host(self, reports: list[ShardReport]) -> Host:
        return Host(
            device_kind=self._service.device.kind,
            residencies=[report.residency for report in reports],
            findings=judge_host(read_facts(log=self._log)),
            has_log=self._service.audit_logger.is_enabled,
            has_genesis_key=self._has_genesis_key,
        )


def _reports(manager: VramManager) -> list[ShardReport]:
    """Of all shards held; one that is freed meanwhile is not among them."""
    found = []
    for shard in manager.shards():
        try:
            found.append(manager.describe(shard.shard_id))
        except UnknownShardError:
            continue
    return found


def _log_view(logger: AuditLogger) -> LogView:
    stats = logger.stats()
    checkpoint = logger.checkpoint
    return LogView(
        is_kept=logger.is_enabled,
        origin=None if checkpoint is None else checkpoint.origin,
        head=None if checkpoint is None else checkpoint.root.hex(),
        unsigned=max(stats.tree_size - stats.checkpoint_size, 0),
        stats=stats,
    )
