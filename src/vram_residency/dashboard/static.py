"""The page's files, as they lie in the package: no build step, and nothing fetched from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, Router, get
from litestar.datastructures import State
from litestar.exceptions import NotFoundException

from vram_residency.worker.caller import caller_of

_FOLDER: Final = Path(__file__).parent / "page"
_MEDIA_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
_CONTENT_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; style-src 'self'; connect-src 'self'"
)
HEADERS: Final = {
    "Content-Security-Policy": _CONTENT_POLICY,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def page_router() -> Router:
    """``/`` and ``/page/…``; the files are read once, so that no request names a path."""
    files = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir())}

    @get("/", include_in_schema=False, exclude_from_auth=True, sync_to_thread=False)
    def index() -> Response[bytes]:
        """Show the page."""
        return _answer("index.html", files["index.html"])

    @get("/page/{name:str}", include_in_schema=False, exclude_from_auth=True, sync_to_thread=False)
    def file(name: str) -> Response[bytes]:
        """Give one of the page's files."""
        if name not in files:
            raise NotFoundException(detail="the page has no such file")
        return _answer(name, files[name])

    @get("/page/door", include_in_schema=False, exclude_from_auth=True, sync_to_thread=False)
    def door(request: Request[Any, Any, State]) -> Response[dict[str, bool]]:
        """Say whether the caller is known already, so that the page need not try without a token."""
        return Response({"is_known": caller_of(request.scope) is not None}, headers=HEADERS)

    return Router("/", route_handlers=[index, file, door])


def _answer(name: str, content: bytes) -> Response[bytes]:
    return Response(content, media_type=_MEDIA_TYPES[Path(name).suffix], headers=HEADERS)
