"""Sealing: what is signed, compared with an independent computation from residency.md alone."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import random
import re
import struct
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from tests.hostile import good_gguf
from tests.model_files import entry, safetensors_file
from tests.shards import GROUP, MIB, TOKEN, WORKER, Place, model_bytes, place, raw_bytes, write_model

from vram_residency import (
    DigestMismatchError,
    DuplicateShardError,
    InvalidInputError,
    MalformedModelError,
    SealedShard,
)


def canonical(value: Any) -> bytes:
    """Canonical JSON by the standard library: keys sorted, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def seal_key(token: str, worker_id: str, device_uuid: str) -> bytes:
    """HKDF-SHA256 of RFC 5869, by hand."""
    pseudorandom = hmac.digest(bytes(32), token.encode(), "sha256")
    info = f"vram-residency/seal/v1\n{worker_id}\n{device_uuid}".encode()
    return hmac.digest(pseudorandom, info + b"\x01", "sha256")


def expected_statement(here: Place, shard: SealedShard, data: bytes) -> dict[str, Any]:
    """The statement as residency.md section 4 asks for it; ids and times are taken over."""
    record = here.record(shard)
    groups = b"".join(blake3(data[at : at + GROUP]).digest() for at in range(0, len(data), GROUP))
    layout = [[t.name, t.dtype, list(t.shape), [t.start, t.end]] for t in shard.tensors]
    statement = {
        "version": "vram-residency/seal/v1",
        "seal_id": record.statement.seal_id,
        "shard_id": shard.shard_id,
        "digest": f"blake3:{blake3(data).hexdigest()}",
        "groups_digest": f"blake3:{blake3(groups).hexdigest()}",
        "layout_digest": f"blake3:{blake3(canonical(layout)).hexdigest()}",
        "vram_bytes": len(data),
        "gpu_device": 0,
        "device_uuid": here.device.info.uuid,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "sealed_at": shard.sealed_at,
        "worker_id": WORKER,
        "access": "read_only",
        "residency_sha256": hashlib.sha256(canonical(here.manager.describe(shard).residency)).hexdigest(),
        "approval": None,
    }
    optional = {name: getattr(shard, name) for name in ("model_ref", "shard_index", "total_shards")}
    return statement | {name: value for name, value in optional.items() if value is not None}


@pytest.mark.parametrize("sizes", [(1,), (GROUP,), (GROUP - 1, 3, 2 * GROUP), (0, 5)])
def test_the_statement_and_its_signature_are_those_of_the_specification(
    sizes: tuple[int, ...], tmp_path: Path
):
    path = write_model(tmp_path, *sizes)
    with place() as here:
        shard = here.manager.seal_file(path, shard_index=0, total_shards=2)
        statement = canonical(expected_statement(here, shard, path.read_bytes()))
        record = here.record(shard)
        assert record.statement.canonical() == statement
        key = seal_key(TOKEN, WORKER, here.device.info.uuid)
        assert record.signature == hmac.digest(key, statement, "sha256")
        assert re.fullmatch("[0-9a-f]{32}", record.statement.seal_id)
        sealed = here.only("vram_sealed")
        assert sealed["seal_sha256"] == hashlib.sha256(statement).hexdigest()
        assert sealed["residency_sha256"] == record.statement.residency_sha256


def test_an_approved_digest_is_part_of_the_statement():
    data = raw_bytes(1000)
    with place() as here:
        expect = f"sha256:{hashlib.sha256(data).hexdigest()}"
        record = here.record(here.manager.seal_model(data, expect=expect))
        assert json.loads(record.statement.canonical())["approval"] == {
            "expected": expect,
            "source": "caller",
        }


def test_a_handle_says_what_was_sealed():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000), model_ref="llama", shard_index=1, total_shards=2)
        assert re.fullmatch("shard-[0-9a-f]{32}", shard.shard_id)
        assert (shard.gpu_device, shard.vram_bytes, shard.worker_id) == (0, 1000, WORKER)
        assert (shard.model_ref, shard.shard_index, shard.total_shards) == ("llama", 1, 2)
        assert datetime.fromisoformat(shard.sealed_at).utcoffset() is not None
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shard.sealed_at)
        assert here.manager.shards() == [shard]
        with pytest.raises(AttributeError):
            shard.digest = "blake3:"  # type: ignore[misc]


@pytest.mark.parametrize("algorithm", ["blake3", "sha256"])
@pytest.mark.parametrize("expected", ["blake3", "sha256"])
def test_every_pair_of_algorithm_and_expected_digest_is_compared(algorithm: Any, expected: str):
    data = raw_bytes(300_000)
    digests = {"blake3": blake3(data).hexdigest(), "sha256": hashlib.sha256(data).hexdigest()}
    with place() as here:
        shard = here.manager.seal_model(data, algorithm=algorithm, expect=f"{expected}:{digests[expected]}")
        assert shard.digest == f"{algorithm}:{digests[algorithm]}"
        assert here.manager.verify_sealed(shard).digest == shard.digest
        with pytest.raises(DigestMismatchError) as refused:
            here.manager.seal_model(
                data + b"!", algorithm=algorithm, expect=f"{expected}:{digests[expected]}"
            )
        assert refused.value.expected == f"{expected}:{digests[expected]}"
        fields = here.only("integrity_violation")
        assert (fields["expected_hash"], fields["actual_hash"]) == (
            refused.value.expected,
            refused.value.actual,
        )
        assert fields["actual_hash"].startswith(f"{expected}:")
        assert here.manager.used_vram() == len(data)


