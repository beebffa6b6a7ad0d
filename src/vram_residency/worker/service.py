"""What the worker does, without HTTP: every call is synchronous and may be made from any thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final

from vram_residency.audit.log import AuditLogger
from vram_residency.core.errors import FatalError, NotSealedError, SealVerificationError
from vram_residency.core.version import __version__
from vram_residency.device.base import DeviceInfo, Progress
from vram_residency.formats import ByteSource
from vram_residency.residency import SealedShard, VramManager
from vram_residency.worker import problem, wire
from vram_residency.worker.engine import Engine
from vram_residency.worker.engines import Engines
from vram_residency.worker.incidents import Incidents, Report
from vram_residency.worker.loading import Loading
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.problem import Refused
from vram_residency.worker.roots import ModelRoots
from vram_residency.worker.states import Conditions
from vram_residency.worker.watchman import Watchman

CHECKPOINT_TIMEOUT_S: Final = 10.0


def ignore_progress(_done_bytes: int, _all_bytes: int) -> None:
    """The progress that nobody asks for."""


class WorkerService:
    """One manager, one log, one state. Fatal errors stop it; bad handles do not (worker.md, "States")."""

    def __init__(
        self,
        manager: VramManager,
        audit_logger: AuditLogger,
        *,
        device: DeviceInfo,
        worker_id: str,
        make_engine: Callable[[], Engine],
        options: WorkerOptions,
        report: Report | None = None,
    ) -> None:
        self.manager = manager
        self.audit_logger = audit_logger
        self.options = options
        self.worker_id = worker_id
        self.device = device
        self._started_s = time.monotonic()
        self._roots = ModelRoots(options.model_roots)
        self._loading = Loading(manager, self._roots)
        self._engines = Engines(make_engine, self._loading.folder_of)
        self._incidents = Incidents(audit_logger, worker_id=worker_id, report=report)
        self.watchman = Watchman(audit_logger, worker_id=worker_id, may_be_empty=options.allow_empty_start)

    def begin(self) -> None:
        """Leave the state Starting, after recording what this worker's last session lost.

        Raises AuditError where that cannot be recorded.
        """
        self._incidents.record_lost([shard.shard_id for shard in self.manager.shards()])
        self.watchman.note("the worker has begun", has_begun=True)

    # --- shards ---------------------------------------------------------------------------------------

    def plan(self, request: wire.PlanRequest) -> wire.Plan:
        """Whether a model would fit."""
        with (
            self._incidents.recording_paths(request.path, "/v1/plan"),
            self._incidents.recording_models(request.model_ref or request.path),
        ):
            return self._loading.plan(request)

    def commit_path(
        self, request: wire.CommitRequest, on_progress: Progress = ignore_progress
    ) -> list[wire.Handle]:
        """Load and seal what lies under a model root.

        ``on_progress`` is called with bytes done and bytes in all, and once more when all is sealed: what it
        raises undoes the commit.
        """
        with self._incidents.recording_paths(request.path, "/v1/commit"):
            return self._commit(lambda: self._loading.commit_path(request, on_progress), on_progress)

    def commit_source(
        self, source: ByteSource, request: wire.CommitRequest, on_progress: Progress = ignore_progress
    ) -> list[wire.Handle]:
        """Load and seal the bytes of a request; ``on_progress`` as in ``commit_path``."""
        return self._commit(lambda: [self._loading.commit_source(source, request, on_progress)], on_progress)

    def handles(self) -> list[wire.Handle]:
        """All shards held, quarantined ones included."""
        return [wire.handle_of(self.manager.describe(shard)) for shard in self.manager.shards()]

    def handle(self, shard_id: str) -> wire.Handle:
        """One shard. Raises UnknownShardError."""
        return wire.handle_of(self.manager.describe(shard_id))

    def verify(self, shard_id: str, scope: str) -> wire.Verified:
        """Verify now. Raises as the manager does; damage stops the worker."""
        with self._stopping_on_damage():
            return wire.verified_of(self.manager.verify_sealed(shard_id, scope=scope))

    def attest(self, shard_id: str, request: wire.AttestRequest) -> dict[str, Any]:
        """Verify now and sign that for a third party."""
        with self._stopping_on_damage():
            return self.manager.attest(shard_id, nonce=request.nonce, scope=request.scope)

    def free(self, shard_id: str) -> None:
        """Free a shard. Raises DeviceBusyError, UnknownShardError."""
        self.manager.describe(shard_id)  # a shard that is not there must not cost an engine
        self._engines.close(shard_id)
        self.manager.deallocate(shard_id)
        self._loading.forget(shard_id)
        self._count_shards("a shard was freed")

    def execute(self, request: wire.ExecuteRequest) -> Generator[tuple[str, Any], None, None]:
        """Verify, then run the engine: pairs of event name and data, from ``started`` to ``end``.

        Closing the iterator cancels. Raises before the first pair where the shard is refused.
        """
        self.require_ready()
        handle_id = request.handle_id
        with (
            self.watchman.executing(),
            self._stopping_on_damage(),
            self._engines.turn(handle_id),
            self.manager.execution(handle_id, self.options.execution_scope) as views,
        ):
            report = self.manager.describe(handle_id)
            engine = self._engines.engine_of(report, views)
            yield "started", {"handle_id": handle_id, "digest": report.shard.digest}
            metrics = yield from _executed(engine, request)
        # The shard's turn is over: who reads slowly from here on holds up nobody.
        yield "metrics", metrics
        yield "end", {}

    # --- the whole -----------------------------------------------------------------------------------

    def ready(self) -> wire.Ready:
        """Whether models can be executed: signatures and residency are looked at now, content as configured.

        Damage that is found stops the worker.
        """
        for shard in self.manager.shards():
            with suppress(NotSealedError, SealVerificationError), self._stopping_on_damage():
                self.manager.verify_sealed(shard, scope=self.options.ready_scope)
        conditions = self.watchman.conditions
        return wire.Ready(conditions.is_ready, conditions.state, conditions.stopped_by, self.handles())

    def status(self) -> wire.Status:
        """What ``vram status`` shows."""
        conditions = self.watchman.conditions
        return wire.Status(
            worker_id=self.worker_id,
            state=conditions.state,
            reason=conditions.stopped_by,
            version=__version__,
            device=self.device.name,
            device_uuid=self.device.uuid,
            capacity=self.manager.capacity(),
            shards=len(self.manager.shards()),
            executions=conditions.executions,
            uptime_s=time.monotonic() - self._started_s,
        )

    def audit(self, filters: Mapping[str, Any]) -> Iterator[bytes]:
        """Lines of the audit log, without newline. Filters as in AuditLogger.query."""
        return self.audit_logger.query(**filters)

    def checkpoint(self) -> bytes:
        """The signed checkpoint over everything accepted so far. Raises Refused without a log."""
        signed = self.audit_logger.flush(timeout_s=CHECKPOINT_TIMEOUT_S)
        if signed is None:
            raise Refused(problem.NOT_FOUND, "this worker keeps no audit log on disk")
        return bytes(signed)

    def require_admitting(self) -> None:
        """Raise Refused where no new work is taken."""
        conditions = self.watchman.conditions
        if not conditions.admits:
            raise Refused(problem.WORKER_STOPPED, f"the worker takes no work: {_why(conditions)}")

    def require_ready(self) -> None:
        """Raise Refused where nothing can be executed."""
        conditions = self.watchman.conditions
        if not conditions.is_ready:
            raise Refused(problem.WORKER_STOPPED, f"the worker is not ready: {_why(conditions)}")

    def close(self) -> None:
        """Let engines go, free and audit every shard; the log is its owner's to close."""
        self._engines.close_all()
        self.manager.close()
        self._roots.close()
        self.watchman.note("the worker has ended", has_ended=True)

    def _commit(self, seal: Callable[[], list[SealedShard]], on_progress: Progress) -> list[wire.Handle]:
        self.require_admitting()
        with ExitStack() as undo:
            with self._stopping_on_damage():
                shards = seal()
            for shard in shards:
                undo.callback(self.manager.deallocate, shard)
            size_bytes = sum(shard.vram_bytes for shard in shards)
            on_progress(size_bytes, size_bytes)
            undo.pop_all()
        self._count_shards("a model was sealed")
        return [self.handle(shard.shard_id) for shard in shards]

    @contextmanager
    def _stopping_on_damage(self) -> Iterator[None]:
        """What is fatal stops the worker for good, before its caller hears of it."""
        try:
            yield
        except FatalError as error:
            self.watchman.stop(str(error))
            self._count_shards("a shard was quarantined")
            raise

    def _count_shards(self, reason: str) -> None:
        usable = sum(handle.state == "sealed" for handle in self.handles())
        self.watchman.note(reason, usable_shards=usable)


def _executed(
    engine: Engine, request: wire.ExecuteRequest
) -> Generator[tuple[str, Any], None, dict[str, Any]]:
    """The engine's outputs; returns what they cost. Its own iterator is closed however this ends."""
    began_s, outputs = time.monotonic(), 0
    found = engine.execute({"input": request.input, "params": request.params})
    with ExitStack() as end:
        end.callback(getattr(found, "close", lambda: None))
        for output in found:
            outputs += 1
            yield "output", output
    return {"outputs": outputs, "duration_s": time.monotonic() - began_s}


def _why(conditions: Conditions) -> str:
    return conditions.stopped_by or f"it is {conditions.state}"
