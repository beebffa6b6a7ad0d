"""What a verification says: one of six verdicts, and why (spec: audit-log.md section 6)."""

from __future__ import annotations

from typing import Literal

import msgspec

Word = Literal["intact", "pruned", "tampered", "truncated", "unsealed", "unverifiable"]
Trust = Literal["given", "local", "self-asserted"]

EXIT_CODES: dict[Word, int] = {
    "intact": 0,
    "pruned": 0,
    "tampered": 1,
    "truncated": 1,
    "unsealed": 1,
    "unverifiable": 5,
}


class FirstBad(msgspec.Struct, frozen=True, kw_only=True):
    """Where the first fault lies; None where it cannot be placed.

    ``index`` is the one expected there, ``file`` relative to the directory, ``offset`` the byte at which
    the line begins.
    """

    index: int | None = None
    file: str | None = None
    offset: int | None = None
    reason: str


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found right, by the keys that ``trust`` names.

    ``mac``: every entry's mac, from the first to the last. ``tree``: the entries under the checkpoint hash
    to its root. ``checkpoint``: its signature.
    """

    mac: bool = False
    tree: bool = False
    checkpoint: bool = False


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a pruned log says of its missing entries: all before ``next_index``, removed for ``policy``.

    ``recorded_at`` is the time (RFC 3339) of the entry ``record_index`` that tells of it.
    """

    next_index: int
    policy: str
    recorded_at: str
    record_index: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``verify``.

    ``tree_size`` and ``root_hash`` (hex) are recomputed from the ``entries`` read and, where the log was
    pruned, from the leaf hashes of those that were. ``unvouched_entries``
    are those that no trusted key covers; ``unprotected_entries`` those that the owner of machine and keys
    could still rewrite unseen. ``torn_bytes`` of an unfinished last line are not an entry.
    """

    verdict: Word
    first_bad: FirstBad | None = None
    checked: Checked = Checked()
    trust: Trust = "self-asserted"
    origin: str | None = None
    entries: int = 0
    tree_size: int = 0
    root_hash: str | None = None
    checkpoint_size: int | None = None
    unvouched_entries: int = 0
    unprotected_entries: int = 0
    recovered_entries: int = 0
    torn_bytes: int = 0
    pruned: Pruned | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of ``vram audit verify``."""
        return EXIT_CODES[self.verdict]

    def __bool__(self) -> bool:
        """Whether the verdict is good."""
        return self.exit_code == 0


class Fault(Exception):  # noqa: N818 - a finding, not an error: it never leaves verify()
    """The first thing found wrong, on its way to the verdict."""

    def __init__(self, word: Word, reason: str, *, file: str | None = None) -> None:
        super().__init__(reason)
        self.word: Word = word
        self.reason = reason
        self.file = file
        self.offset: int | None = None
        self.index: int | None = None

    def at(self, index: int | None, file: str | None, offset: int | None) -> Fault:
        """The same fault with its place."""
        self.index, self.file, self.offset = index, file, offset
        return self

    def first_bad(self) -> FirstBad:
        """The same as data."""
        return FirstBad(index=self.index, file=self.file, offset=self.offset, reason=self.reason)


class GapFault(Fault):
    """Entries are missing before entry ``resumes_at``, at which a segment begins."""

    def __init__(self, resumes_at: int) -> None:
        super().__init__("truncated", "entries are missing before this segment")
        self.resumes_at = resumes_at
