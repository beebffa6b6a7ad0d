"""A proof bundle as data, and its one file: what is read is made again, and must be the same. Pure.

::

    bundle.json                              what is in it: canonical JSON, all of it recomputed on reading
    index.html                               the page for people, made from the rest
    checkpoint                               the signed note with its cosignatures
    entries/<index, 20 digits>.json          an entry's line as it stands in the log, without its newline
    proofs/<index, 20 digits>.tlog-proof     that this line stands at this index under the checkpoint
    attestation.json, residency.json         where they were given: canonical JSON
"""

from __future__ import annotations

from typing import Final

import msgspec

from vram_residency.audit.format import note, tree
from vram_residency.audit.format.checkpoint import Checkpoint, SignedCheckpoint
from vram_residency.audit.format.entry import Entry, parse_entry
from vram_residency.audit.format.tlog_proof import TlogProof
from vram_residency.core.canonical import canonical_json
from vram_residency.core.errors import InvalidInputError
from vram_residency.evidence import page
from vram_residency.evidence.container import begins_with, join_members, split_members
from vram_residency.seal.attestation import Attestation, unverified_attestation

FORMAT: Final = "vram-residency/proof-bundle/v1"
ENTRIES_MAX: Final = 10_000
ATTACHED_BYTES_MAX: Final = 1 << 20
_VKEYS_MAX: Final = 100
_MANIFEST: Final = "bundle.json"
_PAGE: Final = "index.html"
_CHECKPOINT: Final = "checkpoint"
_ATTESTATION: Final = "attestation.json"
_RESIDENCY: Final = "residency.json"


class BundleFormatError(ValueError):
    """A file begins as a bundle does, and is not one: it was changed, cut, or made up."""


class NotABundleError(BundleFormatError):
    """A file is something else altogether."""


