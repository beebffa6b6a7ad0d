"""The page inside a proof bundle, for the auditor who opens it. Pure, and part of the format.

`vram proof verify` makes the page again and compares every byte, so that a page cannot say what the data does
not. Whoever changes a character here, or in page_style.py, makes another format: FORMAT in bundle.py, the
page docs/format/proof-bundle.md and the pinned vectors go along.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

import msgspec

from vram_residency.audit.format import note
from vram_residency.audit.format.checkpoint import SignedCheckpoint
from vram_residency.audit.format.entry import Entry
from vram_residency.core.text import visible
from vram_residency.evidence.page_style import STYLE
from vram_residency.seal.attestation import Attestation

NOT_PROVED: Final = (
    "That what the entries say is true. They show that the holder of a key recorded this, in this order.",
    "Anything about hardware, driver or firmware: the entries repeat what these reported.",
    "That nothing failed later: a verification is about the bytes at the moment when they were read.",
    "That the entries shown are all there are: a log can hold others, also about the same subject.",
    "Times: they are the clock of the machine that wrote the log, unless a witness cosigned the checkpoint.",
    "Whose key it is: take the vkey from the log's owner by another way, and not from this file.",
)
# Not even a mistake of ours could make the page run or fetch anything.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What the page is made from: index, leaf hash (32 bytes) and entry of each, all of it unverified."""

    subject_entry: int | None
    subject_shard: str | None
    checkpoint: SignedCheckpoint
    vkeys: tuple[str, ...]
    entries: tuple[tuple[int, bytes, Entry], ...]
    attestation: Attestation | None
    residency: bytes | None


def render(contents: Contents) -> str:
    """The whole page. Every text is escaped here, whether it comes from the log or from us."""
    title = _text(f"Proof bundle: {_subject(contents)}")
    parts = [
        *_head(contents),
        *_entries(contents),
        *_attached(contents),
        *_checkpoint(contents),
        *_how_to_check(),
        *_limits(),
    ]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _head(contents: Contents) -> Iterator[str]:
    signed = contents.checkpoint
    count = len(contents.entries)
    entries = "one entry" if count == 1 else f"{count} entries"
    yield '<header><p class="over">Proof bundle</p>'
    yield f"<h1>{_text(_subject(contents))}</h1></header>"
    yield (
        '<p class="warning">This page is not the proof. It was made from the data beside it, and nothing '
        "here has been verified yet: see below how to check it.</p>"
    )
    yield (
        f"<p>What the data shows, once it verifies: the holder of the log's key recorded {entries} in the "
        f"log <code>{_text(signed.origin)}</code>, each at its index and word for word, before the "
        f"checkpoint over the first {signed.size} entries was signed.</p>"
    )


def _subject(contents: Contents) -> str:
    if contents.subject_shard is not None:
        return f"Shard {contents.subject_shard}"
    return f"Entry {contents.subject_entry}"


def _entries(contents: Contents) -> Iterator[str]:
    yield "<h2>Entries</h2>"
    for index, leaf_hash, entry in contents.entries:
        facts = [
            *((name, _value(value)) for name, value in entry.fields.items()),
            *([("sanitized", ", ".join(entry.sanitized))] if entry.sanitized else []),
            ("leaf hash", leaf_hash.hex()),
        ]
        yield '<section class="entry">'
        yield f'<h3><span class="number">#{index}</span> {_text(entry.event_type)}</h3>'
        when = f"{entry.timestamp} by {entry.service_id}, {entry.audit_id}"
        yield f'<p class="when">{_text(when)}</p>'
        yield from _facts(facts)
        yield "</section>"


def _attached(contents: Contents) -> Iterator[str]:
    if contents.attestation is not None:
        yield "<h2>Attestation</h2>"
        yield (
            "<p>Signed by a key of its own, for whoever asked with this nonce: the shard was verified within "
            "the span of time below. It counts only for who has that key from elsewhere.</p>"
        )
        yield from _facts(_attestation_facts(contents.attestation))
    if contents.residency is not None:
        yield "<h2>Residency record</h2>"
        yield "<p>Where the shard lay when it was sealed, as driver and kernel reported it.</p>"
        yield from _facts(_flat("", msgspec.json.decode(contents.residency)))


def _attestation_facts(attestation: Attestation) -> Iterator[tuple[str, str]]:
    yield "nonce", attestation.nonce
    yield "scope", attestation.scope
    yield "read from", attestation.read_from
    yield "read to", attestation.read_to
    if attestation.audit_index is not None:
        yield "audit index", str(attestation.audit_index)
    yield from _flat("", msgspec.to_builtins(attestation.statement))


def _flat(name: str, value: object) -> Iterator[tuple[str, str]]:
    """The leaves of a tree of JSON by their dotted names."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), inner)
    else:
        yield name, _value(value)


def _checkpoint(contents: Contents) -> Iterator[str]:
    signed = contents.checkpoint
    _, signatures = note.split(signed.note_bytes)
    yield "<h2>Checkpoint</h2>"
    yield from _facts(
        [
            ("origin", signed.origin),
            ("tree size", str(signed.size)),
            ("root hash", signed.root.hex()),
            *(("signed as", f"{name} {key_id.hex()}") for name, key_id, _ in signatures),
            *(("the log names this vkey", vkey) for vkey in contents.vkeys),
        ]
    )


def _how_to_check() -> Iterator[str]:
    yield "<h2>How to check it</h2>"
    yield "<p>Get the vkey from the log's owner by another way than this file. Then:</p>"
    yield "<pre>vram proof verify BUNDLE --vkey VKEY</pre>"
    yield (
        "<p>Or without this software: <code>proofs/</code> holds C2SP tlog-proofs, <code>checkpoint</code> "
        "is a C2SP signed note, and the leaf of each proof is the file of the same number in "
        "<code>entries/</code>. For the leaf hash of an entry:</p>"
    )
    yield "<pre>(printf '\\0'; cat entries/NUMBER.json) | sha256sum</pre>"


def _limits() -> Iterator[str]:
    yield "<h2>What this does not prove</h2>"
    yield "<ul>"
    yield from (f"<li>{_text(limit)}</li>" for limit in NOT_PROVED)
    yield "</ul>"


def _facts(facts: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield "<dl>"
    yield from (f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    yield "</dl>"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(text: str) -> str:
    return escape(visible(text))
