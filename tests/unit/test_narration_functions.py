"""The thirteen functions: their sentences word for word, their levels, fields and cute lines."""

from __future__ import annotations

import unicodedata

import pytest
from tests.narration_calls import CALLS, SHARD, call

from vram_residency import narration
from vram_residency.core import context
from vram_residency.core.errors import InvalidInputError
from vram_residency.narration import capture_narration, narrate

ACTIONS = sorted(CALLS)


def test_there_are_thirteen() -> None:
    """And narrate() for the rest."""
    assert len(CALLS) == 13
    exported = {name for name in narration.__all__ if name.startswith("narrate_")}
    assert {function.__name__ for function, *_ in CALLS.values()} == exported


@pytest.mark.parametrize("action", ACTIONS)
def test_the_sentence_is_the_one_of_the_specification(action: str) -> None:
    """On a GPU, with its level, actor and action."""
    _, _, level, sentence, _ = CALLS[action]
    with capture_narration() as story:
        call(action)
    event = story.one(action=action)
    assert event.human == sentence
    assert (event.level, event.actor) == (level, "vram-residency")
    assert event.target


@pytest.mark.parametrize("action", ACTIONS)
def test_on_the_host_no_video_memory_is_claimed(action: str) -> None:
    """The sentence and the cute line speak of host memory and the host."""
    with capture_narration() as story:
        call(action, device="host")
    event = story.one(action=action)
    assert event.human == CALLS[action][4]
    assert event.device == "host"
    told = f"{event.human} {event.cute} {event.target}".replace("VRAM-only policy", "")
    assert "VRAM" not in told
    assert "GPU 0" not in told
    assert "GPU0" not in told


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("device", [None, "host"])
def test_each_has_a_cute_line_with_an_emoji(action: str, device: str | None) -> None:
    """One friendly sentence of at most 160 characters."""
    with capture_narration() as story:
        call(action, device=device)
    cute = story.one(action=action).cute
    assert cute is not None
    assert cute.endswith(
        tuple(f"! {character}" for character in cute if unicodedata.category(character) == "So")
    )
    assert "{" not in cute
    assert "\\u{" not in cute
    assert len(cute) <= 160


@pytest.mark.parametrize("action", ACTIONS)
def test_ids_come_from_the_call_or_else_from_the_context(action: str) -> None:
    """What the call names goes first."""
    with capture_narration() as story, context.operation("worker-7") as correlation_id:
        call(action)
        call(action, worker_id="worker-8", correlation_id="req-1", model_ref="llama-7b")
    implied, named = story.events
    assert (implied.worker_id, implied.correlation_id, implied.model_ref) == (
        "worker-7",
        correlation_id,
        None,
    )
    assert (named.worker_id, named.correlation_id, named.model_ref) == ("worker-8", "req-1", "llama-7b")


def test_at_the_gate_a_verification_is_a_debug_event() -> None:
    """Every execution asks there."""
    with capture_narration() as story:
        call("verify", at_gate=True)
    assert story.one(action="verify").level == "debug"


def test_an_allowed_violation_is_a_warning() -> None:
    """The configuration asked for it."""
    with capture_narration() as story:
        call("policy_violation", action_taken="allowed_by_configuration")
    assert story.one(action="policy_violation").level == "warn"


def test_the_numbers_are_fields_too() -> None:
    """As attributes, as items, and in story.one()."""
    with capture_narration() as story:
        call("seal")
    event = story.one(shard_id=SHARD, vram_bytes=1 << 20, duration_ms=2, device="GPU0", target=SHARD)
    assert event.vram_bytes == event["vram_bytes"] == 1 << 20
    with pytest.raises(AttributeError, match="no field 'nonsense'"):
        event.nonsense  # noqa: B018


def test_a_missing_duration_is_left_out_of_the_sentence() -> None:
    """Nobody measured, so nothing is said."""
    with capture_narration() as story:
        call("seal", duration_ms=None)
    assert story.events[0].human == "Sealed model shard 'shard-abc123' in 1 MB VRAM on GPU 0"
    assert "duration_ms" not in story.events[0].as_dict()


def test_the_share_of_an_empty_device_is_not_applicable() -> None:
    """No division by zero."""
    with capture_narration() as story:
        call("capacity_query", available_bytes=0, used_bytes=0, total_bytes=0)
    assert story.events[0].human == "GPU 0 capacity: 0 B available, 0 B used (n/a utilization)"


