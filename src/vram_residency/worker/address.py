"""Where a worker listens, and how its client shows who asks: a Unix socket, or a URL with a token."""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct

from vram_residency.core.errors import ConfigurationError, WorkerUnreachableError

if TYPE_CHECKING:
    import httpx

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Address(Struct, frozen=True, kw_only=True):
    """One way to a worker. Raises ConfigurationError where it is unsafe or contradicts itself.

    socket: the worker's Unix socket; None, without a url, is that of this user. url: ``https://host:port``,
    or ``http://`` on this machine alone. token: the bearer token for it, never the seal token. authority:
    PEM file of the certificate authority to trust; certificate: PEM file of one's own key and certificate.
    """

    socket: Path | None = None
    url: str | None = None
    token: str | None = None
    authority: Path | None = None
    certificate: Path | None = None

    def __post_init__(self) -> None:
        if self.url is None:
            if self.token or self.authority or self.certificate:
                raise ConfigurationError(
                    "token", "is of no use at a Unix socket", hint="Name the worker's url."
                )
            return
        if self.socket is not None:
            raise ConfigurationError("socket", "contradicts url", hint="Name one of the two.")
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError("url", "must be https://HOST:PORT or http://localhost:PORT")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ConfigurationError("url", "must hold no user, password, query or fragment")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ConfigurationError("url", "must be https:// to another machine: who listens could read it")

    def __str__(self) -> str:
        return self.url or str(self.socket_path)

    @property
    def socket_path(self) -> Path:
        """The Unix socket. Raises WorkerUnreachableError where nobody says which."""
        from vram_residency.worker.places import default_socket

        if self.socket is not None:
            return self.socket
        try:
            return default_socket(os.environ)
        except ConfigurationError as error:
            raise WorkerUnreachableError("this user's socket", str(error), hint=error.hint) from None

    def require_socket(self) -> None:
        """Raise OSError where the Unix socket is missing: whoever connects is told less."""
        if self.url is None and not self.socket_path.is_socket():
            raise FileNotFoundError("there is no such socket")

    def open_http(self) -> httpx.Client:
        """Connections to it; none is made before the first call. Proxies of the environment are not used."""
        import httpx

        if self.url is None:
            transport = httpx.HTTPTransport(uds=str(self.socket_path))
            return httpx.Client(transport=transport, base_url="http://localhost", trust_env=False)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=self._tls(), trust_env=False)

    def _tls(self) -> ssl.SSLContext:
        try:
            tls = ssl.create_default_context(cafile=self.authority)
            if self.certificate is not None:
                tls.load_cert_chain(self.certificate)
        except OSError as error:  # SSLError is one
            raise ConfigurationError("certificate", f"cannot be used: {error}") from None
        return tls