@pytest.mark.parametrize(
    "buffer",
    [
        b"some bytes",
        bytearray(b"some bytes"),
        memoryview(b"some bytes"),
        np.arange(10, dtype=np.float32),
        np.arange(12, dtype=np.int16).reshape(3, 4),
    ],
    ids=lambda buffer: type(buffer).__name__,
)
def test_any_contiguous_buffer_can_be_sealed(buffer: Any):
    with place() as here:
        shard = here.manager.seal_model(buffer)
        assert shard.digest == f"blake3:{blake3(bytes(buffer)).hexdigest()}"
        with here.manager.execution(shard) as views:
            assert bytes(views.whole) == bytes(buffer)


@pytest.mark.parametrize("buffer", ["text", None, 5, np.arange(12)[::2], np.zeros((3, 4), order="F"), [1, 2]])
def test_what_is_no_contiguous_buffer_is_refused(buffer: Any):
    with place() as here:
        with pytest.raises(InvalidInputError, match="contiguous buffer"):
            here.manager.seal_model(buffer)
        assert here.actions[-1] == "validate_failed"
        here.require_untouched()


def test_the_callers_buffer_is_let_go_even_after_a_failure():
    with place() as here:
        buffer = bytearray(raw_bytes(1000))
        here.manager.seal_model(buffer)
        buffer.append(0)
        with pytest.raises(DigestMismatchError):
            here.manager.seal_model(buffer, expect="blake3:" + "00" * 32)
        buffer.append(0)


def test_what_the_caller_does_to_the_buffer_later_does_not_matter():
    with place() as here:
        buffer = bytearray(raw_bytes(1000))
        shard = here.manager.seal_model(buffer)
        buffer[:] = bytes(len(buffer))
        here.manager.verify_sealed(shard)


def test_formats_are_found_by_name_by_magic_and_by_order(tmp_path: Path):
    with place() as here:
        formats = []
        for name, data, choices in (
            ("m.safetensors", model_bytes(10), {}),
            ("m.gguf", good_gguf(), {}),
            ("m.bin", good_gguf(), {}),
            ("m.bin", model_bytes(10), {}),
            ("m.bin", model_bytes(10), {"format": "safetensors"}),
            ("m.safetensors", b"\xff" * 20, {"format": "raw"}),
        ):
            (tmp_path / name).write_bytes(data)
            formats.append(here.manager.describe(here.manager.seal_file(tmp_path / name, **choices)).format)
        assert formats == ["safetensors", "gguf", "gguf", "raw", "safetensors", "raw"]


@pytest.mark.parametrize(
    ("choices", "rule"),
    [
        ({"shard_id": ""}, "shard_id"),
        ({"shard_id": "a" * 257}, "shard_id"),
        ({"shard_id": "a/b"}, "shard_id"),
        ({"shard_id": 5}, "shard_id"),
        ({"expect": "md5:00"}, "digest"),
        ({"expect": b"blake3:"}, "digest"),
        ({"algorithm": "md5"}, "algorithm"),
        ({"format": "onnx"}, "format"),
        ({"model_ref": "\udcff"}, "model_ref"),
        ({"shard_index": -1}, "shard_index"),
        ({"shard_index": 2, "total_shards": 2}, "shard_index"),
        ({"total_shards": 0}, "total_shards"),
        ({"shard_index": True}, "shard_index"),
    ],
)
def test_unsound_choices_are_refused_before_any_memory_is_touched(choices: dict[str, Any], rule: str):
    with place() as here:
        with pytest.raises(InvalidInputError, match=rule):
            here.manager.seal_model(raw_bytes(1000), **choices)
        assert here.events == ["policy_violation"]
        assert here.actions[-1] == "validate_failed"
        here.require_untouched()


def test_a_file_name_that_is_no_text_is_sealed_under_a_printable_one(tmp_path: Path):
    path = os.fsencode(tmp_path) + b"/model-\xff.bin"
    Path(os.fsdecode(path)).write_bytes(b"bytes")
    with place() as here:
        shard = here.manager.seal_file(os.fsdecode(path))
        assert shard.model_ref is not None
        assert shard.model_ref.encode("utf-8")
        here.manager.verify_sealed(shard)


def test_a_failed_seal_gives_its_id_back_and_a_made_one_never():
    with place() as here:
        with pytest.raises(MalformedModelError):
            here.manager.seal_model(b"", shard_id="one")
        shard = here.manager.seal_model(raw_bytes(10), shard_id="one")
        here.manager.deallocate(shard)
        with pytest.raises(DuplicateShardError, match="never reused"):
            here.manager.seal_tensors({"a": bytearray(4)}, shard_id="one")


