"""The audit log over HTTP, and what a worker that died had held."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.shards import write_model
from tests.workers import open_log, require_problem, worker

from vram_residency.audit import VramSealed
from vram_residency.audit.format.checkpoint import Checkpoint
from vram_residency.audit.reading.verification import verify


def lines(text: str) -> list[dict[str, object]]:
    """Parsed entries."""
    return [json.loads(line) for line in text.splitlines()]


def test_entries_come_as_they_stand_in_the_log(tmp_path: Path):
    with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
        running.commit(write_model(tmp_path, 10), shard_id="s")
        answer = running.client.get("/v1/audit")
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        assert answer.content.splitlines() == list(log.query())[: len(answer.content.splitlines())]
        types = [each["event_type"] for each in lines(answer.text)]
        assert types[0] == "log_opened"
        assert "vram_sealed" in types


@pytest.mark.parametrize(
    ("query", "types"),
    [
        ("?event=vram_sealed", ["vram_sealed"]),
        ("?event=vram.sealed&event=vram_allocated", ["vram_allocated", "vram_sealed"]),
        ("?shard=s", ["vram_sealed"]),
        ("?shard=other", []),
        ("?severity=MEDIUM", ["policy_violation"]),
        ("?since=2999-01-01", []),
        ("?until=2000-01-01T00:00:00Z", []),
        ("?limit=1", ["log_opened"]),
        ("?limit=0", []),
    ],
)
def test_the_filters_are_those_of_the_command(query: str, types: list[str], tmp_path: Path):
    with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
        running.commit(write_model(tmp_path, 10), shard_id="s")
        answer = running.client.get(f"/v1/audit{query}")
    assert [each["event_type"] for each in lines(answer.text)] == types


@pytest.mark.parametrize(
    "query",
    ["?since=yesterday", "?limit=-1", "?limit=x", "?severity=LOUD", "?misspelt=1", "?shard=a&shard=b"],
)
def test_a_filter_that_means_nothing_is_refused(query: str, tmp_path: Path):
    with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
        require_problem(running.client.get(f"/v1/audit{query}"), 400, "INVALID_PARAMS")


def test_the_checkpoint_covers_what_was_acknowledged(tmp_path: Path):
    with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
        running.commit(write_model(tmp_path, 10), shard_id="s")
        answer = running.client.get("/v1/audit/checkpoint")
        entries = lines(running.client.get("/v1/audit").text)
    text = answer.text.partition("\n\n")[0] + "\n"
    assert Checkpoint.parse(text).size <= len(entries)
    assert Checkpoint.parse(text).size > 1


def test_a_worker_without_a_log_has_no_checkpoint(tmp_path: Path):
    with worker(tmp_path) as running:
        require_problem(running.client.get("/v1/audit/checkpoint"), 404, "INVALID_PARAMS")
        assert running.client.get("/v1/audit").text == ""


# --- what a worker that died had held -----------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from tests.workers import open_log, worker
root = Path(sys.argv[1])
log = open_log(root / "log")
with worker(root, log=log) as running:
    for name in ("kept-1", "freed", "kept-2"):
        running.commit(root / "model.safetensors", shard_id=name)
    running.client.delete("/v1/shards/freed")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_shards_of_a_killed_worker_are_recorded_as_lost_at_the_next_start(tmp_path: Path):
    write_model(tmp_path, 1000)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=Path(__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        assert child.stdout.readline() == b"ready\n", child.stderr.read().decode()
        child.send_signal(signal.SIGKILL)
        child.wait()
    for is_news in (True, False):
        with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
            found = lines(running.client.get("/v1/audit?event=shards_lost").text)
            assert [each["shard_ids"] for each in found] == [["kept-1", "kept-2"]]
            assert ("shards_lost" in [each.action for each in running.story.events]) == is_news
    assert verify(tmp_path / "log", keys=tmp_path / "log.keys").verdict == "intact"


def test_a_worker_that_ended_well_lost_nothing(tmp_path: Path):
    for _ in range(2):
        with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
            running.commit(write_model(tmp_path, 10))
            assert running.client.get("/v1/audit?event=shards_lost").text == ""


def test_shards_of_another_worker_are_not_ours_to_lose(tmp_path: Path):
    with open_log(tmp_path / "log") as log:
        log.emit(
            VramSealed(
                shard_id="x", gpu_device=1, vram_bytes=1, digest="blake3:" + "0" * 64, worker_id="another"
            )
        )
    with open_log(tmp_path / "log") as log, worker(tmp_path, log=log) as running:
        assert running.client.get("/v1/audit?event=shards_lost").text == ""
