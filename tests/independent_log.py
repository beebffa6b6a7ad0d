"""A second implementation of the audit log's format, written from audit-log.md alone.

It shares no code with the product: hashlib, hmac, json and cryptography are all it knows. ``check`` reads
logs that the product wrote; ``LogMaker`` writes logs that the product must call intact.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LEADING = ["index", "timestamp", "event_type", "service_id", "audit_id"]
SEGMENT = "00000000000000000000.jsonl"


# --- arithmetic of the format ---------------------------------------------------------------------------


def root_of(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, from leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + root_of(leaves[:split]) + root_of(leaves[split:])).digest()


def leaf_of(line: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + line).digest()


def key_id(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]


def next_key(key: bytes) -> bytes:
    return hmac.new(key, b"vram-residency/audit/next-epoch", hashlib.sha256).digest()


def first_mac(origin: str) -> bytes:
    return hashlib.sha256(b"vram-residency/audit/v1\n" + origin.encode()).digest()


def public_key_of(vkey: str) -> tuple[str, bytes, bytes]:
    name, hexid, data = vkey.split("+", 2)
    raw = base64.b64decode(data, validate=True)
    assert raw[0] == 1
    assert len(raw) == 33
    assert key_id(name, raw[1:]).hex() == hexid
    return name, bytes.fromhex(hexid), raw[1:]


def open_note(note: bytes, vkey: str) -> tuple[str, int, bytes]:
    """Origin, size, root of a signed checkpoint, after its signature."""
    text, _, signatures = note.decode().rpartition("\n\n")
    text += "\n"
    name, ident, public_key = public_key_of(vkey)
    for line in signatures.splitlines():
        dash, signer, encoded = line.split(" ")
        assert dash == "\u2014"
        data = base64.b64decode(encoded, validate=True)
        if signer == name and data[:4] == ident:
            Ed25519PublicKey.from_public_bytes(public_key).verify(data[4:], text.encode())
            origin, size, root = text.splitlines()
            return origin, int(size), base64.b64decode(root, validate=True)
    raise AssertionError("the key did not sign the checkpoint")


def canonical(pairs: list[tuple[str, Any]]) -> bytes:
    return json.dumps(dict(pairs), ensure_ascii=False, separators=(",", ":")).encode()


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), "duplicate key"
    return dict(pairs)


def no_floats(text: str) -> None:
    raise AssertionError(f"a float: {text}")


# --- checking -----------------------------------------------------------------------------------------------


def check(directory: Path, *, k0: bytes, vkey: str) -> list[dict[str, Any]]:
    """All of sections 1 to 3 on a closed or killed log; the entries. AssertionError where it differs."""
    config = json.loads((directory / "log.json").read_bytes())
    assert config["format"] == "vram-residency/audit/v1"
    assert re.fullmatch(re.escape(config["service_id"]) + "/[0-9a-f]{32}", config["origin"])
    assert config["vkeys"][0] == vkey
    genesis_id = hashlib.sha256(b"vram-residency/audit/genesis-id" + k0).hexdigest()[:16]
    assert config["mac_genesis_id"] == genesis_id
    lines: list[bytes] = []
    paths = sorted((directory / "entries").glob("*.jsonl"))
    start = int(paths[0].name[:20]) if paths else 0
    for path in paths:
        assert int(path.name[:20]) == start + len(lines)
        data = path.read_bytes()
        assert data == b"" or data.endswith(b"\n")
        lines += data.split(b"\n")[:-1]
    pruned = _pruned_leaves(directory, start)
    vkeys = [vkey]
    entries = _check_lines(lines, config, k0, vkeys, pruned=pruned)
    assert config["vkeys"] == vkeys
    log_json_sha256 = hashlib.sha256((directory / "log.json").read_bytes()).hexdigest()
    openings = [entry for entry in entries if entry["event_type"] == "log_opened"]
    rotations = [entry["index"] for entry in entries if entry["event_type"] == "key_rotated"]
    if openings and (not rotations or rotations[-1] < openings[-1]["index"]):
        assert openings[-1]["log_json_sha256"] == log_json_sha256
    origin, size, root = open_note((directory / "checkpoint").read_bytes(), vkeys[-1])
    assert origin == config["origin"]
    assert start <= size <= start + len(lines)
    assert root == root_of([*pruned, *(leaf_of(line) for line in lines[: size - start])])
    return entries


def _pruned_leaves(directory: Path, start: int) -> list[bytes]:
    """The leaf hashes of the entries before ``start``, which are gone (section 7)."""
    data = b""
    for path in sorted((directory / "tree").glob("*.leaves")):
        if int(path.name[:20]) < start:
            assert int(path.name[:20]) * 32 == len(data)
            data += path.read_bytes()
    assert len(data) == start * 32
    return [data[offset : offset + 32] for offset in range(0, len(data), 32)]


def _check_lines(
    lines: list[bytes], config: dict[str, Any], k0: bytes, vkeys: list[str], *, pruned: list[bytes]
) -> list[dict[str, Any]]:
    """``vkeys`` begins with the key of the first line; those that follow it are added."""
    key, previous, epoch = k0, first_mac(config["origin"]), 0
    if pruned:
        # The record says how the log stood; each line's mac and every later root say that it is right.
        records = [json.loads(line) for line in lines if b'"event_type":"segments_pruned"' in line]
        record = next(one for one in records if one["next_index"] == len(pruned))
        assert record["root_hash"] == root_of(pruned).hex()
        previous, epoch = bytes.fromhex(record["last_mac"]), record["next_epoch"]
        for _ in range(epoch):
            key = next_key(key)
    entries = []
    leaves = list(pruned)
    times = [""]
    for index, line in enumerate(lines, start=len(pruned)):
        assert len(line) <= 65535
        body, suffix = line[:-74], line[-74:]
        mac = re.fullmatch(rb',"mac":"([0-9a-f]{64})"}', suffix)
        assert mac
        assert hmac.new(key, previous + body, hashlib.sha256).hexdigest().encode() == mac[1]
        entry = json.loads(line, object_pairs_hook=refuse_duplicates, parse_float=no_floats)
        assert canonical(list(entry.items())) == line
        assert list(entry)[:5] == LEADING
        assert list(entry)[-1] == "mac"
        assert "sanitized" not in entry or list(entry)[-2] == "sanitized"
        assert entry["index"] == index
        assert entry["service_id"] == config["service_id"]
        assert entry["audit_id"] == f"{public_key_of(vkeys[-1])[1].hex()}-{index}"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["timestamp"])
        assert entry["timestamp"] >= times[-1] or entry["event_type"] == "clock_stepped_back"
        times.append(entry["timestamp"])
        if entry["event_type"] == "epoch_closed":
            assert entry["epoch"] == epoch
            assert entry["tree_size"] == index
            assert entry["root_hash"] == root_of(leaves).hex()
            key, epoch = next_key(key), epoch + 1
        if entry["event_type"] == "key_rotated":
            vkeys.append(_followed(entry, config["origin"], vkeys[-1]))
        previous = bytes.fromhex(mac[1].decode())
        leaves.append(leaf_of(line))
        entries.append(entry)
    return entries


def _followed(entry: dict[str, Any], origin: str, old: str) -> str:
    """The vkey that follows ``old`` by a key_rotated, after its signature (section 3)."""
    assert entry["old_vkey"] == old
    new: str = entry["new_vkey"]
    assert public_key_of(new)[0] == origin
    _, ident, public_key = public_key_of(old)
    data = base64.b64decode(entry["signature_by_old"], validate=True)
    assert data[:4] == ident
    text = f"vram-residency/audit/v1/key-rotated\n{origin}\n{entry['index']}\n{old}\n{new}\n"
    Ed25519PublicKey.from_public_bytes(public_key).verify(data[4:], text.encode())
    return new


# --- making ---------------------------------------------------------------------------------------------


class LogMaker:
    """A log in memory; ``write`` puts it on disk. Time moves by ``step_s`` with each entry."""

    def __init__(self, service_id: str = "other-implementation", epoch_interval_s: int = 900) -> None:
        self.service_id = service_id
        self.origin = f"{service_id}/{os.urandom(16).hex()}"
        self.k0 = os.urandom(32)
        self.private = Ed25519PrivateKey.generate()
        public_key = self.private.public_key().public_bytes_raw()
        self.ident = key_id(self.origin, public_key)
        encoded = base64.b64encode(b"\x01" + public_key).decode()
        self.vkey = f"{self.origin}+{self.ident.hex()}+{encoded}"
        self.now = datetime(2025, 10, 2, 10, tzinfo=UTC)
        self.step_s = 1.0
        self.lines: list[bytes] = []
        self.key = self.k0
        self.mac = first_mac(self.origin)
        self.epoch = 0
        #: Epoch and mac before each entry.
        self.marks = [(0, self.mac)]
        self.config = canonical(
            [
                ("format", "vram-residency/audit/v1"),
                ("origin", self.origin),
                ("service_id", service_id),
                ("created_at", self._timestamp()),
                ("epoch_interval_s", epoch_interval_s),
                (
                    "mac_genesis_id",
                    hashlib.sha256(b"vram-residency/audit/genesis-id" + self.k0).hexdigest()[:16],
                ),
                ("vkeys", [self.vkey]),
            ]
        )

    def append(self, event_type: str, **fields: Any) -> None:
        """One entry; keyword order is field order."""
        index = len(self.lines)
        self.now += timedelta(seconds=self.step_s)
        head = [
            ("index", index),
            ("timestamp", self._timestamp()),
            ("event_type", event_type),
            ("service_id", self.service_id),
            ("audit_id", f"{self.ident.hex()}-{index}"),
        ]
        self.append_body(canonical([*head, *fields.items()])[:-1])

    def append_body(self, body: bytes) -> None:
        """One line with a right mac, whatever the body says."""
        self.mac = hmac.new(self.key, self.mac + body, hashlib.sha256).digest()
        self.lines.append(body + b',"mac":"' + self.mac.hex().encode() + b'"}')
        self.marks.append((self.epoch, self.mac))

    def open(self, *, clean: bool = True, **more: Any) -> None:
        fields = {"clean": clean, "recovered_events": 0, "torn_bytes": 0, "writer": "test"} | more
        self.append(
            "log_opened",
            **fields,
            log_json_sha256=hashlib.sha256(self.config).hexdigest(),
            host_id="h",
            boot_id="b",
            version="1",
        )

    def seal(self, number: int = 0) -> None:
        self.append(
            "vram_sealed",
            shard_id=f"shard-{number}",
            gpu_device=0,
            vram_bytes=1 << 20,
            digest="blake3:" + "ab" * 32,
            worker_id="worker-1",
        )

    def end_epoch(self, **wrong: Any) -> None:
        numbers = {"epoch": self.epoch, "tree_size": len(self.lines), "root_hash": self.root().hex()} | wrong
        self.append("epoch_closed", **numbers)
        self.key, self.epoch = next_key(self.key), self.epoch + 1
        self.marks[-1] = (self.epoch, self.mac)

    def record_pruning(
        self, next_index: int, first_index: int = 0, *, wrong: dict[str, Any] | None = None
    ) -> None:
        """segments_pruned for the entries before ``next_index``; ``wrong`` replaces what is right."""
        epoch, mac = self.marks[next_index]
        numbers = {
            "first_index": first_index,
            "next_index": next_index,
            "next_epoch": epoch,
            "last_mac": mac.hex(),
            "root_hash": self.root(next_index).hex(),
            "policy": "older than 365d: a text that asks for it",
        }
        self.append("segments_pruned", **numbers | (wrong or {}))

    def close(self) -> None:
        self.append("log_closed", reason="closed")
        self.end_epoch()

    def root(self, size: int | None = None) -> bytes:
        return root_of([leaf_of(line) for line in self.lines[:size]])

    def checkpoint(self, size: int | None = None) -> bytes:
        size = len(self.lines) if size is None else size
        text = f"{self.origin}\n{size}\n{base64.b64encode(self.root(size)).decode()}\n"
        signature = base64.b64encode(self.ident + self.private.sign(text.encode())).decode()
        return f"{text}\n\u2014 {self.origin} {signature}\n".encode()

    def write(
        self,
        directory: Path,
        *,
        size: int | None = None,
        segments: tuple[int, ...] = (0,),
        pruned: tuple[int, ...] = (),
    ) -> Path:
        """The directory with a checkpoint of ``size`` and a segment from each index of ``segments`` on.

        Of the segments in ``pruned`` there are the leaf hashes alone; without any there are none at all.
        """
        (directory / "entries").mkdir(parents=True)
        if pruned:
            (directory / "tree").mkdir()
        (directory / "log.json").write_bytes(self.config)
        ends = (*segments[1:], len(self.lines))
        for first, end in zip(segments, ends, strict=True):
            lines = self.lines[first:end]
            if pruned:
                (directory / "tree" / f"{first:020}.leaves").write_bytes(b"".join(map(leaf_of, lines)))
            if first not in pruned:
                data = b"".join(line + b"\n" for line in lines)
                (directory / "entries" / f"{first:020}.jsonl").write_bytes(data)
        (directory / "checkpoint").write_bytes(self.checkpoint(size))
        return directory

    def _timestamp(self) -> str:
        return f"{self.now:%Y-%m-%dT%H:%M:%S.%f}Z"


def make_log(seals: int = 5) -> LogMaker:
    """Opened, some seals, closed."""
    maker = LogMaker()
    maker.open()
    for number in range(seals):
        maker.seal(number)
    maker.close()
    return maker
