r"""Cleaning of an entry's fields: bad input is evidence, not an excuse (spec: audit-log.md section 5).

Every string, map keys included, goes through the same steps in the same order:

1. redaction: secrets that a pattern or the registry knows become ``[REDACTED]``;
2. escaping: what cannot be seen becomes visible ``\u{HEX}``, so that no two inputs give one entry;
3. cutting: over 1024 bytes, the first 640 and last 192 stay around length and SHA-256 of the text that
   step 2 was given.

Then lists are cut at 256 items, and where the entry would still pass its limit, both limits shrink until
it fits. What is clean already (ids, digests, numbers) comes out as it went in.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sized
from typing import NamedTuple

import msgspec

from vram_residency.audit.format.entry import ENTRY_BYTES_MAX
from vram_residency.core import text as core_text
from vram_residency.core.keys import TOKEN_CHARACTERS_MIN, fingerprint
from vram_residency.core.redaction import redact
from vram_residency.core.text import TEXT_BYTES_MAX

#: Set aside for index, timestamp, names of log and event, and the mac.
ENVELOPE_BYTES = 1024
LIST_ITEMS_MAX = 256

#: Fields that name a token; a whole token that strayed there becomes its fingerprint.
_TOKEN_FIELDS = frozenset({"token_fingerprint", "token_prefix"})
_WHOLE_TOKEN = re.compile(rf"[!-~]{{{TOKEN_CHARACTERS_MIN},{TEXT_BYTES_MAX}}}\Z")
_CUSTOMER_FIELD = "customer_id"
#: Fields with rules of their own: an event that has one goes the long way.
SPECIAL_FIELDS = _TOKEN_FIELDS | {_CUSTOMER_FIELD}
_NAMES_BYTES_MAX = 4096

Pseudonymize = Callable[[str], str]


class _Limits(NamedTuple):
    text_bytes: int
    items: int


#: The first is the rule; the others are for entries that would pass their limit. The last always fits,
#: since an event has at most 100 texts (registry.py).
_LIMITS = (
    _Limits(TEXT_BYTES_MAX, LIST_ITEMS_MAX),
    _Limits(512, LIST_ITEMS_MAX),
    _Limits(256, LIST_ITEMS_MAX),
    _Limits(256, 64),
    _Limits(256, 16),
    _Limits(256, 4),
    _Limits(256, 0),
)


def clean_fields(
    fields: Mapping[str, object], *, pseudonymize: Pseudonymize | None = None
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Clean an entry's fields (the context's correlation id and actor included) in their order.

    Returns the fields and the dotted names of those that were changed, for ``sanitized``. Never refuses:
    whatever comes in, what comes out fits an entry. To be applied once: a cleaned text that shows an
    escape would be escaped again.
    """
    if _is_plainly_clean(fields):
        return dict(fields), ()
    own = dict(fields)
    customer = own.get(_CUSTOMER_FIELD)
    if pseudonymize is not None and isinstance(customer, str):
        own[_CUSTOMER_FIELD] = pseudonymize(customer)
    seen = _Seen()
    cleaned, names = _clean(own, _LIMITS[0], seen)
    for limits in _LIMITS[1:]:
        if _encoded_bytes(cleaned) + _encoded_bytes(names) <= ENTRY_BYTES_MAX - ENVELOPE_BYTES:
            break
        cleaned, names = _clean(own, limits, seen)
    return cleaned, names


def _is_plainly_clean(fields: Mapping[str, object]) -> bool:
    """Whether nothing surely needs to be done: most events, at a fraction of the cost. False where unsure."""
    texts: list[str] = []
    for value in fields.values():
        if type(value) is str:
            texts.append(value)
        elif type(value) is not int and type(value) is not bool:
            return False
    # A space between texts can make a secret of two innocents, never two innocents of a secret.
    joined = " ".join(texts)
    return (
        len(joined) <= TEXT_BYTES_MAX
        and joined.isascii()
        and joined.isprintable()
        and "\\u{" not in joined
        and SPECIAL_FIELDS.isdisjoint(fields)
        and redact(joined) is joined
    )


