"""A worker with a page, on TCP, in a process of its own: ``python -m tests.page_process DIRECTORY``.

It prints one JSON line with its address and tokens, and does what its standard input says, a JSON list a
line: ["seal", id, bytes, model_ref], ["flip", id, offset], ["narrate", text], ["end"]. Each is answered by a
line.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.model_files import entry, safetensors_file
from tests.shards import TOKEN

from vram_residency import AuditLogger, VramManager, narration
from vram_residency.dashboard import Dashboard
from vram_residency.testing import FaultDevice
from vram_residency.worker import serving
from vram_residency.worker.app import create_app
from vram_residency.worker.doorkeeper import Doorkeeper, Rules
from vram_residency.worker.echo_stats import EchoStats
from vram_residency.worker.limits import Limits
from vram_residency.worker.options import WorkerOptions
from vram_residency.worker.reporter import Reporter
from vram_residency.worker.service import WorkerService
from vram_residency.worker.threads import Threads
from vram_residency.worker.tokens import Token, Tokens, sha256_of

CAPACITY = 64 << 20
TOKENS = {
    "operator": ("vrt_" + "o" * 43, ("read", "execute", "admin", "audit")),
    "reader": ("vrt_" + "r" * 43, ("read",)),
}


def main(directory: Path) -> None:
    """Serve until standard input ends or says so."""
    narration.configure(level="error")
    device = FaultDevice(capacity_bytes=CAPACITY)
    with AuditLogger.open(directory / "log", service_id="page", create=True) as log:
        reporter = Reporter(log)
        manager = VramManager.new_with_token(TOKEN, 0, log, "worker-gpu-0", device=device)
        service = WorkerService(
            manager,
            log,
            device=device.info,
            worker_id="worker-gpu-0",
            make_engine=EchoStats,
            options=WorkerOptions(allow_empty_start=True),
            report=reporter.report,
        )
        page = Dashboard(service)
        try:
            asyncio.run(_serve(directory, service, device, reporter=reporter, page=page))
        finally:
            page.close()
            reporter.close()
            service.close()


async def _serve(
    directory: Path, service: WorkerService, device: FaultDevice, *, reporter: Reporter, page: Dashboard
) -> None:
    place = serving.TcpPlace(host="127.0.0.1", port=0)
    tcp = serving.listen_tcp(place)
    host = f"127.0.0.1:{tcp.getsockname()[1]}"
    limits = Limits()
    tokens = Tokens(
        tuple(
            Token(name=name, sha256=sha256_of(value), scopes=frozenset(scopes))
            for name, (value, scopes) in TOKENS.items()
        )
    )
    rules = Rules(
        uids=frozenset(), tokens=tokens, hosts=frozenset({host}), origins=frozenset({f"http://{host}"})
    )
    doorkeeper = Doorkeeper(rules, limits, reporter)
    app = create_app(
        service,
        route_handlers=page.routers,
        wrappers=(doorkeeper.wrap,),
        guards=(doorkeeper.guard,),
        threads=Threads(limits.requests_max),
    )
    server = serving.Serving(
        app,
        watchman=service.watchman,
        doorkeeper=doorkeeper,
        reporter=reporter,
        limits=limits,
        deadline_s=5,
        on_signal=page.close,
    )

    def begin() -> None:
        service.begin()
        _say({"url": f"http://{host}/"})
        threading.Thread(target=_obey, args=(service, device, server._signal, loop), daemon=True).start()

    loop = asyncio.get_running_loop()
    private = directory / "run"
    private.mkdir(mode=0o700)
    await server.run(serving.listen_unix(private / "worker.sock"), (tcp, place), begin)


def _say(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _obey(service: WorkerService, device: FaultDevice, end: Callable[[], None], loop: Any) -> None:
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        if command == "end":
            break
        try:
            _do(service, device, command, arguments)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, the test is told
            _say(repr(error))
        else:
            _say("done")
    loop.call_soon_threadsafe(end)


def _do(service: WorkerService, device: FaultDevice, command: str, arguments: list[Any]) -> None:
    if command == "seal":
        shard_id, size_bytes, model_ref, *names = arguments
        service.manager.seal_model(
            model(size_bytes, *names), shard_id=shard_id, model_ref=model_ref, format="safetensors"
        )
        service._count_shards("a model was sealed")
    elif command == "flip":
        shard_id, offset = arguments
        device.flip_bit(shard_id, offset)
    elif command == "narrate":
        narration.narrate(action="worker_state", target="page", human=arguments[0], level="warn")


def model(size_bytes: int, name: str = "layer.0.weight") -> bytes:
    """A model of one tensor."""
    data = random.Random(size_bytes).randbytes(size_bytes)
    return safetensors_file({name: entry(0, size_bytes)}, data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