def test_long_parts_are_shortened_where_one_can_see_it() -> None:
    """At most 160 characters; the fields keep the whole."""
    with capture_narration() as story:
        call("verify_failed", shard_id="s" * 256, reason="r" * 300)
        call("verify_failed", shard_id="s" * 256)
    both, one = story.events
    assert len(both.human) == len(one.human) == 160
    assert both.human.count("…") == 2
    assert one.human.endswith(": digest_mismatch")
    assert both.shard_id == "s" * 256


def test_braces_in_a_text_are_only_braces() -> None:
    """User text is never a template."""
    with capture_narration() as story:
        call("validate_failed", what="{place}", reason="{0} {reason!r} %s")
    assert story.events[0].human == "Input validation failed for {place}: {0} {reason!r} %s"


SECRET = "hunter2S3cr3t"
LEAKS = [f"password={SECRET}", f'{{"token": "{SECRET}"}}', f"Bearer {SECRET}", f"http://u:{SECRET}@h/"]
TEXT_FIELDS = [
    *[("seal", field) for field in ("shard_id", "worker_id", "model_ref", "correlation_id")],
    *[("verify_failed", field) for field in ("shard_id", "reason")],
    *[("policy_violation", field) for field in ("violation", "action_taken")],
    *[("validate_failed", field) for field in ("what", "reason")],
    *[("digest", field) for field in ("algorithm", "shard_id")],
    *[("deallocate", "shard_id"), ("sign", "shard_id"), ("verify", "shard_id")],
    *[("cuda_init", "name"), ("allocate_failed", "reason")],
]


@pytest.mark.parametrize(("action", "field"), TEXT_FIELDS)
@pytest.mark.parametrize("leak", LEAKS)
def test_no_text_field_lets_a_secret_or_a_line_through(action: str, field: str, leak: str) -> None:
    """Redacted and cleaned before capture, in every field, sentence and cute line."""
    with capture_narration() as story:
        call(action, **{field: f"a\n\u202e{leak} z"})
    for event in story.events:
        told = str(event.as_dict())
        assert SECRET not in told
        assert "\n" not in told
        assert "\u202e" not in told
    assert story.events[-1].action == action


def test_a_secret_made_of_two_harmless_parts_is_seen_in_the_sentence() -> None:
    """The sentence is redacted as a whole too."""
    with capture_narration() as story:
        call("validate_failed", what="api_key", reason=f"{SECRET} is too short")
    assert SECRET not in story.events[0].human


def test_narrate_tells_of_anything_else() -> None:
    """With the action's own level, the spec's optional fields and any others."""
    with capture_narration() as story:
        narrate(
            action="audit_failed",
            target="vram_sealed",
            human="Audit event 'vram_sealed' could not be recorded: BufferFullError",
            cute="The nest's diary is full! 📓",
            error_kind="BufferFullError",
            queue_position=3,
            lost=1,
        )
    event = story.one(action="audit_failed", error_kind="BufferFullError", queue_position=3, lost=1)
    assert (event.level, event.details, event.cute) == ("error", {"lost": 1}, "The nest's diary is full! 📓")


def test_below_the_level_narrate_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    """Without a capture nothing is even put together."""
    narrate(action="digest", target="t", human="Nobody hears this")
    assert caplog.records == []


@pytest.mark.parametrize("action", ["digest", "sign", "validate_failed"])
def test_a_sentence_that_names_no_device_needs_none(action: str) -> None:
    """Then the event has none either; on the host it says so."""
    with capture_narration() as story:
        call(action, gpu_device=None)
        call(action, gpu_device=None, device="host")
    assert [event.device for event in story.events] == [None, "host"]
    assert story.events[0].human == CALLS[action][3]


def test_narrate_shortens_a_long_sentence() -> None:
    """And hides what is secret in it."""
    with capture_narration() as story:
        narrate(action="audit_failed", target="t", human=f"token={SECRET} " + "x" * 300, level="mute")
    assert len(story.events[0].human) == 160
    assert story.events[0].human.startswith("token=[REDACTED] xxx")
    assert story.events[0].human.endswith("…")


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"action": "sing"}, "'sing' is not registered"),
        ({"actor": "somebody"}, "'somebody' is not registered"),
        ({"level": "loud"}, "must be one of trace"),
        ({"Bad": 1}, "snake_case"),
        ({"emitted_at": "now"}, "snake_case"),
    ],
)
def test_a_word_outside_the_vocabulary_is_a_mistake_in_the_program(wrong: dict[str, str], rule: str) -> None:
    """Closed vocabularies stay closed."""
    with capture_narration(), pytest.raises(InvalidInputError, match=rule):
        narrate(**{"action": "seal", "target": "t", "human": "h", **wrong})
