"""`vram audit prune` and what the other commands say of a pruned log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.audit_logs import open_log
from tests.day_logs import Lab

from vram_residency.cli.main import main


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """By today's clock all of it is old, if not 365 days."""
    return Lab(tmp_path / "lab")


def prune(lab: Lab, *words: str, checkpoint: bool = True, log: Path | None = None) -> int:
    kept = lab.folder / "kept"
    kept.write_bytes(lab.checkpoint)
    given = ["--checkpoint", str(kept)] if checkpoint else []
    options = ["--older-than", "1d", "--policy", "house rule 7", "--keys", str(lab.folder / "keys")]
    return main(["audit", "prune", str(log or lab.directory), *options, *given, *words])


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_it_says_what_went_and_the_log_is_pruned(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    last = lab.starts[-1] - 1
    assert prune(lab, "--dry-run") == 0
    assert f"Would remove entries 0 to {last}: 4 segments" in capsys.readouterr().out
    lab.require("intact")
    assert prune(lab) == 0
    text = capsys.readouterr().out
    assert f"Removed entries 0 to {last}: 4 segments" in text
    assert "policy  older than 1d: house rule 7" in text
    assert "Next: Keep a copy of the new 'checkpoint' elsewhere" in text
    assert prune(lab) == 0
    assert "Nothing to remove" in capsys.readouterr().out
    assert main(["audit", "verify", str(lab.directory), "--keys", str(lab.folder / "keys")]) == 0
    text = capsys.readouterr().out
    assert text.startswith("PRUNED by this machine's own keys")
    assert f"entries 0 to {last}, recorded " in text
    assert "older than 1d: house rule 7" in text


def test_json_of_a_pruning_and_of_the_verdict(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(lab, "--json") == 0
    removed = document(capsys)
    assert set(removed) == {
        *("dry_run", "first_index", "next_index", "segments", "policy", "root_hash", "kept_back"),
    }
    assert (removed["next_index"], len(removed["segments"])) == (lab.starts[-1], 4)
    assert main(["audit", "verify", str(lab.directory), "--vkey", lab.vkey, "--json"]) == 0
    verdict = document(capsys)
    assert (verdict["verdict"], verdict["first_bad"]) == ("pruned", None)
    assert verdict["entries"] == verdict["tree_size"] - lab.starts[-1]
    assert verdict["pruned"]["next_index"] == lab.starts[-1]
    assert verdict["pruned"]["policy"] == "older than 1d: house rule 7"


def test_show_of_a_pruned_entry_says_when_and_why_it_went(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prune(lab) == 0
    capsys.readouterr()
    assert main(["audit", "show", str(lab.directory), "3"]) == 2
    error = capsys.readouterr().err
    assert "entry 3 was pruned" in error
    assert "older than 1d: house rule 7" in error
    assert main(["audit", "query", str(lab.directory), "--event", "segments_pruned", "--json"]) == 0
    assert document(capsys)["policy"] == "older than 1d: house rule 7"
    assert main(["audit", "prove", "inclusion", str(lab.directory), "3"]) == 0
    assert capsys.readouterr().out.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")


def test_refusals_are_one_line_and_a_hint(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(lab, checkpoint=False) == 2
    assert "no checkpoint kept elsewhere covers them" in capsys.readouterr().err
    own = ["--checkpoint", str(lab.directory / "checkpoint")]
    assert prune(lab, *own, checkpoint=False) == 2
    assert "lies in the log's own directory" in capsys.readouterr().err
    assert prune(lab, log=lab.folder) == 2
    assert prune(lab, "--older-than", "soon") == 2
    assert prune(lab, "--policy", " ") == 2
    assert prune(lab, "--witness-vkey", "x") == 2
    assert prune(lab, "--keys", str(lab.folder / "nowhere")) == 5
    assert main(["audit", "prune", str(lab.directory), "--policy", "x"]) == 2
    capsys.readouterr()
    with open_log(lab.folder, clock=lab.clock):
        assert prune(lab, "--json") == 5
        assert document(capsys)["error"]["code"] == "log_locked"
    (lab.directory / "entries" / f"{lab.starts[1]:020}.jsonl").unlink()
    assert prune(lab) == 1
    assert "it is truncated" in capsys.readouterr().err
    assert lab.first_indexes()[0] == 0