def test_progress_is_told_in_bytes_and_ends_with_all():
    seen: list[tuple[int, int]] = []
    with place() as here:
        here.manager.seal_model(
            raw_bytes(3 * MIB), on_progress=lambda done, total: seen.append((done, total))
        )
    assert seen[-1] == (3 * MIB, 3 * MIB)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_malformed_input_is_recorded_with_rule_and_offset(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_file({"a": entry(0, 4), "b": entry(3, 8)}, b"12345678"))
    with place() as here:
        with pytest.raises(MalformedModelError) as refused:
            here.manager.seal_file(path)
        fields = here.only("malformed_model_rejected")
        assert fields["model_ref"] == "model.safetensors"
        assert fields["validation_error"] == str(refused.value)
        assert f"byte {refused.value.offset}" in fields["validation_error"]
        assert refused.value.rule in fields["validation_error"]
        assert (fields["severity"], fields["action_taken"]) == ("HIGH", "request_rejected")


def directory_of(folder: Path, **changes: Any) -> Path:
    """Two files and an index; ``changes`` go into the weight map."""
    weight_map = {}
    for number in (2, 1):
        name = f"model-0000{number}-of-00002.safetensors"
        header: dict[str, object] = {f"t{number}": entry(0, 100)}
        (folder / name).write_bytes(safetensors_file(header, random.Random(number).randbytes(100)))
        weight_map[f"t{number}"] = name
    index = {"metadata": {}, "weight_map": weight_map | changes}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_an_indexed_directory_becomes_one_shard_per_file_and_one_manifest_digest(tmp_path: Path):
    directory_of(tmp_path)
    with place() as here:
        model = here.manager.seal_directory(tmp_path)
        assert [(shard.shard_index, shard.total_shards) for shard in model.shards] == [(0, 2), (1, 2)]
        names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        assert [shard.model_ref for shard in model.shards] == names
        entries = [
            [name, f"blake3:{blake3((tmp_path / name).read_bytes()).hexdigest()}"]
            for name in (*names, "model.safetensors.index.json")
        ]
        assert model.manifest_digest == f"blake3:{blake3(canonical(entries)).hexdigest()}"
        again = here.manager.seal_directory(tmp_path, expect=model.manifest_digest)
        assert again.manifest_digest == model.manifest_digest
        assert (
            len({record.correlation_id for record in here.log.recorded if record.event_type == "vram_sealed"})
            == 2
        )


@pytest.mark.parametrize("fault", ["missing tensor", "damaged second file", "other manifest"])
def test_a_directory_is_sealed_whole_or_not_at_all(tmp_path: Path, fault: str):
    changes = {"t3": "model-00001-of-00002.safetensors"} if fault == "missing tensor" else {}
    directory_of(tmp_path, **changes)
    if fault == "damaged second file":
        (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"\xff" * 100)
    expect = "blake3:" + "00" * 32 if fault == "other manifest" else None
    error = DigestMismatchError if fault == "other manifest" else MalformedModelError
    with place() as here:
        with pytest.raises(error):
            here.manager.seal_directory(tmp_path, expect=expect)
        here.require_untouched()
        assert here.events.count("vram_sealed") == here.events.count("vram_deallocated") > 0
        said = "integrity_violation" if fault == "other manifest" else "malformed_model_rejected"
        assert here.events.count(said) == 1


def test_handles_and_results_hold_no_secret_and_no_address(tmp_path: Path):
    with place() as here:
        shard = here.manager.seal_file(write_model(tmp_path, 1000))
        verification, report = here.manager.verify_sealed(shard), here.manager.describe(shard)
        record = here.record(shard)
        address = record.content._memory._region._address
        secrets = [TOKEN.encode(), record.signature, record.group_values[:32], struct.pack("<Q", address)]
        secrets += [f"{address:x}".encode(), str(address).encode(), record.signature.hex().encode()]
        told = [repr(event) for event in (*here.log.recorded, *here.story.events)]
        shown = [repr(shard), repr(verification), repr(report), repr(here.manager), *told]
        data = b"".join([pickle.dumps(shard), pickle.dumps(verification), *(text.encode() for text in shown)])
        assert [secret for secret in secrets if secret in data] == []
        assert pickle.loads(pickle.dumps(shard)) == shard
        here.manager.verify_sealed(pickle.loads(pickle.dumps(shard)))


def test_what_is_handed_out_is_a_copy_of_the_residency_record():
    with place() as here:
        shard = here.manager.seal_model(raw_bytes(1000))
        here.manager.verify_sealed(shard).residency["facts"].clear()
        here.manager.describe(shard).residency["facts"].clear()
        assert here.manager.verify_sealed(shard).residency["facts"]["kind"] == "memfd"


def test_a_path_lets_other_code_read_the_sealed_pages_and_ends_with_the_shard():
    data = raw_bytes(1000)
    with place() as here:
        shard = here.manager.seal_model(data)
        assert shard.path is not None
        path = Path(shard.path)
        assert path.read_bytes() == data
        here.manager.deallocate(shard)
        assert path.read_bytes() == b""
