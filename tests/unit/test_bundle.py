"""A proof bundle is one file in one form; what it says is checked, and mixed-up parts are found out."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.audit_logs import ManualClock, open_log, sealed
from tests.bundles import SHARD, bundle_of, independent_check, make_log, members_of, shard_bundle
from tests.independent_log import LogMaker
from tests.witness_server import Witness

from vram_residency.audit.writing.archiving import archive_log
from vram_residency.audit.writing.options import LogOptions
from vram_residency.core.canonical import canonical_json
from vram_residency.core.ed25519 import SigningKey
from vram_residency.core.errors import InvalidInputError, LogDamagedError
from vram_residency.evidence import container
from vram_residency.evidence.bundle import (
    Bundle,
    BundleFormatError,
    NotABundleError,
    ProvenEntry,
    Subject,
    decode,
    encode,
)
from vram_residency.evidence.checking import Finding, Keys, check, parse_keys
from vram_residency.evidence.collecting import make_bundle
from vram_residency.seal.attestation import Attestation, attest
from vram_residency.seal.statement import Statement, sha256_hex

MAKER = make_log()
OTHER = make_log()
GOOD = shard_bundle(MAKER)
GOOD_FILE = encode(GOOD)
KEYS = parse_keys(MAKER.vkey)


def _wrong(found: Finding) -> list[str]:
    return [step.name for step in found.steps if step.holds is False]


def _changed(**fields: Any) -> Finding:
    return check(encode(msgspec.structs.replace(GOOD, **fields)), KEYS)


def test_a_good_bundle_is_proven_by_the_vkey_and_shows_its_entries() -> None:
    found = check(GOOD_FILE, KEYS)
    assert (found.verdict, found.exit_code, found.trust) == ("proven", 0, "given")
    assert [step.holds for step in found.steps] == [True] * 4
    assert [shown.index for shown in found.entries] == [2, 6, 7]
    assert (found.origin, found.tree_size) == (MAKER.origin, len(MAKER.lines))
    assert found.root_hash == MAKER.root().hex()
    assert any("hardware" in limit for limit in found.not_proved)


def test_without_a_vkey_from_elsewhere_it_cannot_be_said() -> None:
    found = check(GOOD_FILE, Keys())
    assert (found.verdict, found.exit_code, found.trust) == ("unverifiable", 5, "self-asserted")
    assert [step.holds for step in found.steps] == [True, None, True, True]


def test_without_a_vkey_what_contradicts_itself_is_refuted_all_the_same() -> None:
    assert check(encode(msgspec.structs.replace(GOOD, vkeys=(OTHER.vkey,))), Keys()).verdict == "refuted"
    assert check(encode(msgspec.structs.replace(GOOD, vkeys=("x",))), Keys()).verdict == "refuted"
    assert check(encode(msgspec.structs.replace(GOOD, vkeys=())), Keys()).verdict == "refuted"


def test_another_log_s_key_refutes() -> None:
    found = check(GOOD_FILE, parse_keys(OTHER.vkey))
    assert (found.verdict, _wrong(found)) == ("refuted", ["checkpoint"])


def test_mixed_up_parts_are_found_out() -> None:
    first, *rest = GOOD.entries
    alien = ProvenEntry(first.index, OTHER.lines[first.index], first.hashes)
    swapped = ProvenEntry(first.index, first.line, rest[0].hashes)
    renumbered = ProvenEntry(3, first.line, first.hashes)
    shortened = ProvenEntry(first.index, first.line, first.hashes[:-1])
    another = bundle_of(MAKER, [3], GOOD.subject).entries[0]
    assert _wrong(_changed(entries=(alien, *rest))) == ["entries"]
    assert _wrong(_changed(entries=(swapped, *rest))) == ["entries"]
    assert _wrong(_changed(entries=(renumbered, *rest))) == ["entries"]
    assert _wrong(_changed(entries=(shortened, *rest))) == ["entries"]
    assert _wrong(_changed(entries=(first, another, *rest))) == ["subject"]
    assert _wrong(_changed(note_bytes=OTHER.checkpoint())) == ["checkpoint", "entries"]
    assert _wrong(_changed(note_bytes=MAKER.checkpoint(8))) == ["entries"]
    assert _wrong(_changed(subject=Subject(shard_id="shard-2"))) == ["subject"]
    assert _wrong(_changed(subject=Subject(entry=2))) == ["subject"]


def test_a_bundle_about_one_entry_holds_that_one() -> None:
    made = bundle_of(MAKER, [4], Subject(entry=4))
    assert check(encode(made), KEYS).verdict == "proven"
    assert _wrong(check(encode(msgspec.structs.replace(made, subject=Subject(entry=5))), KEYS)) == ["subject"]


def test_an_independent_reader_accepts_it() -> None:
    assert [entry["index"] for entry in independent_check(GOOD_FILE, MAKER.vkey)] == [2, 6, 7]
    lines = members_of(GOOD_FILE)["entries/00000000000000000006.json"]
    assert lines == MAKER.lines[6]


def _with_member(name: str, change: Callable[[bytes], bytes]) -> bytes:
    members = members_of(GOOD_FILE)
    return container.join_members({**members, name: change(members[name])})


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("index.html", b"has been verified yet", b"has been verified by us"),
        ("index.html", b"</body>", b"</body> "),
        ("index.html", MAKER.origin.encode(), OTHER.origin.encode()),
        ("bundle.json", b'"tree_size":', b'"tree_size":1'),
        ("bundle.json", b'"entries":[', b'"entries":[ '),
        ("bundle.json", b"proof-bundle/v1", b"proof-bundle/v2"),
        ("bundle.json", b'"index":2', b'"index":2.0'),
        ("bundle.json", b'"index":6', b'"index":2'),
        ("bundle.json", b'"format"', b'"more":1,"format"'),
        ("bundle.json", b'"shard_id":"shard-1"', b'"entry":1,"shard_id":"shard-1"'),
        ("bundle.json", b'"shard_id":"shard-1"', b""),
        ("checkpoint", b"\n\n", b"\n\n\n"),
        ("checkpoint", b"other", b"othes"),
        ("entries/00000000000000000006.json", b'"scope":"full"', b'"scope":"fast"'),
        ("entries/00000000000000000006.json", b'"scope"', b' "scope"'),
        ("proofs/00000000000000000006.tlog-proof", b"index 6", b"index 7"),
        ("proofs/00000000000000000006.tlog-proof", b"index 6", b"extra AAAA\nindex 6"),
    ],
    ids=[
        "lying page",
        "longer page",
        "page of another log",
        "size",
        "space",
        "version",
        "float",
        "repeated index",
        "unknown field",
        "two subjects",
        "no subject",
        "no note",
        "other origin",
        "other entry",
        "second form",
        "other index",
        "extra data",
    ],
)
def test_a_member_that_does_not_follow_from_the_others_is_refused(name: str, old: bytes, new: bytes) -> None:
    def change(data: bytes) -> bytes:
        assert old in data
        return data.replace(old, new, 1)

    changed = _with_member(name, change)
    with pytest.raises(BundleFormatError):
        decode(changed)
    found = check(changed, KEYS)
    assert (found.verdict, _wrong(found)) == ("refuted", ["form"])


def test_members_too_many_or_missing_are_refused() -> None:
    members = members_of(GOOD_FILE)
    for name in list(members)[1:]:
        with pytest.raises(BundleFormatError):
            decode(container.join_members({key: data for key, data in members.items() if key != name}))
    for name in ("more", "residency.json", "entries/00000000000000000099.json"):
        with pytest.raises(BundleFormatError):
            decode(container.join_members({**members, name: b"{}"}))
    reordered = dict(sorted(members.items(), key=lambda item: item[0] != "bundle.json"))
    assert list(reordered) == list(members)
    with pytest.raises(BundleFormatError):
        decode(container.join_members(dict([*list(members.items())[:1], *list(members.items())[:0:-1]])))


def _zip(compression: int = zipfile.ZIP_STORED, *, more: bytes = b"", comment: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members_of(GOOD_FILE).items():
            archive.writestr(name, data)
        if more:
            archive.writestr("../escape", more)
        archive.comment = comment
    return buffer.getvalue()


def _renamed(new: bytes) -> bytes:
    old = b"entries/00000000000000000002.json"
    return GOOD_FILE.replace(old, new.ljust(len(old), b"x"))


HOSTILE = {
    "written by another tool": _zip(),
    "compressed": _zip(zipfile.ZIP_DEFLATED),
    "traversal": _zip(more=b"x"),
    "comment": _zip(comment=b"hello"),
    "bytes after it": GOOD_FILE + b"x",
    "twice": GOOD_FILE + GOOD_FILE,
    "cut": GOOD_FILE[:-1],
    "half": GOOD_FILE[: len(GOOD_FILE) // 2],
    "no directory": GOOD_FILE[: GOOD_FILE.index(b"PK\x01\x02")],
    "absolute name": _renamed(b"/etc/passwd"),
    "parent name": _renamed(b"../../x"),
    "name with zero": _renamed(b"a\x00b"),
    "name that is no ASCII": _renamed("é".encode()),
    "symbolic link": GOOD_FILE.replace(b"\x00\x00\xa4\x81", b"\x00\x00\xff\xa1"),
    "absurd size": GOOD_FILE[:18] + b"\xff" * 8 + GOOD_FILE[26:],
    "encrypted": GOOD_FILE[:6] + b"\x01\x00" + GOOD_FILE[8:],
    "dated": GOOD_FILE[:10] + b"\x01\x01" + GOOD_FILE[12:],
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_an_archive_of_any_other_form_is_refused(data: bytes) -> None:
    with pytest.raises(BundleFormatError):
        decode(data)
    assert check(data, KEYS).verdict == "refuted"


@pytest.mark.parametrize(
    "data",
    [b"", b"PK", b"PK\x03\x04" + bytes(26), b"PK\x05\x06" + bytes(18), b"{}", GOOD_FILE[1:], GOOD_FILE[:40]],
    ids=["empty", "two bytes", "no name", "empty archive", "json", "shifted", "cut in the name"],
)
def test_what_does_not_begin_as_a_bundle_is_something_else(data: bytes) -> None:
    with pytest.raises(NotABundleError):
        decode(data)
    with pytest.raises(InvalidInputError, match="does not begin as a proof bundle"):
        check(data, KEYS)


def test_limits_hold_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "FILE_BYTES_MAX", len(GOOD_FILE) - 1)
    with pytest.raises(BundleFormatError, match="bytes"):
        encode(GOOD)
    with pytest.raises(BundleFormatError, match="bytes"):
        decode(GOOD_FILE)
    monkeypatch.undo()
    monkeypatch.setattr(container, "MEMBERS_MAX", 8)
    with pytest.raises(BundleFormatError, match="too many"):
        decode(GOOD_FILE)
    monkeypatch.undo()
    monkeypatch.setattr("vram_residency.evidence.bundle.ENTRIES_MAX", 2)
    with pytest.raises(BundleFormatError, match="entry"):
        encode(GOOD)


def test_unsorted_repeated_and_missing_entries_are_no_bundle() -> None:
    first, *rest = GOOD.entries
    for entries in ((), (*rest, first), (first, first), (ProvenEntry(2**70, first.line, first.hashes),)):
        with pytest.raises(BundleFormatError):
            encode(msgspec.structs.replace(GOOD, entries=tuple(entries)))


# --- witnesses --------------------------------------------------------------------------------------------


def test_a_witness_that_is_named_must_have_cosigned() -> None:
    witness = Witness(MAKER.vkey)
    cosigned = MAKER.checkpoint() + witness.cosign(MAKER.checkpoint().partition(b"\n\n")[0].decode() + "\n")
    data = encode(shard_bundle(MAKER, note_bytes=cosigned))
    found = check(data, parse_keys(MAKER.vkey, [witness.vkey]))
    assert found.verdict == "proven"
    assert [each.name for each in found.witnesses] == [witness.name]
    assert found.witnesses[0].time == "2025-10-09T08:53:20.000000Z"
    stranger = Witness(MAKER.vkey, name="stranger.example/w")
    refused = check(data, parse_keys(MAKER.vkey, [witness.vkey, stranger.vkey]))
    assert _wrong(refused) == ["witnesses"]
    assert check(GOOD_FILE, parse_keys(MAKER.vkey, [witness.vkey])).verdict == "refuted"


# --- attachments ------------------------------------------------------------------------------------------

RECORD = {"device": {"kind": "host", "uuid": "u"}, "facts": {"locked": True, "n": 3}}
STATEMENT = Statement(
    seal_id="0" * 32,
    shard_id=SHARD,
    digest="blake3:" + "ab" * 32,
    groups_digest="blake3:" + "00" * 32,
    layout_digest="blake3:" + "00" * 32,
    vram_bytes=1,
    gpu_device=0,
    device_uuid="u",
    boot_id="b",
    sealed_at="2025-10-02T10:00:00.000000Z",
    worker_id="w",
    access="read_only",
    residency_sha256=sha256_hex(canonical_json(RECORD)),
)
SEAL = sha256_hex(STATEMENT.canonical())
ATTESTING = SigningKey(bytes(range(32)))


def _sealed_log() -> LogMaker:
    maker = LogMaker()
    maker.open()
    maker.append(
        "vram_sealed",
        shard_id=SHARD,
        digest=STATEMENT.digest,
        seal_sha256=SEAL,
        residency_sha256=STATEMENT.residency_sha256,
    )
    maker.append("seal_verified", shard_id=SHARD, worker_id="w", seal_sha256=SEAL)
    maker.append("seal_verified", shard_id=SHARD, worker_id="w", seal_sha256="00" * 32)
    maker.close()
    return maker


SEALED = _sealed_log()


def _attested(audit_index: int | None = 2, **fields: Any) -> bytes:
    attestation = Attestation(
        nonce="n-1",
        statement=msgspec.structs.replace(STATEMENT, **fields),
        scope="full",
        read_from="2025-10-02T10:00:01.000000Z",
        read_to="2025-10-02T10:00:02.000000Z",
        audit_index=audit_index,
    )
    return canonical_json(attest(attestation, ATTESTING))


def _attached(attestation: bytes | None = None, residency: bytes | None = None, **keys: Any) -> Finding:
    data = encode(shard_bundle(SEALED, attestation=attestation, residency=residency))
    return check(data, parse_keys(SEALED.vkey, **keys))


def test_an_attestation_is_tied_to_the_entries_and_to_its_key() -> None:
    key = ATTESTING.public_key.hex()
    found = _attached(_attested(), canonical_json(RECORD), attestation_key=key, nonce="n-1")
    assert found.verdict == "proven"
    assert {step.name: step.holds for step in found.steps} == {
        "form": True,
        "checkpoint": True,
        "entries": True,
        "subject": True,
        "attestation": True,
        "attestation signature": True,
        "residency": True,
    }
    unchecked = _attached(_attested())
    assert unchecked.verdict == "proven"
    assert [step.name for step in unchecked.steps if step.holds is None] == ["attestation signature"]
    assert _attached(_attested(audit_index=None)).verdict == "proven"
    assert _attached(_attested(audit_index=77)).verdict == "proven"


def test_an_attestation_that_belongs_elsewhere_is_refuted() -> None:
    key = ATTESTING.public_key.hex()
    stranger = SigningKey(bytes(32)).public_key.hex()
    assert _wrong(_attached(_attested(), attestation_key=stranger)) == ["attestation signature"]
    assert _wrong(_attached(_attested(), attestation_key=key, nonce="n-2")) == ["attestation signature"]
    assert _wrong(_attached(_attested(), nonce="n-2")) == ["attestation signature"]
    assert _wrong(_attached(_attested(vram_bytes=2))) == ["attestation"]
    assert _wrong(_attached(_attested(shard_id="other"))) == ["attestation"]
    assert _wrong(_attached(_attested(audit_index=3))) == ["attestation"]
    assert _wrong(_attached(_attested(audit_index=1))) == ["attestation"]
    assert _wrong(_attached(attestation_key=key)) == ["attestation"]


def test_a_residency_record_is_the_one_that_was_sealed() -> None:
    assert _attached(residency=canonical_json(RECORD)).verdict == "proven"
    assert _wrong(_attached(residency=canonical_json({**RECORD, "device": {}}))) == ["residency"]


@pytest.mark.parametrize(
    "attached",
    [b"", b"[]", b'{"a": 1}', b'{"b":1,"a":2}', b'{"a":1,"a":1}', b"x" * (1 << 20) + b"x", b'{"a":' * 9999],
    ids=["empty", "list", "spaces", "unsorted", "twice", "too long", "too deep"],
)
def test_what_is_attached_has_one_form(attached: bytes) -> None:
    with pytest.raises(BundleFormatError):
        encode(shard_bundle(SEALED, residency=attached))
    with pytest.raises(BundleFormatError):
        encode(shard_bundle(SEALED, attestation=attached))


# --- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "keys",
    [
        {"vkey": "nonsense"},
        {"vkey": None, "witness_vkeys": ["w+1+2"]},
        {"vkey": None, "attestation_key": "12"},
        {"vkey": None, "attestation_key": "00" * 32},
        {"vkey": None, "attestation_key": "zz" * 32},
    ],
    ids=["vkey", "witness", "short", "small order", "not hex"],
)
def test_a_malformed_key_is_the_caller_s_mistake(keys: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        parse_keys(**keys)


# --- from a log on disk -------------------------------------------------------------------------------------


def test_a_bundle_from_a_log_is_the_one_made_by_hand(tmp_path: Path) -> None:
    log = MAKER.write(tmp_path / "log")
    assert make_bundle(log, Subject(shard_id=SHARD)).data == GOOD_FILE
    entry = make_bundle(log, Subject(entry=4))
    assert entry.data == encode(bundle_of(MAKER, [4], Subject(entry=4)))
    assert entry.uncovered_entries == 0
    assert make_bundle(log, Subject(entry=4)).data == entry.data


def test_entries_beyond_the_checkpoint_are_left_out_and_counted(tmp_path: Path) -> None:
    made = make_bundle(MAKER.write(tmp_path / "log", size=7), Subject(shard_id=SHARD))
    assert ([proven.index for proven in made.bundle.entries], made.uncovered_entries) == ([2, 6], 1)
    assert check(made.data, KEYS).verdict == "proven"


def test_a_bundle_is_made_from_a_log_that_was_pruned(tmp_path: Path) -> None:
    log = MAKER.write(tmp_path / "log", segments=(0, 4), pruned=(0,))
    made = make_bundle(log, Subject(shard_id=SHARD))
    assert [proven.index for proven in made.bundle.entries] == [6, 7]
    assert check(made.data, KEYS).verdict == "proven"
    with pytest.raises(InvalidInputError):
        make_bundle(log, Subject(entry=2))


def test_what_cannot_be_bundled_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = MAKER.write(tmp_path / "log", size=3)
    for subject in (
        Subject(entry=99),
        Subject(entry=5),
        Subject(entry=2**80),
        Subject(shard_id="nobody"),
        Subject(shard_id="shard-3"),
    ):
        with pytest.raises(InvalidInputError):
            make_bundle(log, subject)
    monkeypatch.setattr("vram_residency.evidence.collecting.ENTRIES_MAX", 1)
    with pytest.raises(InvalidInputError, match="over 1 entries"):
        make_bundle(MAKER.write(tmp_path / "whole"), Subject(shard_id=SHARD))


def test_a_log_that_was_changed_gives_no_bundle(tmp_path: Path) -> None:
    log = MAKER.write(tmp_path / "log")
    segment = log / "entries" / f"{0:020}.jsonl"
    segment.write_bytes(segment.read_bytes().replace(b'"scope":"full"', b'"scope":"fast"'))
    with pytest.raises(LogDamagedError):
        make_bundle(log, Subject(shard_id=SHARD))
    with pytest.raises(LogDamagedError):
        make_bundle(log, Subject(entry=6))


def test_an_attachment_that_does_not_fit_is_refused_before_a_file_is_made(tmp_path: Path) -> None:
    log = SEALED.write(tmp_path / "log")
    spaced = json.dumps(RECORD, indent=2).encode()
    made = make_bundle(log, Subject(shard_id=SHARD), attestation=_attested(), residency=spaced)
    assert made.bundle.residency == canonical_json(RECORD)
    for attached in (
        {"residency": b"{}"},
        {"residency": b"x"},
        {"attestation": b"{}"},
        {"attestation": b"[" * 9999},
        {"attestation": _attested(vram_bytes=2)},
    ):
        with pytest.raises(InvalidInputError):
            make_bundle(log, Subject(shard_id=SHARD), **attached)  # type: ignore[arg-type]


def test_reading_is_the_inverse_of_writing() -> None:
    full = shard_bundle(SEALED, attestation=_attested(), residency=canonical_json(RECORD))
    for bundle in (GOOD, full):
        read = decode(encode(bundle))
        assert isinstance(read, Bundle)
        assert read == bundle


def test_a_bundle_is_made_from_a_log_whose_segments_are_archived(tmp_path: Path) -> None:
    """By the product's own writer, rotation and archive."""
    with open_log(tmp_path, clock=ManualClock(), rotate_bytes=2000) as logger:
        for number in range(20):
            logger.emit(sealed(number % 4), durable=True)
    plain = make_bundle(tmp_path / "log", Subject(shard_id="shard-1")).data
    assert archive_log(tmp_path / "log", archive_after_s=0, options=LogOptions())
    made = make_bundle(tmp_path / "log", Subject(shard_id="shard-1"))
    assert made.data == plain
    assert len(made.bundle.entries) == 5
    vkey = json.loads((tmp_path / "log" / "log.json").read_bytes())["vkeys"][0]
    assert check(plain, parse_keys(vkey)).verdict == "proven"


def test_after_a_rotation_of_keys_the_newest_vkey_proves_old_entries_too(tmp_path: Path) -> None:
    with open_log(tmp_path) as logger:
        logger.emit(sealed(1))
        newest = logger.rotate_key()
        logger.emit(sealed(1))
    made = make_bundle(tmp_path / "log", Subject(shard_id="shard-1"))
    assert len(made.bundle.entries) == 2
    assert check(made.data, parse_keys(newest)).verdict == "proven"
    assert check(made.data, Keys()).verdict == "unverifiable"
    old = next(vkey for vkey in made.bundle.vkeys if vkey != newest)
    found = check(made.data, parse_keys(old))
    assert found.verdict == "refuted"
    assert "its newest vkey is needed" in found.steps[1].finding
