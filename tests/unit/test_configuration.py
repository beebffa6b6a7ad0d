"""The settings of `vram serve`: where they come from, which is stronger, and what an error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vram_residency.config.reading import KEYS, parse_assignments, read_settings, variable_of
from vram_residency.core.errors import ConfigurationError

AUDIT = '[audit]\ndirectory = "/log"\n'


def read(folder: Path, text: str = "", **more: Any) -> Any:
    file = folder / "worker.toml"
    file.write_text(text)
    return read_settings(file, **more)


def test_flags_are_stronger_than_the_environment_and_that_than_the_file(tmp_path: Path) -> None:
    """Each source is asked for what the stronger ones left open."""
    text = AUDIT + '[worker]\nid = "of-file"\ndevice = "of-file"\nengine = "of-file"\n'
    environ = {"VRAM_WORKER_DEVICE": "of-environment", "VRAM_WORKER_ENGINE": "of-environment"}
    worker = read(
        tmp_path, text, environ=environ, flags={"worker.engine": "of-flags", "worker.id": None}
    ).worker
    assert (worker.id, worker.device, worker.engine) == ("of-file", "of-environment", "of-flags")


def test_the_defaults_are_the_safe_ones(tmp_path: Path) -> None:
    """Strict, audited, no TCP, no model roots, no empty start."""
    settings = read(tmp_path, AUDIT)
    assert settings.worker.policy == "strict"
    assert settings.audit.required
    assert not settings.tcp.enabled
    assert settings.worker.model_roots == ()
    assert not settings.worker.allow_empty_start


def test_words_of_the_environment_become_what_the_setting_is(tmp_path: Path) -> None:
    """Numbers, booleans, lists and paths."""
    environ = {
        "VRAM_LIMITS_JSON_BYTES_MAX": "7",
        "VRAM_AUDIT_REQUIRED": "false",
        "VRAM_WORKER_MODEL_ROOTS": "/a, /b",
        "VRAM_DRAIN_DEADLINE_S": "1.5",
        "VRAM_SEAL_TOKEN": "read elsewhere",
        "VRAM_SOMETHING_ELSE": "not ours",
    }
    settings = read(tmp_path, environ=environ)
    assert settings.limits.json_bytes_max == 7
    assert not settings.audit.required
    assert settings.worker.model_roots == (Path("/a"), Path("/b"))
    assert settings.drain.deadline_s == 1.5


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_setting_can_be_named_everywhere_and_is_documented(key: str) -> None:
    """In the environment, on the command line, and in the page about them."""
    page = (Path(__file__).parents[2] / "docs" / "format" / "worker-configuration.md").read_text("utf-8")
    section, _, name = key.partition(".")
    assert f"`{name}`" in page.partition(f"## [{section}]")[2].partition("\n## ")[0]
    assert parse_assignments([f"{key}=x"]) == {key: "x"}
    assert variable_of(key) == f"VRAM_{section}_{name}".upper()


@pytest.mark.parametrize(
    ("text", "key", "rule"),
    [
        pytest.param("", "audit.directory", "is missing", id="no log"),
        pytest.param(AUDIT + "[worker]\npolcy = 1\n", "worker.polcy", "is no setting", id="slip"),
        pytest.param(AUDIT + "[wrker]\n", "wrker", "is no setting", id="section"),
        pytest.param(AUDIT + "worker = 1\n", "audit.worker", "is no setting", id="misplaced"),
        pytest.param("worker = 1\n" + AUDIT, "worker", "Expected `object`", id="no table"),
        pytest.param(
            AUDIT + '[limits]\njson_bytes_max = "1"\n', "limits.json_bytes_max", "Expected `int`", id="type"
        ),
        pytest.param(AUDIT + "[limits]\njson_bytes_max = 0\n", "limits.json_bytes_max", ">= 1", id="bound"),
        pytest.param(
            AUDIT + '[worker]\npolicy = "lax"\n', "worker.policy", "one of strict, development", id="word"
        ),
        pytest.param(AUDIT + "[seal]\ntoken_file = 1\n", "seal.token_file", "Expected a path", id="path"),
        pytest.param(AUDIT + "[[models]]\n", "models[0]", "missing required field `path`", id="model"),
        pytest.param(
            AUDIT + '[[models]]\npath = "x"\n', "worker.model_roots", "is empty", id="models without roots"
        ),
        pytest.param("[", "--config", "is not TOML", id="no TOML"),
    ],
)
def test_an_error_names_the_key_and_the_rule(tmp_path: Path, text: str, key: str, rule: str) -> None:
    """And has a hint."""
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, text)
    assert caught.value.setting == key
    assert rule in caught.value.rule
    assert caught.value.hint


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param(
            {"environ": {"VRAM_LIMITS_JSON_BYTES_MAX": "many"}},
            r"^limits.json_bytes_max: .*VRAM_LIMITS_JSON_BYTES_MAX",
            id="variable",
        ),
        pytest.param({"environ": {"VRAM_LIMITS_JSON_BYTES": "1"}}, r"^VRAM_LIMITS_JSON_BYTES: ", id="slip"),
        pytest.param({"flags": {"worker.policy": "lax"}}, r"^worker.policy: .*command line", id="flag"),
        pytest.param(
            {"flags": {"worker.polcy": "strict"}}, r"^worker.polcy: is no setting", id="flag's slip"
        ),
    ],
)
def test_an_error_says_where_the_value_came_from(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    """So that nobody corrects the file where the environment is wrong."""
    with pytest.raises(ConfigurationError, match=message):
        read(tmp_path, AUDIT, **more)


def test_a_file_that_is_not_there_or_endless_is_refused(tmp_path: Path) -> None:
    """As an error of the configuration."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_settings(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigurationError, match="is over"):
        read_settings(Path("/dev/zero"))


def test_an_assignment_without_a_value_is_refused() -> None:
    """`--set KEY` says nothing."""
    with pytest.raises(ConfigurationError, match="must be KEY=VALUE"):
        parse_assignments(["worker.id"])
