"""Stock Go code (golang.org/x/mod/sumdb: note, tlog) opens, checks and signs what this log does.

Debian calls the packages golang-go and golang-golang-x-mod-dev; ``.ci/run`` installs them. Where Go is
missing the tests are skipped, and say so; with VRAM_TESTS_NEED_TOOLS set they fail.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.audit_logs import make_log, open_log, read_entries, read_lines, sealed
from tests.independent_log import open_note

from vram_residency.audit import prove_consistency, prove_inclusion
from vram_residency.audit.publishing.publication import publish

PROGRAM = Path(__file__).parent.parent / "go" / "stock.go"
#: Where Debian puts the sources of Go libraries.
GOPATH = Path("/usr/share/gocode")
IS_HERE = shutil.which("go") is not None and (GOPATH / "src/golang.org/x/mod/sumdb/tlog").is_dir()

pytestmark = pytest.mark.skipif(
    not IS_HERE and "VRAM_TESTS_NEED_TOOLS" not in os.environ,
    reason="NOT CHECKED WITH STOCK GO CODE: install golang-go and golang-golang-x-mod-dev",
)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built without any module proxy."""
    folder = tmp_path_factory.mktemp("go")
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOPATH": str(GOPATH),
        "GOCACHE": os.environ.get("GOCACHE", str(folder / "cache")),
    }
    subprocess.run(["go", "build", "-o", str(folder / "stock"), str(PROGRAM)], env=environment, check=True)
    return folder / "stock"


def _run(stock: Path, *words: object, text: bytes = b"") -> str:
    done = subprocess.run([stock, *map(str, words)], input=text, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def _refused(stock: Path, *words: object) -> str:
    done = subprocess.run([stock, *map(str, words)], capture_output=True, check=False)
    assert done.returncode == 1
    return done.stderr.decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of 700 entries whose key was rotated, published."""
    folder = tmp_path_factory.mktemp("log")
    make_log(folder)
    with open_log(folder) as logger:
        for number in range(690):
            logger.emit(sealed(number))
            if number % 200 == 0:
                logger.flush()
        logger.rotate_key()
        (folder / "both").write_bytes((folder / "log" / "checkpoint").read_bytes())
        for number in range(6):
            logger.emit(sealed(number))
    publish(folder / "log", folder / "out")
    return folder


def _vkeys(folder: Path) -> list[str]:
    vkeys: list[str] = json.loads((folder / "log" / "log.json").read_bytes())["vkeys"]
    return vkeys


def test_stock_code_opens_our_checkpoint(stock: Path, folder: Path) -> None:
    old, new = _vkeys(folder)
    checkpoint = folder / "log" / "checkpoint"
    expected = checkpoint.read_text().partition("\n\n")[0]
    assert _run(stock, "note", checkpoint, new) == f"1 verified, 0 unverified\n{expected}\n"
    assert "no verifiable signatures" in _refused(stock, "note", checkpoint, old)


def test_stock_code_finds_both_signatures_over_a_change_of_key(stock: Path, folder: Path) -> None:
    old, new = _vkeys(folder)
    assert _run(stock, "note", folder / "both", old, new).startswith("2 verified, 0 unverified\n")
    for vkey in (old, new):
        assert _run(stock, "note", folder / "both", vkey).startswith("1 verified, 1 unverified\n")


def test_stock_code_opens_the_old_keys_statement_as_a_note(stock: Path, folder: Path, tmp_path: Path) -> None:
    old, new = _vkeys(folder)
    entry = next(each for each in read_entries(folder) if each["event_type"] == "key_rotated")
    origin = old.partition("+")[0]
    text = f"vram-residency/audit/v1/key-rotated\n{origin}\n{entry['index']}\n{old}\n{new}\n"
    (tmp_path / "note").write_text(f"{text}\n\u2014 {origin} {entry['signature_by_old']}\n")
    assert _run(stock, "note", tmp_path / "note", old) == f"1 verified, 0 unverified\n{text}"


def test_stock_code_signs_with_our_log_key(stock: Path, folder: Path) -> None:
    """The file log.key is a private key in Go's own form."""
    new = _vkeys(folder)[1]
    text = (folder / "log" / "checkpoint").read_bytes().partition(b"\n\n")[0] + b"\n"
    signed = _run(stock, "sign", folder / "keys" / "log.key", text=text).encode()
    assert signed == (folder / "log" / "checkpoint").read_bytes()
    assert open_note(signed, new)[0] == new.partition("+")[0]


def test_stock_code_checks_every_published_tile_and_entry(stock: Path, folder: Path) -> None:
    size = len(read_lines(folder))
    assert size == 700
    old_sizes = "1,2,255,256,257,511,512,513,699,700"
    assert _run(stock, "tiles", folder / "out", old_sizes, _vkeys(folder)[1]) == "700 entries, 10 old sizes\n"


@pytest.mark.parametrize("name", ["tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/001"])
def test_stock_code_sees_one_changed_byte_in_what_is_published(
    stock: Path, folder: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    path = tmp_path / "out" / name
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    _refused(stock, "tiles", tmp_path / "out", "1", _vkeys(folder)[1])


@pytest.mark.parametrize("index", [0, 255, 256, 699])
def test_stock_code_checks_our_inclusion_proofs(
    stock: Path, folder: Path, tmp_path: Path, index: int
) -> None:
    vkey = _vkeys(folder)[1]
    (tmp_path / "proof").write_bytes(bytes(prove_inclusion(folder / "log", index)))
    (tmp_path / "line").write_bytes(read_lines(folder)[index])
    _run(stock, "inclusion", tmp_path / "proof", tmp_path / "line", vkey)
    (tmp_path / "line").write_bytes(read_lines(folder)[index - 1])
    _refused(stock, "inclusion", tmp_path / "proof", tmp_path / "line", vkey)


@pytest.mark.parametrize("old_size", [1, 256, 300, 700])
def test_stock_code_checks_our_consistency_proofs(
    stock: Path, folder: Path, tmp_path: Path, old_size: int
) -> None:
    vkey = _vkeys(folder)[1]
    proof = prove_consistency(folder / "log", old_size)
    (tmp_path / "proof").write_bytes(bytes(proof))
    root = base64.b64encode(bytes.fromhex(_old_root(folder, old_size))).decode()
    _run(stock, "consistency", tmp_path / "proof", root, vkey)
    other = base64.b64encode(bytes(32)).decode()
    _refused(stock, "consistency", tmp_path / "proof", other, vkey)


def _old_root(folder: Path, size: int) -> str:
    from tests.independent_log import leaf_of, root_of

    return root_of([leaf_of(line) for line in read_lines(folder)[:size]]).hex()
