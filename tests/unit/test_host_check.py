"""`vram doctor`: each rule by itself, and what the host says to the ones that read it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import pytest
from tests.daemons import write_config

from vram_residency.cli.main import main
from vram_residency.worker.host_check import RULES, HostFacts, judge_host, read_facts

SOUND = HostFacts(
    has_gpu=True,
    memlock_bytes=None,
    capacity_bytes=None,
    has_swap=True,
    umask=0o077,
    is_clock_synchronised=True,
    is_token_in_environment=False,
    runtime_directory="/run/user/1000",
    runtime_mode=0o700,
    ptrace_scope=1,
    is_root=False,
    keys_beside=None,
)


def test_a_sound_host_has_no_findings() -> None:
    """Nothing is said for the sake of saying something."""
    assert judge_host(SOUND) == ()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param({"has_gpu": False}, "no_gpu", id="no GPU"),
        pytest.param({"memlock_bytes": 8 << 20, "has_swap": False}, "memlock", id="memlock"),
        pytest.param({"memlock_bytes": 9, "capacity_bytes": 8}, "swap", id="swap"),
        pytest.param({"umask": 0o022}, "umask", id="umask"),
        pytest.param({"is_clock_synchronised": False}, "clock", id="clock"),
        pytest.param({"is_token_in_environment": True}, "token_in_environment", id="token"),
        pytest.param({"runtime_directory": None}, "runtime_directory", id="no runtime directory"),
        pytest.param({"runtime_mode": None}, "runtime_directory", id="missing runtime directory"),
        pytest.param({"runtime_mode": 0o755}, "runtime_directory", id="open runtime directory"),
        pytest.param({"ptrace_scope": 0}, "ptrace", id="ptrace"),
        pytest.param({"is_root": True}, "root", id="root"),
        pytest.param({"keys_beside": "/log.keys"}, "keys_beside_log", id="keys"),
    ],
)
def test_each_weakness_is_named_with_what_mends_it(change: dict[str, object], code: str) -> None:
    """One weakness, one finding."""
    (finding,) = judge_host(msgspec.structs.replace(SOUND, **change))
    assert finding.code == code
    assert finding.text.endswith((".", "exports."))
    assert finding.mend


def test_what_cannot_be_read_is_no_finding() -> None:
    """A container hides the clock's state and Yama: silence is not weakness."""
    unknown = {"is_clock_synchronised": None, "ptrace_scope": None}
    assert judge_host(msgspec.structs.replace(SOUND, **unknown)) == ()


def test_facts_are_those_of_this_host(tmp_path: Path) -> None:
    """The environment, the umask, and where keys lie."""
    environ = {"VRAM_SEAL_TOKEN": "x", "XDG_RUNTIME_DIR": str(tmp_path)}
    tmp_path.chmod(0o750)
    before = os.umask(0o027)
    try:
        facts = read_facts(log=tmp_path / "log", environ=environ)
    finally:
        os.umask(before)
    assert facts.umask == 0o027
    assert facts.is_token_in_environment
    assert (facts.runtime_directory, facts.runtime_mode) == (str(tmp_path), 0o750)
    assert facts.keys_beside == str(tmp_path / "log.keys")
    assert facts.is_root is (os.geteuid() == 0)
    elsewhere = read_facts(log=tmp_path / "log", keys=tmp_path / "other" / "keys", environ={})
    assert elsewhere.keys_beside is None
    assert (
        read_facts(log=tmp_path / "log", keys=tmp_path / "log" / "keys", environ={}).keys_beside is not None
    )


def test_the_command_lists_findings_and_says_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For people and for programs; a token in the environment is always one of them here."""
    monkeypatch.setenv("VRAM_SEAL_TOKEN", "x" * 16)
    config = write_config(tmp_path)
    assert main(["doctor", "--config", str(config), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    codes = [each["code"] for each in found["findings"]]
    assert {"token_in_environment", "keys_beside_log"} <= set(codes)
    assert found["checked"] == list(RULES)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "token_in_environment" in out
    assert "  mend: " in out
