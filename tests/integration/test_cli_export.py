"""`vram audit export` from the outside: what is written where, with which exit code, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from tests.event_table import sample
from tests.export_readers import READERS, cef_extension, entry_line, leaf_hash
from tests.independent_log import SEGMENT, LogMaker, make_log

from vram_residency.audit.exporting.export import FORMATS, Export
from vram_residency.cli import audit_export
from vram_residency.cli.main import main

MAKER = make_log(10)
SIZE = len(MAKER.lines)

Output = pytest.CaptureFixture[bytes]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return MAKER.write(tmp_path / "log")


def _export(log: Path, *words: object) -> int:
    return main(["audit", "export", str(log), *map(str, words)])


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_entry_comes_out_with_its_place_and_its_bytes(
    log: Path, name: str, capfdbinary: Output
) -> None:
    assert _export(log, "--format", name) == 0
    written = capfdbinary.readouterr()
    records = READERS[name](written.out)
    assert [record.entry.encode() for record in records] == MAKER.lines
    assert [record.index for record in records] == list(range(SIZE))
    assert {record.origin for record in records} == {MAKER.origin}
    assert [record.leaf_hash for record in records] == [leaf_hash(line.decode()) for line in MAKER.lines]
    assert written.err == (
        f"{SIZE} entries exported, unverified: `vram audit verify {log}` checks the log.\n".encode()
    )


def test_the_formats_of_the_command_are_those_of_the_code() -> None:
    """The command's list costs no import, so it stands there a second time."""
    assert set(audit_export.FORMATS) == {*FORMATS, "parquet"}


def test_the_filters_are_those_of_query(log: Path, capfdbinary: Output) -> None:
    assert _export(log, "--format", "jsonl", "--event", "vram.sealed", "--shard", "shard-4") == 0
    (record,) = READERS["jsonl"](capfdbinary.readouterr().out)
    assert json.loads(record.entry)["shard_id"] == "shard-4"
    assert (
        _export(log, "--format", "csv", "--event", "vram_sealed", "--limit", 3, "--since", "2025-10-02") == 0
    )
    assert len(READERS["csv"](capfdbinary.readouterr().out)) == 3
    assert _export(log, "--format", "csv", "--until", "2020-01-01") == 0
    assert READERS["csv"](capfdbinary.readouterr().out) == []


def test_a_file_is_written_whole_and_for_its_owner_alone(
    log: Path, tmp_path: Path, capfdbinary: Output
) -> None:
    target = tmp_path / "audit.csv"
    target.write_text("older")
    assert _export(log, "--format", "csv", "--output", target, "--json") == 0
    document = json.loads(capfdbinary.readouterr().out)
    assert document == {
        "origin": MAKER.origin,
        "exported": SIZE,
        "left_out": 0,
        "verified": False,
        "file": str(target),
    }
    assert len(READERS["csv"](target.read_bytes())) == SIZE
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audit.csv", "log"]


def test_a_file_stays_as_it_was_where_the_export_fails(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_export: Export) -> Iterator[None]:
        yield from ()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Export, "records", broken)
    target = tmp_path / "audit.jsonl"
    target.write_text("older")
    assert _export(log, "--format", "jsonl", "--output", target) == 5
    assert target.read_text() == "older"
    assert not (tmp_path / "audit.jsonl.partial").exists()


