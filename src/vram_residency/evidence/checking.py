"""Checking a proof bundle, offline: what it shows, by whose key (spec: cli.md, `vram proof verify`).

A bundle shows that the holder of a key logged this. It shows nothing about hardware, truth or later failure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Literal

import msgspec

from vram_residency.audit.format import cosignature, note
from vram_residency.audit.format.checkpoint import CheckpointFormatError, open_signed
from vram_residency.audit.format.entry import Entry
from vram_residency.audit.format.proof import ProofError, verify_inclusion
from vram_residency.core.clock import rfc3339
from vram_residency.core.errors import InvalidInputError
from vram_residency.evidence import attachments
from vram_residency.evidence.attachments import Refusal
from vram_residency.evidence.bundle import Bundle, BundleFormatError, NotABundleError, Subject, decode
from vram_residency.evidence.page import NOT_PROVED

Word = Literal["proven", "refuted", "unverifiable"]
EXIT_CODES: Final[dict[Word, int]] = {"proven": 0, "refuted": 1, "unverifiable": 5}
_NOTE_ERRORS: Final = (note.NoteFormatError, note.NoteVerificationError, CheckpointFormatError)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One statement of the bundle, whether it ``holds``, and what was found.

    None: it is consistent, but nobody said by which key it should be.
    """

    name: str
    holds: bool | None
    finding: str


class Shown(msgspec.Struct, frozen=True):
    """An entry as the bundle shows it; ``leaf_hash`` is hex."""

    index: int
    timestamp: str
    event_type: str
    leaf_hash: str


class Witnessed(msgspec.Struct, frozen=True):
    """A verified cosignature: by whom, and when the witness saw this tree (RFC 3339)."""

    name: str
    time: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``proof verify``: proven, refuted or unverifiable, step by step."""

    verdict: Word
    trust: Literal["given", "self-asserted"]
    steps: tuple[Step, ...]
    subject: Subject | None = None
    origin: str | None = None
    tree_size: int | None = None
    root_hash: str | None = None
    entries: tuple[Shown, ...] = ()
    witnesses: tuple[Witnessed, ...] = ()
    not_proved: tuple[str, ...] = NOT_PROVED

    @property
    def exit_code(self) -> int:
        """The exit code of ``vram proof verify``."""
        return EXIT_CODES[self.verdict]


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys from elsewhere. Without ``log`` the best answer is unverifiable.

    ``log`` is the vkey of the log. Each of ``witnesses`` must have cosigned. ``attestation`` is a raw Ed25519
    key (32 bytes); with ``nonce`` the attestation must answer that.
    """

    log: note.VerifierKey | None = None
    witnesses: tuple[cosignature.WitnessKey, ...] = ()
    attestation: bytes | None = None
    nonce: str | None = None


def parse_keys(
    vkey: str | None,
    witness_vkeys: Iterable[str] = (),
    *,
    attestation_key: str | None = None,
    nonce: str | None = None,
) -> Keys:
    """Keys from their texts; that of attestations in hex. Raises InvalidInputError."""
    try:
        log = None if vkey is None else note.VerifierKey.parse(vkey.strip())
        witnesses = tuple(cosignature.WitnessKey.parse(text.strip()) for text in witness_vkeys)
    except note.NoteFormatError as error:
        hint = "Give the text name+hash+base64 that the log's or the witness's owner published."
        raise InvalidInputError("vkey", str(error), hint=hint) from None
    key = None if attestation_key is None else attachments.parse_public_key(attestation_key)
    return Keys(log=log, witnesses=witnesses, attestation=key, nonce=nonce)


def check(unverified: bytes, keys: Keys) -> Finding:
    """Check every statement of a bundle. Raises InvalidInputError where the file is something else."""
    # 1. The file is a bundle in its one form, and its page is the one that follows from its data.
    try:
        bundle = decode(unverified)
    except NotABundleError as error:
        raise InvalidInputError("file", str(error), hint="`vram proof export` makes bundles.") from None
    except BundleFormatError as error:
        return Finding(
            verdict="refuted",
            trust=_trust(keys),
            steps=(Step(name="form", holds=False, finding=f"{error}."),),
        )
    return check_bundle(bundle, keys)


def check_bundle(bundle: Bundle, keys: Keys) -> Finding:
    """The same from step 2 on, for a bundle that was read or made."""
    form = "The file is a bundle in its one form; its page and list of contents follow from its data."
    steps = [Step(name="form", holds=True, finding=form), *_statements(bundle, keys)]
    signed = bundle.checkpoint
    is_refuted = any(step.holds is False for step in steps)
    word: Word = "refuted" if is_refuted else "proven" if keys.log is not None else "unverifiable"
    return Finding(
        verdict=word,
        trust=_trust(keys),
        steps=tuple(steps),
        subject=bundle.subject,
        origin=signed.origin,
        tree_size=signed.size,
        root_hash=signed.root.hex(),
        entries=tuple(_shown(bundle)),
        witnesses=() if is_refuted else tuple(_witnessed(bundle, keys)),
    )


