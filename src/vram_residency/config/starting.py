"""From settings to a worker that serves, and from there to its end: the one place where all parts meet."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec
from litestar.types import ControllerRouterHandler

from vram_residency import narration
from vram_residency.audit.log import AuditLogger
from vram_residency.audit.store.directory import Directory
from vram_residency.config.settings import Settings, Tcp
from vram_residency.core.errors import ConfigurationError
from vram_residency.core.keys import load_seal_token, read_secret_file
from vram_residency.dashboard import Dashboard
from vram_residency.residency import ManagerOptions, VramManager
from vram_residency.residency.opening import device_of
from vram_residency.residency.scope import parse_scope
from vram_residency.worker import serving, wire
from vram_residency.worker.app import create_app
from vram_residency.worker.doorkeeper import Doorkeeper, Rules
from vram_residency.worker.engines import engine_maker
from vram_residency.worker.metrics import WorkerMetrics
from vram_residency.worker.metrics_route import metrics_route
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.places import default_socket
from vram_residency.worker.reporter import Reporter
from vram_residency.worker.roots import ModelRoots
from vram_residency.worker.service import WorkerService
from vram_residency.worker.serving import Serving, TcpPlace
from vram_residency.worker.threads import Threads
from vram_residency.worker.tokens import Tokens, parse_tokens

_DEFAULT_SERVICE: Final = "vram-worker"
#: What engines that still compute are given at an end that did not wait for them.
_CUT_S: Final = 3.0


class Listening(msgspec.Struct, frozen=True):
    """Where the worker answers: ``tcp`` is ``host:port``."""

    pid: int
    socket: str
    tcp: str | None


class Secrets(msgspec.Struct, frozen=True):
    """What is read from secret files; never shown, never kept in a log."""

    seal_token: str
    tokens: Tokens | None

    def __repr__(self) -> str:
        return "Secrets(…)"


def serve(settings: Settings, on_ready: Callable[[Listening], object]) -> bool:
    """Run a worker until a signal ends it; True when everything that ran could finish.

    ``on_ready`` is called once all models of the settings are sealed. Raises ConfigurationError and whatever
    opening the log, the device and the models raises; what was begun is undone then.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the seal key
    narration.configure(level=settings.narration.level, form=settings.narration.form)
    # 1. Everything that can refuse before anything has an effect.
    secrets = check(settings)
    with ExitStack() as undo:
        # 2. Who else is here?
        path = socket_path(settings)
        unix = undo.enter_context(serving.listen_unix(path))
        undo.callback(path.unlink, missing_ok=True)
        place = _place(settings.tcp)
        tcp = None if place is None else (undo.enter_context(serving.listen_tcp(place)), place)
        listening = Listening(os.getpid(), str(path), None if tcp is None else _name_of(tcp[0]))
        # 3. The log, before anything that it has to tell of.
        logger = undo.enter_context(_log(settings))
        reporter = Reporter(logger)
        undo.callback(reporter.close)
        service, metrics = undo.enter_context(_service(settings, secrets, logger, reporter))
        page = Dashboard(service)
        undo.callback(page.close)
        # 4. Serve.

        def begin() -> None:
            service.begin()
            for model in settings.models:
                service.commit_path(wire.CommitRequest(**msgspec.structs.asdict(model)))
            on_ready(listening)

        routes: list[ControllerRouterHandler] = [*page.routers, metrics_route(metrics)]
        rules = rules_of(settings, secrets, tcp)
        server = _serving(settings, service, rules, reporter, routes=routes, on_signal=page.close)
        is_drained = asyncio.run(server.run(unix, tcp, begin))
        if not is_drained:
            _cut(undo.pop_all().close)
        return is_drained


def check(settings: Settings) -> Secrets:
    """Read and judge all that the settings name, without an effect. Raises ConfigurationError."""
    seal_token = load_seal_token(settings.seal.token_file)
    tokens = None
    if settings.tcp.enabled and settings.tcp.tokens_file is not None:
        tokens = parse_tokens(read_secret_file(settings.tcp.tokens_file))
        if tokens.find(seal_token, 0.0) is not None:
            raise ConfigurationError("tcp.tokens_file", "holds the seal token, which is no credential")
    place = _place(settings.tcp)
    if place is not None:
        serving.tls_of(place)
    engine_maker(settings.worker.engine)
    ModelRoots(settings.worker.model_roots).close()
    socket_path(settings)
    _require_log(settings)
    return Secrets(seal_token, tokens)


def socket_path(settings: Settings) -> Path:
    """The Unix socket. Raises ConfigurationError where nobody says which."""
    return settings.listen.socket or default_socket(os.environ)