def test_a_folder_that_is_not_there_is_named_as_it_was_given(
    log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = log.parent / "nowhere" / "audit.csv"
    assert _export(log, "--format", "csv", "--output", target) == 2
    assert capsys.readouterr().err.startswith(f"vram: error: {target}: No such file")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--format", "parquet"], "--output FILE"),
        (["--format", "xml"], "--help"),
        ([], "--help"),
        (["--format", "csv", "--output", "FILE", "--follow"], "pipe"),
        (["--format", "csv", "--output", "FIFO"], "stdout"),
        (["--format", "csv", "--output", "LINK"], "stdout"),
        (["--format", "csv", "--output", ""], "stdout"),
        (["--format", "csv", "--vkey", "a+b+c"], "--verified"),
        (["--format", "csv", "--since", "yesterday"], "2025-10-02"),
        (["--format", "csv", "--verified", "--vkey", "nonsense"], "name+hash+base64"),
    ],
    ids=["parquet", "xml", "none", "follow", "fifo", "link", "empty", "key", "time", "bad key"],
)
def test_what_cannot_be_done_is_one_line_and_a_hint(
    log: Path, capsys: pytest.CaptureFixture[str], words: list[str], hint: str
) -> None:
    tmp_path = log.parent
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "plain").write_text("kept")
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    names = {"FILE": tmp_path / "file", "FIFO": tmp_path / "fifo", "LINK": tmp_path / "link"}
    assert _export(log, *(names.get(word, word) for word in words)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["vram", "hint"]
    assert hint in lines[1]
    assert (tmp_path / "plain").read_text() == "kept"


def test_what_is_not_a_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _export(tmp_path, "--format", "jsonl") == 2
    assert "is not an audit log" in capsys.readouterr().err


def test_lines_that_are_no_entries_are_left_out_counted_and_told(log: Path, capfdbinary: Output) -> None:
    """Two readers could see two different events in such a line; the other entries come all the same."""
    segment = log / "entries" / SEGMENT
    lines = segment.read_bytes().splitlines()
    lines[3] = lines[3].replace(b'"shard_id":', b'"shard_id":"shard-9","shard_id":')
    lines[5] = lines[5].replace(b'"timestamp":"2025-10', b'"timestamp":"2025-99')
    segment.write_bytes(b"\n".join(lines) + b"\n")
    assert _export(log, "--format", "ocsf") == 1
    written = capfdbinary.readouterr()
    assert [record.index for record in READERS["ocsf"](written.out)] == [
        index for index in range(SIZE) if index not in {3, 5}
    ]
    assert b"2 lines are no entry and left out" in written.err


def test_verified_exports_an_intact_log_and_says_so(log: Path, capfdbinary: Output) -> None:
    assert _export(log, "--format", "jsonl", "--verified", "--vkey", MAKER.vkey) == 0
    written = capfdbinary.readouterr()
    assert len(READERS["jsonl"](written.out)) == SIZE
    assert written.err == f"{SIZE} entries exported, verified first.\n".encode()


def test_verified_exports_nothing_of_a_log_that_was_changed(log: Path, capfdbinary: Output) -> None:
    segment = log / "entries" / SEGMENT
    segment.write_bytes(segment.read_bytes().replace(b"shard-4", b"shard-5"))
    assert _export(log, "--format", "jsonl") == 0
    assert len(READERS["jsonl"](capfdbinary.readouterr().out)) == SIZE
    assert _export(log, "--format", "jsonl", "--verified", "--vkey", MAKER.vkey) == 1
    written = capfdbinary.readouterr()
    assert written.out == b""
    assert b"tampered" in written.err


def test_verified_needs_a_key_that_somebody_trusts(log: Path, capfdbinary: Output) -> None:
    """The key that the log itself names could be anybody's."""
    assert _export(log, "--format", "jsonl", "--verified") == 5
    written = capfdbinary.readouterr()
    assert written.out == b""
    assert b"needs a key that you trust" in written.err


def test_verified_leaves_out_what_no_key_vouches_for(tmp_path: Path, capfdbinary: Output) -> None:
    """With the vkey alone that is what came after the checkpoint."""
    maker = LogMaker()
    maker.open()
    checkpoint = maker.checkpoint()
    maker.seal()
    directory = maker.write(tmp_path / "log")
    (directory / "checkpoint").write_bytes(checkpoint)
    assert _export(directory, "--format", "jsonl", "--verified", "--vkey", maker.vkey) == 0
    assert len(READERS["jsonl"](capfdbinary.readouterr().out)) == 1


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_archived_segments_are_exported_and_pruned_ones_are_not_missed(
    log: Path, name: str, capfdbinary: Output
) -> None:
    whole = log / "entries" / SEGMENT
    second = log / "entries" / f"{4:020}.jsonl"
    second.write_bytes(b"".join(line + b"\n" for line in MAKER.lines[4:]))
    archive = zstandard.ZstdCompressor(write_checksum=True).compress(
        b"".join(line + b"\n" for line in MAKER.lines[:4])
    )
    (log / "entries" / f"{SEGMENT}.zst").write_bytes(archive)
    whole.unlink()
    assert _export(log, "--format", name) == 0
    records = READERS[name](capfdbinary.readouterr().out)
    assert [record.entry.encode() for record in records] == MAKER.lines
    (log / "entries" / f"{SEGMENT}.zst").unlink()
    assert _export(log, "--format", name) == 0
    assert [record.index for record in READERS[name](capfdbinary.readouterr().out)] == [*range(4, SIZE)]


def test_without_pyarrow_parquet_is_refused_with_the_command_that_mends_it(
    log: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    target = log.parent / "audit.parquet"
    assert _export(log, "--format", "parquet", "--output", target) == 2
    assert "pip install 'vram-residency[parquet]'" in capsys.readouterr().err
    assert sorted(path.name for path in log.parent.iterdir()) == ["log"]


def test_a_log_without_a_checkpoint_is_exported_all_the_same(log: Path, capfdbinary: Output) -> None:
    """The checkpoint serves the progress alone."""
    (log / "checkpoint").unlink()
    assert _export(log, "--format", "jsonl") == 0
    assert len(READERS["jsonl"](capfdbinary.readouterr().out)) == SIZE


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("198.51.100.7", {"src": "198.51.100.7"}),
        ("2001:DB8::7", {"c6a2Label": "source", "c6a2": "2001:db8::7"}),
        ("198.51.100.7 cs1=forged", {}),
    ],
    ids=["IPv4", "IPv6", "no address"],
)
def test_cef_has_what_it_has_keys_for(ip: str, expected: dict[str, str]) -> None:
    fields = {"attempted_user": "eve=mallory", "reason": "token|expired", "ip": ip, "path": "/v1/load"}
    line = entry_line(3, "auth_failure", fields)
    (record,) = Export(MAKER.origin, [line]).encoded("cef")
    head, _, extension = record.decode().rstrip("\n").rpartition("|5|rt=")
    assert head.startswith("CEF:0|vram-residency|vram-residency|")
    assert head.endswith("|auth_failure|auth failure")
    pairs = cef_extension(f"rt={extension}")
    told = {"suser": "eve=mallory", "reason": "token|expired", "request": "/v1/load"}
    assert pairs.items() >= {**told, **expected, "cs1": MAKER.origin, "rt": "1759399200000"}.items()
    assert {"src", "c6a2"}.intersection(pairs) == {"src", "c6a2"}.intersection(expected)


