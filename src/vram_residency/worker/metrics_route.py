"""GET /metrics, for Prometheus."""

from __future__ import annotations

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from vram_residency.worker.inject import TheThreads
from vram_residency.worker.metrics import MEDIA_TYPE, WorkerMetrics


def metrics_route(worker_metrics: WorkerMetrics) -> HTTPRouteHandler:
    """The route, for create_app()."""

    @get("/metrics", needs="read", media_type="text/plain")
    async def metrics(threads: TheThreads) -> Response[bytes]:
        """Give the worker's metrics in Prometheus's text format."""
        return Response(await threads.call(worker_metrics.render), media_type=MEDIA_TYPE)

    return metrics