class Subject(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What a bundle is about: one entry, or a shard's entries. Exactly one of the two is there."""

    entry: int | None = None
    shard_id: str | None = None


class ProvenEntry(msgspec.Struct, frozen=True):
    """An entry's line and the hashes of its proof, from the leaf's sibling up. Nothing is verified yet."""

    index: int
    line: bytes
    hashes: tuple[bytes, ...]

    @property
    def leaf_hash(self) -> bytes:
        """SHA-256(0x00 ‖ line)."""
        return tree.leaf_hash(self.line)

    def parse(self) -> Entry:
        """The entry in the line. Raises EntryFormatError."""
        return parse_entry(self.line)


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a bundle says; all else in its file follows from it.

    ``vkeys`` are those that the log names: whoever made the file could have written others. ``note_bytes`` is
    the signed checkpoint. ``attestation`` (a DSSE envelope) and ``residency`` (a residency record) are
    canonical JSON.
    """

    subject: Subject
    vkeys: tuple[str, ...]
    note_bytes: bytes
    entries: tuple[ProvenEntry, ...]
    attestation: bytes | None = None
    residency: bytes | None = None

    @property
    def checkpoint(self) -> SignedCheckpoint:
        """The checkpoint, its signatures unverified. Raises NoteFormatError, CheckpointFormatError."""
        return SignedCheckpoint(Checkpoint.parse(note.split(self.note_bytes)[0]), self.note_bytes)

    def unverified_attestation(self) -> Attestation | None:
        """What the attestation says, whoever signed it. Raises InvalidInputError, DecodeError."""
        if self.attestation is None:
            return None
        return unverified_attestation(msgspec.json.decode(self.attestation))


class _Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    index: int
    leaf_hash: str
    entry: str
    proof: str


class _Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``bundle.json``."""

    format: str
    subject: Subject
    origin: str
    tree_size: int
    root_hash: str
    vkeys: tuple[str, ...]
    entries: tuple[_Item, ...]


def encode(bundle: Bundle) -> bytes:
    """The file. Raises BundleFormatError where the bundle's parts are malformed, or too many or too long."""
    try:
        signed = bundle.checkpoint
        members = {
            _MANIFEST: canonical_json(_manifest(bundle, signed.checkpoint)),
            _PAGE: _page(bundle, signed).encode(),
            _CHECKPOINT: bundle.note_bytes,
            **{_entry_name(proven.index): proven.line for proven in bundle.entries},
            **{
                _proof_name(proven.index): bytes(TlogProof(proven.index, proven.hashes, signed))
                for proven in bundle.entries
            },
        }
        attached = {_ATTESTATION: bundle.attestation, _RESIDENCY: bundle.residency}
        members.update((name, data) for name, data in attached.items() if data is not None)
        return join_members(members)
    except _REFUSALS as error:
        raise BundleFormatError(str(error)) from error


def decode(unverified: bytes) -> Bundle:
    """The bundle in a file. Nothing that it says is verified yet; but nothing else stands in the file.

    Raises BundleFormatError, and of its kinds NotABundleError.
    """
    # 1. Is it meant to be one?
    if not begins_with(unverified, _MANIFEST):
        raise NotABundleError(f"does not begin as a proof bundle does, with {_MANIFEST}")
    # 2. The members, and what is not made from others.
    try:
        members = split_members(unverified)
        manifest = msgspec.json.decode(members[_MANIFEST], type=_Manifest)
        _require_bounds(manifest)
        entries = tuple(_read_entry(members, item) for item in manifest.entries)
        bundle = Bundle(
            subject=manifest.subject,
            vkeys=manifest.vkeys,
            note_bytes=members[_CHECKPOINT],
            entries=entries,
            attestation=members.get(_ATTESTATION),
            residency=members.get(_RESIDENCY),
        )
    except _REFUSALS as error:
        raise BundleFormatError(str(error)) from error
    # 3. Everything that is made from others: manifest, page and proofs are those that follow.
    if encode(bundle) != unverified:
        raise BundleFormatError("its page or its list of contents does not follow from its data")
    return bundle


#: Whatever a part may be refused with; the errors of the formats are all ValueError.
_REFUSALS: Final = (ValueError, KeyError, RecursionError, InvalidInputError, msgspec.MsgspecError)


def _manifest(bundle: Bundle, checkpoint: Checkpoint) -> _Manifest:
    manifest = _Manifest(
        format=FORMAT,
        subject=bundle.subject,
        origin=checkpoint.origin,
        tree_size=checkpoint.size,
        root_hash=checkpoint.root.hex(),
        vkeys=bundle.vkeys,
        entries=tuple(
            _Item(proven.index, proven.leaf_hash.hex(), _entry_name(proven.index), _proof_name(proven.index))
            for proven in bundle.entries
        ),
    )
    _require_bounds(manifest)
    return manifest


def _require_bounds(manifest: _Manifest) -> None:
    subject, indexes = manifest.subject, [item.index for item in manifest.entries]
    if (subject.entry is None) == (subject.shard_id is None):
        raise BundleFormatError("it is not about one thing")
    if not 1 <= len(indexes) <= ENTRIES_MAX or len(manifest.vkeys) > _VKEYS_MAX:
        raise BundleFormatError(f"it holds no entry, over {ENTRIES_MAX}, or over {_VKEYS_MAX} keys")
    if indexes != sorted(set(indexes)) or not 0 <= indexes[0] <= indexes[-1] < tree.SIZE_MAX:
        raise BundleFormatError("its entries are not in order")


def _read_entry(members: dict[str, bytes], item: _Item) -> ProvenEntry:
    unverified_proof = TlogProof.parse(members[_proof_name(item.index)])
    return ProvenEntry(item.index, members[_entry_name(item.index)], unverified_proof.hashes)


def _page(bundle: Bundle, signed: SignedCheckpoint) -> str:
    _require_canonical(bundle.attestation)
    _require_canonical(bundle.residency)
    about = page.Contents(
        subject_entry=bundle.subject.entry,
        subject_shard=bundle.subject.shard_id,
        checkpoint=signed,
        vkeys=bundle.vkeys,
        entries=tuple((proven.index, proven.leaf_hash, proven.parse()) for proven in bundle.entries),
        attestation=bundle.unverified_attestation(),
        residency=bundle.residency,
    )
    return page.render(about)


def _require_canonical(attached: bytes | None) -> None:
    if attached is None:
        return
    if len(attached) > ATTACHED_BYTES_MAX:
        raise BundleFormatError(f"an attached document is over {ATTACHED_BYTES_MAX} bytes")
    value = msgspec.json.decode(attached)
    if not isinstance(value, dict) or canonical_json(value) != attached:
        raise BundleFormatError("an attached document is not a canonical JSON object")


def _entry_name(index: int) -> str:
    return f"entries/{index:020}.json"


def _proof_name(index: int) -> str:
    return f"proofs/{index:020}.tlog-proof"
