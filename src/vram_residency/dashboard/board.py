"""The page and all that it needs, over one service: what whoever runs the worker plugs into the app."""

from __future__ import annotations

from litestar import Router, get

from vram_residency.dashboard.overview import Overseer, Overview
from vram_residency.dashboard.static import page_router
from vram_residency.worker.event_routes import event_router
from vram_residency.worker.feed import Feed
from vram_residency.worker.service import WorkerService
from vram_residency.worker.threads import Threads


class Dashboard:
    """Follows log and story from now on. Close it first where the worker ends, for its streams are open."""

    def __init__(self, service: WorkerService) -> None:
        self._feed = Feed(service.audit_logger)
        self._overseer = Overseer(service)
        service.audit_logger.on_written(self._overseer.recollection.take)

    @property
    def routers(self) -> tuple[Router, ...]:
        """``/``, ``/page/…``, ``/v1/overview`` and ``/v1/events``, for create_app()."""
        return page_router(), _overview_router(self._overseer), event_router(self._feed)

    def close(self) -> None:
        """End the streams of events. May be called again."""
        self._feed.close()


def _overview_router(overseer: Overseer) -> Router:
    @get("/overview", needs="read")
    async def overview(threads: Threads) -> Overview:
        """Give all that the page shows, in one document; no shard's memory is read for it."""
        return await threads.call(overseer.overview)

    return Router("/v1", route_handlers=[overview])
