"""A narrated event: who did what to what, in one sentence and in fields (narration.md)."""

from __future__ import annotations

import msgspec

Value = str | int | float | bool | None


class NarrationEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event, redacted and cleaned. Optional fields are None where nothing was said.

    ``details`` holds what only some actions have (``shard_id``, ``vram_bytes``, …); they can be read as
    attributes and by ``event["name"]`` like the others.
    """

    emitted_at: str
    level: str
    actor: str
    action: str
    target: str
    human: str
    cute: str | None = None
    story: str | None = None
    worker_id: str | None = None
    correlation_id: str | None = None
    session_id: str | None = None
    job_id: str | None = None
    task_id: str | None = None
    pool_id: str | None = None
    replica_id: str | None = None
    error_kind: str | None = None
    retry_after_ms: float | None = None
    backoff_ms: float | None = None
    queue_position: int | None = None
    engine: str | None = None
    engine_version: str | None = None
    model_ref: str | None = None
    device: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    duration_ms: float | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    emitted_by: str | None = None
    details: dict[str, Value] = {}

    def as_dict(self) -> dict[str, Value]:
        """Every field that says something, details included, in the order above."""
        own = ((name, getattr(self, name)) for name in self.__struct_fields__ if name != "details")
        return {name: value for name, value in own if value is not None} | self.details

    def __getattr__(self, name: str) -> Value:
        if not name.startswith("_") and name in self.details:
            return self.details[name]
        raise AttributeError(f"this {self.action!r} event has no field {name!r}")

    def __getitem__(self, name: str) -> Value:
        return self.as_dict()[name]


#: What a caller of narrate() may name beside action, target and human.
OPTIONAL_FIELDS = frozenset(NarrationEvent.__struct_fields__) - {
    "emitted_at",
    "level",
    "actor",
    "action",
    "target",
    "human",
    "cute",
    "emitted_by",
    "details",
}