def rules_of(settings: Settings, secrets: Secrets, tcp: tuple[socket.socket, TcpPlace] | None) -> Rules:
    """Who is let in: this user and root on the Unix socket, tokens and certificates on TCP."""
    uids = frozenset({os.getuid(), 0})
    if tcp is None:
        return Rules(uids=uids)
    port = tcp[0].getsockname()[1]
    hosts = _hosts_of(settings.tcp, port)
    scheme = "http" if settings.tcp.certificate is None else "https"
    return Rules(
        uids=uids,
        tokens=secrets.tokens,
        certificate_scopes=frozenset(settings.tcp.client_scopes),
        hosts=hosts,
        origins=frozenset({origin.lower() for origin in settings.tcp.origins})
        | {f"{scheme}://{host}" for host in hosts},
    )


def _hosts_of(tcp: Tcp, port: int) -> frozenset[str]:
    address = f"[{tcp.host}]" if ":" in tcp.host else tcp.host
    names = [address, *tcp.hosts]
    if tcp.is_loopback:
        names += ["localhost", "127.0.0.1", "[::1]"]
    return frozenset(
        name.lower() if ":" in name.rpartition("]")[2] else f"{name.lower()}:{port}" for name in names
    )


def _serving(
    settings: Settings,
    service: WorkerService,
    rules: Rules,
    reporter: Reporter,
    *,
    routes: Sequence[ControllerRouterHandler],
    on_signal: Callable[[], object],
) -> Serving:
    limits = settings.limits.limits()
    doorkeeper = Doorkeeper(rules, limits, reporter)
    app = create_app(
        service,
        route_handlers=routes,
        wrappers=(doorkeeper.wrap,),
        guards=(doorkeeper.guard,),
        threads=Threads(limits.requests_max),
    )
    return Serving(
        app,
        watchman=service.watchman,
        doorkeeper=doorkeeper,
        reporter=reporter,
        limits=limits,
        deadline_s=settings.drain.deadline_s,
        on_signal=on_signal,
    )


@contextmanager
def _log(settings: Settings) -> Iterator[AuditLogger]:
    audit = settings.audit
    if audit.directory is None:
        yield AuditLogger.disabled()
        return
    service_id = audit.service_id or _service_of(audit.directory)
    with AuditLogger.open(
        audit.directory, service_id=service_id, keys=audit.keys, create=audit.create
    ) as logger:
        yield logger


def _service_of(directory: Path) -> str:
    """The service that a log was made for."""
    place = Directory(directory)
    return place.read_config()[0].service_id if place.is_log else _DEFAULT_SERVICE


def _require_log(settings: Settings) -> None:
    audit = settings.audit
    if audit.directory is None or audit.create or Directory(audit.directory).is_log:
        return
    raise ConfigurationError(
        "audit.directory",
        f"{audit.directory} is no audit log",
        hint=f"Make it: vram audit init {audit.directory} --service {audit.service_id or _DEFAULT_SERVICE}",
    )


@contextmanager
def _service(
    settings: Settings, secrets: Secrets, logger: AuditLogger, reporter: Reporter
) -> Iterator[tuple[WorkerService, WorkerMetrics]]:
    worker = settings.worker
    manager_options = ManagerOptions(
        capacity_bytes=worker.capacity_bytes,
        headroom_bytes=worker.headroom_bytes,
        audit_required=settings.audit.required,
    )
    with ExitStack() as undo:
        device = device_of(
            worker.device, logger, worker_id=worker.id, gpu_device=worker.gpu_device, options=manager_options
        )
        undo.callback(device.close)
        metrics = WorkerMetrics(device.info, worker.id)
        manager = VramManager.new_with_token(
            secrets.seal_token,
            worker.gpu_device,
            logger,
            worker.id,
            device=device,
            policy=worker.policy,
            options=msgspec.structs.replace(manager_options, observer=metrics),
        )
        undo.callback(manager.close)
        service = WorkerService(
            manager,
            logger,
            device=device.info,
            worker_id=worker.id,
            make_engine=engine_maker(worker.engine),
            options=_worker_options(settings),
            report=reporter.report,
        )
        undo.callback(service.close)
        metrics.watch(service)
        yield service, metrics


def _worker_options(settings: Settings) -> WorkerOptions:
    worker = settings.worker
    scope = worker.execution_scope
    return WorkerOptions(
        model_roots=worker.model_roots,
        allow_empty_start=worker.allow_empty_start,
        execution_scope=None if scope is None else parse_scope(scope),
        ready_scope=parse_scope(worker.ready_scope),
        body_bytes_max=settings.limits.body_bytes_max,
    )


def _place(tcp: Tcp) -> TcpPlace | None:
    if not tcp.enabled:
        return None
    return TcpPlace(
        host=tcp.host,
        port=tcp.port,
        certificate=tcp.certificate,
        key=tcp.key,
        client_ca=tcp.client_ca,
        is_certificate_needed=tcp.client_ca is not None and tcp.tokens_file is None,
    )


def _name_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cut(close: Callable[[], object]) -> None:
    """Close as far as engines that still compute allow: the kernel takes what is left with the process."""
    closing = threading.Thread(target=close, name="vram-close", daemon=True)
    closing.start()
    closing.join(_CUT_S)