def test_an_export_can_be_an_entry_of_the_log_itself(tmp_path: Path, capfdbinary: Output) -> None:
    """Whoever takes the log away is in it, and in what is taken."""
    directory, keys = tmp_path / "log", tmp_path / "keys"
    assert main(["audit", "init", str(directory), "--service", "w-0", "--keys", str(keys)]) == 0
    capfdbinary.readouterr()
    words = ["--record-access", "--keys", keys, "--event", "audit_log_accessed", "--verified"]
    assert _export(directory, "--format", "jsonl", *words) == 0
    (record,) = READERS["jsonl"](capfdbinary.readouterr().out)
    query = json.loads(json.loads(record.entry)["query"])
    assert query == {"export": "jsonl", "event": ["audit_log_accessed"]}
    assert _export(directory, "--format", "jsonl", "--record-access", "--keys", keys) == 0
    assert _export(directory, "--format", "jsonl", "--keys", keys) == 2


def test_a_reader_that_leaves_ends_the_export_in_silence(tmp_path: Path) -> None:
    directory = make_log(3000).write(tmp_path / "log")
    command = [sys.executable, "-m", "vram_residency.cli.main", "audit", "export", str(directory)]
    with subprocess.Popen(
        [*command, "--format", "syslog"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"<110>1 ")
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 5


def test_follow_gives_each_entry_as_it_comes(tmp_path: Path) -> None:
    maker = LogMaker()
    maker.open()
    directory = maker.write(tmp_path / "log")
    command = [sys.executable, "-m", "vram_residency.cli.main", "audit", "export", str(directory)]
    with subprocess.Popen([*command, "--format", "jsonl", "--follow"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["index"] == 0
        maker.seal()
        with (directory / "entries" / SEGMENT).open("ab") as file:
            file.write(maker.lines[1] + b"\n")
        assert json.loads(process.stdout.readline())["index"] == 1
        process.terminate()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_memory_stays_flat_however_long_the_log(name: str) -> None:
    """The lines come one at a time and leave one at a time."""

    def peak_bytes(count: int) -> int:
        lines = (entry_line(index, "vram_sealed", sample("vram_sealed")) for index in range(count))
        tracemalloc.start()
        try:
            for _ in Export(MAKER.origin, lines).encoded(name):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak_bytes(10)  # what is compiled and cached once
    assert peak_bytes(2000) < peak_bytes(200) + 65_536