def _statements(bundle: Bundle, keys: Keys) -> Iterator[Step]:
    entries = [proven.parse() for proven in bundle.entries]
    attested, residency = bundle.unverified_attestation(), bundle.residency
    # 2. The checkpoint is signed (C2SP tlog-checkpoint).
    yield _step("checkpoint", lambda: _check_checkpoint(bundle, keys), is_given=keys.log is not None)
    # 3. Each entry stands under it, at its index (RFC 9162 section 2.1.3.2).
    yield _step("entries", lambda: _check_entries(bundle, entries))
    # 4. They are about what the bundle says that it is about.
    yield _step("subject", lambda: _check_subject(bundle.subject, entries))
    # 5. The witnesses that were named saw this tree (C2SP tlog-cosignature).
    if keys.witnesses:
        yield _step("witnesses", lambda: _check_witnesses(bundle, keys))
    # 6. What is attached belongs to these entries.
    if attested is not None:
        key = keys.attestation
        yield _step("attestation", lambda: attachments.check_attestation(attested, entries))
        signature = attachments.Signature(bundle.attestation or b"", key, keys.nonce)
        yield _step("attestation signature", signature.check, is_given=key is not None)
    elif keys.attestation is not None or keys.nonce is not None:
        yield Step(name="attestation", holds=False, finding="There is no attestation in the bundle.")
    if residency is not None:
        yield _step("residency", lambda: attachments.check_residency(residency, entries))


def _step(name: str, statement: Callable[[], str], *, is_given: bool = True) -> Step:
    try:
        return Step(name=name, holds=True if is_given else None, finding=statement())
    except Refusal as refusal:
        return Step(name=name, holds=False, finding=str(refusal))


def _check_checkpoint(bundle: Bundle, keys: Keys) -> str:
    try:
        # The name of a log's key is its origin.
        if keys.log is not None:
            signed = open_signed(bundle.note_bytes, [keys.log], origin=keys.log.name)
            return f"The vkey that was given signed the checkpoint over {signed.size} entries."
        named = [note.VerifierKey.parse(vkey) for vkey in bundle.vkeys]
        signed = open_signed(bundle.note_bytes, named, origin=bundle.checkpoint.origin)
    except _NOTE_ERRORS as error:
        is_namesake = keys.log is not None and keys.log.name == bundle.checkpoint.origin
        rotated = " If the log's key was rotated, its newest vkey is needed." if is_namesake else ""
        raise Refusal(f"The checkpoint is not this key's: {error}.{rotated}") from None
    return f"A vkey that the bundle itself names signed the checkpoint over {signed.size} entries."


def _check_entries(bundle: Bundle, entries: Sequence[Entry]) -> str:
    signed = bundle.checkpoint
    for proven, entry in zip(bundle.entries, entries, strict=True):
        if entry.index != proven.index:
            raise Refusal(f"The entry given as {proven.index} says that it is {entry.index}.")
        try:
            verify_inclusion(
                proven.leaf_hash,
                index=proven.index,
                size=signed.size,
                root=signed.root,
                hashes=proven.hashes,
            )
        except ProofError as error:
            raise Refusal(f"Entry {proven.index} is not under the checkpoint: {error}.") from None
    count = len(entries)
    words = "The entry stands at its index" if count == 1 else f"All {count} entries stand at their indexes"
    return f"{words} under the checkpoint, word for word."


def _check_subject(subject: Subject, entries: Sequence[Entry]) -> str:
    if subject.shard_id is None:
        if [entry.index for entry in entries] != [subject.entry]:
            raise Refusal(f"The bundle is said to be about entry {subject.entry}, and holds something else.")
        return f"The bundle is about entry {subject.entry}."
    alien = [entry.index for entry in entries if not attachments.names_shard(entry, subject.shard_id)]
    if alien:
        raise Refusal(f"Entry {alien[0]} is not about the shard that the bundle is said to be about.")
    return "Each entry is about the shard. Whether there are others, no bundle shows."


def _check_witnesses(bundle: Bundle, keys: Keys) -> str:
    found = _witnessed(bundle, keys)
    missing = {key.name for key in keys.witnesses} - {each.name for each in found}
    if missing:
        raise Refusal(f"No cosignature by {min(missing)}.")
    times = ", ".join(f"{each.name} at {each.time}" for each in found)
    return f"Cosigned by {times}."


def _witnessed(bundle: Bundle, keys: Keys) -> list[Witnessed]:
    try:
        found = cosignature.verify(bundle.note_bytes, keys.witnesses)
    except note.NoteVerificationError as error:
        raise Refusal(f"A cosignature is wrong: {error}.") from None
    return [Witnessed(each.key.name, rfc3339(each.time_s * 1_000_000_000)) for each in found]


def _shown(bundle: Bundle) -> Iterator[Shown]:
    for proven in bundle.entries:
        entry = proven.parse()
        yield Shown(proven.index, entry.timestamp, entry.event_type, proven.leaf_hash.hex())


def _trust(keys: Keys) -> Literal["given", "self-asserted"]:
    return "self-asserted" if keys.log is None else "given"