def _clean(
    fields: Mapping[str, object], limits: _Limits, seen: _Seen
) -> tuple[dict[str, object], tuple[str, ...]]:
    cleaner = _Cleaner(limits, seen)
    cleaned = {name: cleaner.field(name, value) for name, value in fields.items()}
    return cleaned, _bounded(tuple(cleaner.changed))


class _Seen:
    """What need not be worked out again under shorter limits."""

    def __init__(self) -> None:
        #: Texts as they came → visible and redacted form.
        self.texts: dict[str, tuple[str, str]] = {}
        #: Lists and maps by identity: they outlive the cleaning.
        self._marks: dict[int, str] = {}

    def mark(self, items: Sized) -> str:
        """What stands for the rest of a list or map: how many there were, and the hash of them all."""
        mark = self._marks.get(id(items))
        if mark is None:
            source = redact(json.dumps(items, ensure_ascii=False, separators=(",", ":")))
            sha256 = hashlib.sha256(source.encode(errors="surrogatepass")).hexdigest()
            mark = self._marks[id(items)] = f"…[{len(items)} items, sha256:{sha256}]"
        return mark


class _Cleaner:
    """One pass over the fields under given limits; remembers what it changed, in order."""

    def __init__(self, limits: _Limits, seen: _Seen) -> None:
        self._limits = limits
        self._seen = seen
        self.changed: dict[str, None] = {}

    def field(self, name: str, value: object) -> object:
        if name in _TOKEN_FIELDS and isinstance(value, str) and _WHOLE_TOKEN.match(value):
            self.changed[name] = None
            return fingerprint(value)
        return self._value(name, value)

    def _value(self, name: str, value: object) -> object:
        if isinstance(value, str):
            return self._text(name, value)
        if isinstance(value, dict):
            return self._map(name, value)
        if isinstance(value, list | tuple):
            return self._list(name, value)
        return value

    def _text(self, name: str, text: str) -> str:
        cleaned = self._clean_text(text)
        if cleaned != text:
            self.changed[name] = None
        return cleaned

    def _clean_text(self, text: str) -> str:
        """The three steps on one string; the costly first two once, whatever the limits."""
        found = self._seen.texts.get(text)
        if found is None:
            # 1. Secrets go first: later steps would break the patterns they are known by.
            redacted = redact(text)
            # 2. Escaping grows a text and never joins two of them.
            found = self._seen.texts[text] = (core_text.clean(redacted), redacted)
        visible, redacted = found
        # 3. Size and hash in the mark are those of the redacted text: a hash must not help to guess a secret.
        return core_text.cut(visible, redacted, limit_bytes=self._limits.text_bytes)

    def _list(self, name: str, items: list[object] | tuple[object, ...]) -> list[object]:
        # An item has no name of its own: the list is the field that was changed.
        kept: list[object] = [self._value(name, item) for item in items[: self._limits.items]]
        if len(items) > self._limits.items:
            self.changed[name] = None
            kept.append(self._seen.mark(items))
        return kept

    def _map(self, name: str, entries: dict[str, object]) -> dict[str, object]:
        cleaned: dict[str, object] = {}
        for key in list(entries)[: self._limits.items]:
            shown = _free_name(self._clean_text(key), cleaned)
            if shown != key:
                self.changed[f"{name}.{shown}"] = None
            cleaned[shown] = self._value(f"{name}.{shown}", entries[key])
        if len(entries) > self._limits.items:
            self.changed[name] = None
            cleaned[_free_name("…", cleaned)] = self._seen.mark(entries)
        return cleaned


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    """``name``, or with a number where redaction or cutting made two keys alike: neither may vanish."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}~{count}"
    return free


def _bounded(names: tuple[str, ...]) -> tuple[str, ...]:
    """The dotted names, or only their first parts where the list itself would be a flood."""
    if _encoded_bytes(names) <= _NAMES_BYTES_MAX:
        return names
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names))


def _encoded_bytes(value: object) -> int:
    return len(msgspec.json.encode(value))
