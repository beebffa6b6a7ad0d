"""The plain sentences, word for word from narration.md, and how they are made to fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from vram_residency.core.redaction import redact, safe_text

SENTENCE_CHARACTERS_MAX: Final = 160
HOST: Final = "host"
ELLIPSIS: Final = "…"

HUMAN: Final = {
    "init": "Initialized {memory} manager with {count} GPU(s), {size} total {memory}",
    "seal": "Sealed model shard '{id}' in {size} {memory} on {place}{time}",
    "verify": "Verified seal for shard '{id}' on {place}{time}",
    "verify_failed": "CRITICAL: Seal verification failed for shard '{id}' on {place}: {reason}",
    "allocate": (
        "Allocated {allocated} {memory} on {place} (requested {requested}, {available} available{time})"
    ),
    "allocate_failed": (
        "{Memory} allocation failed on {place}: requested {requested}, only {available} available"
    ),
    "deallocate": "Deallocated {freed} {memory} for shard '{id}' on {place} ({used} still in use)",
    # The policy keeps its name on every device: the sentence says that it does not hold there.
    "policy_violation": "CRITICAL: VRAM-only policy violated on {place}: {violation}. Action: {action}",
    "digest": "Computed {algorithm} digest for {size} of data ({time}, {rate}/s)",
    "sign": "Generated HMAC-SHA256 signature for shard '{id}'{time}",
    "cuda_init": "Initialized CUDA context on {place} ({name}, {size} {memory})",
    "validate_failed": "Input validation failed for {what}: {reason}",
    "capacity_query": "{Place} capacity: {available} available, {used} used ({percent} utilization)",
}


class Place(NamedTuple):
    """How a device is called: ``label`` in fields, the others in sentences."""

    label: str
    place: str
    memory: str

    @classmethod
    def of(cls, device: str | None, gpu_device: int) -> Place:
        """The host where ``device`` says so, else GPU ``gpu_device``."""
        if device == HOST:
            return cls(HOST, HOST, "host memory")
        return cls(f"GPU{gpu_device}", f"GPU {gpu_device}", "VRAM")

    def words(self) -> dict[str, str]:
        """What sentences may say about the device; capitalised to begin one."""
        nest = "the host" if self.label == HOST else self.label
        return {
            "place": self.place,
            "Place": _capitalised(self.place),
            "memory": self.memory,
            "Memory": _capitalised(self.memory),
            "nest": nest,
            "Nest": _capitalised(nest),
        }


def compose(template: str, parts: Mapping[str, str], *, uuids: bool = False) -> str:
    """One sentence of at most 160 characters; long parts are shortened around ``…``.

    The parts are safe already. The whole is redacted once more: parts that are harmless alone may spell
    out a secret together ("for api_key: …").
    """
    sentence = redact(_fitted(template, parts), uuids=uuids)
    return shorten(sentence, SENTENCE_CHARACTERS_MAX, head_share=1.0)


def sentence_of(unverified: str, *, uuids: bool = False) -> str:
    """A caller's own sentence, made safe and at most 160 characters long."""
    return shorten(safe_text(unverified, uuids=uuids), SENTENCE_CHARACTERS_MAX, head_share=1.0)


def shorten(text: str, characters_max: int, *, head_share: float = 0.7) -> str:
    """``text``, or its beginning and end around ``…`` where it is longer than ``characters_max``."""
    if len(text) <= characters_max:
        return text
    kept = max(characters_max - len(ELLIPSIS), 0)
    head = int(kept * head_share)
    return f"{text[:head]}{ELLIPSIS}{text[len(text) - (kept - head) :]}"


def _capitalised(words: str) -> str:
    return words[:1].upper() + words[1:]


def _fitted(template: str, parts: Mapping[str, str]) -> str:
    sentence = template.format_map(parts)
    if len(sentence) <= SENTENCE_CHARACTERS_MAX:
        return sentence
    used = {name: part for name, part in parts.items() if f"{{{name}}}" in template}
    room = SENTENCE_CHARACTERS_MAX - (len(sentence) - sum(map(len, used.values())))
    cap = _fair_cap(sorted(map(len, used.values())), room)
    return template.format_map({name: shorten(part, cap) for name, part in used.items()})


def _fair_cap(lengths: list[int], room: int) -> int:
    """The length to which the longest parts must shrink so that all fit: short parts stay whole."""
    share = room
    for position, length in enumerate(lengths):
        share = room // (len(lengths) - position)
        if length > share:
            break
        room -= length
    return share
