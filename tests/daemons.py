"""A real `vram serve` in a process of its own, for tests that drive, strike and end it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.shards import TOKEN

#: An engine that goes on until the file named by ``params.until`` is there.
SLOW_ENGINE = """
import pathlib, time

class Slow:
    def load(self, views, metadata):
        pass

    def execute(self, request):
        until = request["params"].get("until")
        yield {"began": True}
        while until and not pathlib.Path(until).exists():
            time.sleep(0.01)
        yield {"done": True}

    def close(self):
        pass
"""


@dataclass
class Daemon:
    """A worker that runs."""

    process: subprocess.Popen[str]
    root: Path
    listening: dict[str, Any]

    @property
    def socket(self) -> str:
        return self.listening["socket"]

    @property
    def url(self) -> str:
        return f"http://{self.listening['tcp']}"

    def client(self, **options: Any) -> httpx.Client:
        """Connections to its Unix socket."""
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=self.socket), base_url="http://localhost", timeout=60, **options
        )

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def events(self, event_type: str | None = None) -> list[dict[str, Any]]:
        """The log's entries, those of a type where one is given."""
        return events_of(self.root / "audit", event_type)


def events_of(log: Path, event_type: str | None = None) -> list[dict[str, Any]]:
    """The entries on disk, in order."""
    lines = [
        line for path in sorted((log / "entries").glob("*.jsonl")) for line in path.read_bytes().split(b"\n")
    ]
    entries = [json.loads(line) for line in lines if line]
    return [entry for entry in entries if event_type in {None, entry["event_type"]}]


def vram(*words: object, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    command = [sys.executable, "-m", "vram_residency", *map(str, words)]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environ or {})},
    )


def write_config(root: Path, *, models: Sequence[dict[str, str]] = (), **sections: dict[str, Any]) -> Path:
    """A configuration for ``root``: host device, a log, a socket; ``sections`` add to it and override."""
    seal = root / "seal-token"
    seal.write_text(TOKEN)
    seal.chmod(0o600)
    tree: dict[str, dict[str, Any]] = {
        "worker": {
            "device": "host",
            "policy": "development",
            "capacity_bytes": 64 << 20,
            "allow_empty_start": True,
            "model_roots": [str(root)],
        },
        "seal": {"token_file": str(seal)},
        "audit": {"directory": str(root / "audit"), "keys": str(root / "keys"), "create": True},
        "listen": {"socket": str(root / "run" / "worker.sock")},
        "narration": {"level": "warn"},
    }
    for name, values in sections.items():
        tree.setdefault(name, {}).update(values)
    path = root / "worker.toml"
    tables = [(f"[{name}]", values) for name, values in tree.items()]
    tables += [("[[models]]", model) for model in models]
    lines = [
        line
        for head, values in tables
        for line in (head, *(f"{k} = {json.dumps(v)}" for k, v in values.items()))
    ]
    path.write_text("\n".join(lines))
    return path


def install_slow_engine(root: Path) -> dict[str, str]:
    """Make the engine `slow` known to a process with the environment returned."""
    folder = root / "plugins"
    info = folder / "slow_engine-1.dist-info"
    info.mkdir(parents=True)
    (folder / "slow_engine.py").write_text(SLOW_ENGINE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-engine\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[vram_residency.engines]\nslow = slow_engine:Slow\n")
    return {"PYTHONPATH": str(folder)}


@contextmanager
def daemon(
    root: Path,
    *,
    environ: dict[str, str] | None = None,
    models: Sequence[dict[str, str]] = (),
    **sections: dict[str, Any],
) -> Iterator[Daemon]:
    """Start a worker, wait until it answers, and kill it at the end if it still runs."""
    config = write_config(root, models=models, **sections)
    command = [sys.executable, "-m", "vram_residency", "serve", "--config", str(config), "--json"]
    with (root / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, **(environ or {})}
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, (root / "stderr").read_text()
        listening = json.loads(line)
        assert "error" not in listening, listening
        yield Daemon(process, root, listening)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def wait_until(condition: Any, *, patience_s: float = 60.0) -> None:
    """Look again and again until ``condition()`` holds; an error after ``patience_s``."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, "it never came true"
        time.sleep(0.02)
