"""What is shipped for running the worker: it is checked by the program and by systemd itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.daemons import vram
from tests.shards import TOKEN

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_the_example_configuration_is_in_order(tmp_path: Path) -> None:
    """Only the places that a test machine lacks are put elsewhere."""
    seal = tmp_path / "seal"
    seal.write_text(TOKEN)
    seal.chmod(0o600)
    assert vram("audit", "init", tmp_path / "audit", "--service", "vram-worker").returncode == 0
    places = {
        "worker.model_roots": tmp_path,
        "audit.directory": tmp_path / "audit",
        "audit.keys": tmp_path / "audit.keys",
        "seal.token_file": seal,
    }
    words = [word for key, value in places.items() for word in ("--set", f"{key}={value}")]
    done = vram("serve", "--config", DEPLOY / "worker.toml", "--check-config", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "worker.policy = strict" in done.stdout


def test_every_setting_that_the_example_comments_on_exists() -> None:
    """A line that is taken out of its comment works."""
    from vram_residency.config.reading import KEYS, _read_file
    from vram_residency.config.settings import Model

    text = (DEPLOY / "worker.toml").read_text("utf-8")
    section = ""
    for line in text.splitlines():
        if head := re.match(r"^(?:# )?\[+(\w+)\]+", line):
            section = head[1]
        elif setting := re.match(r"^(?:# )?(\w+) = ", line):
            known = Model.__struct_fields__ if section == "models" else ()
            assert f"{section}.{setting[1]}" in KEYS or setting[1] in known, line
    assert _read_file(DEPLOY / "worker.toml")["tcp"]["enabled"] is False


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "VRAM_TESTS_NEED_TOOLS" not in os.environ,
    reason="systemd-analyze is missing: the unit is NOT judged here",
)
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """No unknown directive, nothing that contradicts itself."""
    unit = DEPLOY / "vram-worker.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], check=False, capture_output=True, text=True
    )
    complaints = [line for line in done.stderr.splitlines() if "vram-worker" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize(
    "line",
    [
        "NoNewPrivileges=yes",
        "PrivateTmp=yes",
        "ProtectSystem=strict",
        "LoadCredential=vram-seal-token:/etc/vram/seal-token",
        "LimitMEMLOCK=infinity",
        "LimitCORE=0",
        "CapabilityBoundingSet=",
        "RuntimeDirectoryMode=0700",
        "UMask=0077",
    ],
)
def test_the_unit_is_hardened(line: str) -> None:
    """What the threat model counts on stands there."""
    assert line in (DEPLOY / "vram-worker.service").read_text("utf-8").splitlines()


def test_the_container_has_no_root_and_no_secret() -> None:
    """Its user is its own, and the seal token comes from outside."""
    text = (DEPLOY / "Containerfile").read_text("utf-8")
    assert re.search(r"^USER vram$", text, re.MULTILINE)
    assert not re.search(r"^(ENV|ARG|COPY).*(TOKEN|seal-token)", text, re.MULTILINE)
