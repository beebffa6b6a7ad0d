"""The OpenAPI document is true: schemathesis asks for everything that it promises, and finds nothing."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.shards import write_model
from tests.workers import Worker, worker

CONFIGURATION = Path(__file__).parents[2] / "schemathesis.toml"
# .ci/run takes its time; elsewhere only what is derived from the document without chance.
LONG = ["--phases=examples,coverage,fuzzing,stateful", "--max-examples=15", "--max-time=60"]
SHORT = ["--phases=examples,coverage", "--max-time=30"]


@contextmanager
def on_tcp(app: Any) -> Iterator[str]:
    """An application on the loopback interface; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        configuration = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(configuration)

        def run() -> None:
            with asyncio.Runner() as runner:
                runner.run(server.serve([listener]))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Worker]:
    """A worker that is ready, with one shard."""
    with worker(tmp_path, allow_empty_start=True) as running:
        running.commit(write_model(tmp_path, 1000), shard_id="s")
        yield running


def test_every_operation_is_described(empty: Worker):
    document = empty.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for operation in operations.values():
            problem = operation["responses"]["default"]["content"]["application/problem+json"]
            assert problem["schema"]["$ref"].endswith("/Problem"), path
            assert operation["summary"], path
    assert set(document["paths"]["/v1/commit"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "application/octet-stream",
    }
    named = {each["name"] for each in document["paths"]["/v1/audit"]["get"]["parameters"]}
    assert {"event", "shard", "actor", "since", "until", "severity", "limit"} <= named


def test_no_reference_leads_nowhere(empty: Worker):
    answer = empty.client.get("/openapi.json")
    schemas = answer.json()["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', answer.text):
        assert name in schemas


@pytest.mark.timeout(240)
def test_schemathesis_finds_nothing(empty: Worker, tmp_path: Path):
    is_long = "VRAM_TESTS_NEED_TOOLS" in os.environ
    with on_tcp(empty.app) as address:
        run = subprocess.run(
            [
                *(sys.executable, "-W", "ignore", "-m", "schemathesis.cli"),
                *("--config-file", str(CONFIGURATION), "run", f"{address}/openapi.json"),
                *("--no-color", "--seed=1", *(LONG if is_long else SHORT)),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert empty.client.get("/readyz").json()["state"] == "ready"
    assert empty.service.manager.audit_failures == 0
