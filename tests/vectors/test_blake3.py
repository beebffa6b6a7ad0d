"""BLAKE3 against its published test vectors and against a slow reference written from the paper."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from blake3 import blake3
from tests.reference.blake3_reference import blake3_hex

from vram_residency.digest import host
from vram_residency.digest.value import GROUP_BYTES

# The project's official vectors (BLAKE3 repository, test_vectors.json): input length -> first 32 bytes.
OFFICIAL = {
    0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    1: "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    1023: "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
    1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
    1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    2048: "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a",
    2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
    3072: "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2",
    3073: "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3",
    4096: "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969",
    4097: "9b4052b38f1c5fc8b1f9ff7ac7b27cd242487b3d890d15c96a1c25b8aa0fb995",
    5120: "9cadc15fed8b5d854562b26a9536d9707cadeda9b143978f319ab34230535833",
    5121: "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff",
    6144: "3e2e5b74e048f3add6d21faab3f83aa44d3b2278afb83b80b3c35164ebeca205",
    6145: "f1323a8631446cc50536a9f705ee5cb619424d46887f3c376c695b70e0f0507f",
    7168: "61da957ec2499a95d6b8023e2b0e604ec7f6b50e80a9678b89d2628e99ada77a",
    7169: "a003fc7a51754a9b3c7fae0367ab3d782dccf28855a03d435f8cfe74605e7817",
    8192: "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63",
    8193: "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b",
    16384: "f875d6646de28985646f34ee13be9a576fd515f76b5b0a26bb324735041ddde4",
    31744: "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
    102400: "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
}


def pattern(length: int) -> bytes:
    """The input of the official vectors: 0 to 250, again and again."""
    return (bytes(range(251)) * (length // 251 + 1))[:length]


@pytest.mark.parametrize("length", OFFICIAL)
def test_the_official_vectors(length: int, tmp_path: Path) -> None:
    """Memory, a file and the reference all give the published digest."""
    data = pattern(length)
    expected = OFFICIAL[length]
    path = tmp_path / "input"
    path.write_bytes(data)
    assert host.digest(memoryview(data)) == f"blake3:{expected}"
    assert host.digest_file(path) == f"blake3:{expected}"
    assert blake3_hex(data) == expected


@pytest.mark.parametrize("edge", [64, 1024, 2048, 65536, GROUP_BYTES])
@pytest.mark.parametrize("step", [-1, 0, 1])
def test_the_reference_at_edges(edge: int, step: int) -> None:
    """Around a block, a chunk, a subtree and a group, the reference and the wheel agree."""
    data = pattern(edge + step)
    assert host.digest(memoryview(data)) == f"blake3:{blake3_hex(data)}"


def test_a_file_of_every_size_around_chunk_and_group_edges(tmp_path: Path) -> None:
    """From 0 to 300 KB: one byte before, at and after every chunk edge, as memory and as a file."""
    data = pattern(300_000)
    path = tmp_path / "input"
    sizes = {max(0, edge + step) for edge in range(0, 300_000, 1024) for step in (-1, 0, 1)}
    for size in sorted(sizes):
        path.write_bytes(data[:size])
        expected = f"blake3:{blake3(data[:size]).hexdigest()}"
        assert host.digest_file(path) == expected, size
        assert host.digest(memoryview(data)[:size]) == expected, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ],
)
def test_sha256_of_fips_180_4(text: bytes, expected: str, tmp_path: Path) -> None:
    """The examples of the standard, from memory and from a file."""
    path = tmp_path / "input"
    path.write_bytes(text)
    assert host.digest(memoryview(text), "sha256") == f"sha256:{expected}"
    assert host.digest_file(path, "sha256") == f"sha256:{expected}"


def test_sha256_of_a_million() -> None:
    """FIPS 180-4's third example, a million times the letter a."""
    data = b"a" * 1_000_000
    expected = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    assert hashlib.sha256(data).hexdigest() == expected
    assert host.digest(memoryview(data), "sha256") == f"sha256:{expected}"
