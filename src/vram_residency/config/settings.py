"""Every setting of ``vram serve``, as one frozen tree (docs/format/worker-configuration.md).

The defaults are the safe ones. What a field may hold stands in its type; rules between fields are checked
when the tree is made, and raise ConfigurationError with the key.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from vram_residency.core.errors import ConfigurationError
from vram_residency.worker.limits import Limits, Rate

Positive = Annotated[int, msgspec.Meta(ge=1)]
Bytes = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Worker(_Section, frozen=True, kw_only=True):
    """The device, what may run on it, and what runs it. ``policy`` development must be written out."""

    id: str = "worker-gpu-0"
    device: str = "auto"
    gpu_device: Annotated[int, msgspec.Meta(ge=0)] = 0
    policy: Literal["strict", "development"] = "strict"
    capacity_bytes: Positive | None = None
    headroom_bytes: Bytes | None = None
    engine: str = "echo-stats"
    model_roots: tuple[Path, ...] = ()
    allow_empty_start: bool = False
    execution_scope: Literal["full", "fast", "sample"] | None = None
    ready_scope: Literal["full", "fast", "sample"] = "sample"


class Seal(_Section, frozen=True, kw_only=True):
    """The seal token's 0600 file; None: a systemd credential, else the environment with a warning."""

    token_file: Path | None = None


class Audit(_Section, frozen=True, kw_only=True):
    """The audit log. ``service_id`` None: the one that the log was made for."""

    directory: Path | None = None
    keys: Path | None = None
    service_id: str | None = None
    create: bool = False
    required: bool = True


class Listen(_Section, frozen=True, kw_only=True):
    """The Unix socket; None is the default place (worker.places)."""

    socket: Path | None = None


class Tcp(_Section, frozen=True, kw_only=True):
    """A TCP port. ``host`` is an address, not a name: what is opened must be what was read.

    It needs ``tokens_file`` or ``client_ca``, and beyond loopback ``certificate`` and ``key``. ``hosts`` are
    further values of the Host header, ``origins`` those of Origin, that are taken.
    """

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8443
    tokens_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    client_scopes: tuple[Literal["read", "execute", "admin", "audit"], ...] = ("read",)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ipaddress.ip_address(self.host).is_loopback

    def __post_init__(self) -> None:
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            raise ConfigurationError("tcp.host", f"must be an IP address, not {self.host!r}") from None
        if not self.enabled:
            return
        if (self.certificate is None) != (self.key is None):
            missing = "tcp.key" if self.key is None else "tcp.certificate"
            raise ConfigurationError(missing, "certificate and key come together")
        if self.certificate is None and not self.is_loopback:
            raise ConfigurationError(
                "tcp.certificate",
                f"is missing: {self.host} can be reached from elsewhere, and others see the tokens",
                hint="Set tcp.certificate and tcp.key, or listen on 127.0.0.1 behind a proxy with TLS.",
            )
        if self.client_ca is not None and self.certificate is None:
            raise ConfigurationError("tcp.client_ca", "needs tcp.certificate and tcp.key")
        if self.tokens_file is None and self.client_ca is None:
            raise ConfigurationError(
                "tcp.tokens_file",
                "is missing: TCP always authenticates, loopback included",
                hint="Make one with `vram serve new-token FILE --name NAME --scope read`; or tcp.client_ca.",
            )


class LimitSettings(_Section, frozen=True, kw_only=True):
    """How much anybody may ask for; worker.limits says what each number bounds."""

    body_bytes_max: Positive = Limits().body_bytes_max
    json_bytes_max: Positive = Limits().json_bytes_max
    header_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = Limits().header_bytes_max
    header_count_max: Annotated[int, msgspec.Meta(ge=8)] = Limits().header_count_max
    connections_max: Positive = Limits().connections_max
    requests_max: Annotated[int, msgspec.Meta(ge=1, le=1024)] = Limits().requests_max
    requests_per_s: Positive = Limits().requests.per_s
    failures_per_s: Positive = Limits().failures.per_s
    header_timeout_s: Seconds = Limits().header_timeout_s
    body_timeout_s: Seconds = Limits().body_timeout_s
    keep_alive_s: Seconds = Limits().keep_alive_s

    def limits(self) -> Limits:
        """As the server takes them; a burst is one second's worth."""
        plain = msgspec.structs.asdict(self)
        requests, failures = plain.pop("requests_per_s"), plain.pop("failures_per_s")
        return Limits(**plain, requests=Rate(requests, requests), failures=Rate(failures, failures))


class Drain(_Section, frozen=True, kw_only=True):
    """The end: so many seconds are given to what runs when SIGTERM comes."""

    deadline_s: Seconds = 30.0


class Narration(_Section, frozen=True, kw_only=True):
    """The story on stderr."""

    level: Literal["mute", "debug", "info", "warn", "error"] = "info"
    form: Literal["console", "json"] = "console"


class Model(_Section, frozen=True, kw_only=True):
    """A model that is sealed at the start; ``path`` lies under a model root."""

    path: str
    shard_id: str | None = None
    expected_digest: str | None = None
    model_ref: str | None = None


class Settings(_Section, frozen=True, kw_only=True):
    """All sections. ``models`` are sealed in this order before the worker is ready."""

    worker: Worker = Worker()
    seal: Seal = Seal()
    audit: Audit = Audit()
    listen: Listen = Listen()
    tcp: Tcp = Tcp()
    limits: LimitSettings = LimitSettings()
    drain: Drain = Drain()
    narration: Narration = Narration()
    models: tuple[Model, ...] = ()

    def __post_init__(self) -> None:
        if self.audit.directory is None and self.audit.required:
            raise ConfigurationError(
                "audit.directory",
                "is missing: a worker keeps a log",
                hint="Make one with `vram audit init DIR --service NAME`, and name DIR.",
            )
        if self.models and not self.worker.model_roots:
            raise ConfigurationError(
                "worker.model_roots", "is empty, and models are to be sealed at the start"
            )
