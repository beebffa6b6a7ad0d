"""From a TOML file, the environment and flags to Settings, the later stronger than the earlier.

An error names the key, where its value came from, the rule, and a way out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import msgspec

from vram_residency.config.settings import Settings
from vram_residency.core.errors import ConfigurationError
from vram_residency.core.keys import SEAL_TOKEN_VARIABLE

FILE_BYTES_MAX: Final = 1 << 20
PREFIX: Final = "VRAM_"
_HINT: Final = "See docs/format/worker-configuration.md."
_PLACE: Final = re.compile(r"^(?P<rule>.*?)(?: - at `\$\.?(?P<key>[^`]*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`")


def _keys() -> dict[str, msgspec.structs.FieldInfo]:
    """Every plain setting by its dotted key (all but ``models``, which only the file has)."""
    return {
        f"{section.name}.{field.name}": field
        for section in msgspec.structs.fields(Settings)
        if isinstance(section.type, type)
        for field in msgspec.structs.fields(section.type)
    }


KEYS: Final = _keys()


def read_settings(
    file: Path | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Settings:
    """The settings. ``flags`` are values by dotted key (``audit.directory``), None where not given.

    Raises ConfigurationError.
    """
    tree: dict[str, Any] = {} if file is None else _read_file(file)
    for key, text in _of_environment(environ or {}):
        _put(tree, key, _typed(key, text, f"the environment variable {variable_of(key)}"))
    for key, value in (flags or {}).items():
        if value is not None:
            _require_known(key)
            _put(tree, key, _typed(key, value, "the command line") if isinstance(value, str) else value)
    try:
        return msgspec.convert(tree, Settings, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explained(str(error), str(file)) from None


def parse_assignments(words: Iterable[str]) -> dict[str, str]:
    """``section.key=value`` of the command line, by key. Raises ConfigurationError."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigurationError(
                key or "--set", "must be KEY=VALUE", hint="Example: --set audit.required=true"
            )
        _require_known(key)
        found[key] = value
    return found


def variable_of(key: str) -> str:
    """``audit.directory`` → ``VRAM_AUDIT_DIRECTORY``."""
    return PREFIX + key.replace(".", "_").upper()


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError("--config", f"{path} cannot be read: {error.strerror}") from None
    if len(data) > FILE_BYTES_MAX:
        raise ConfigurationError("--config", f"{path} is over {FILE_BYTES_MAX} bytes")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError("--config", f"{path} is not TOML: {error}") from None


def _of_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The settings among the variables. One that begins like a section and is none is a slip, and refused."""
    sections = {key.partition(".")[0] for key in KEYS}
    for name in sorted(environ):
        section, _, rest = name.removeprefix(PREFIX).lower().partition("_")
        if not name.startswith(PREFIX) or section not in sections or name == SEAL_TOKEN_VARIABLE:
            continue
        if f"{section}.{rest}" not in KEYS:
            raise ConfigurationError(name, f"is no setting of [{section}]", hint=_HINT)
        yield f"{section}.{rest}", environ[name]


def _require_known(key: str) -> None:
    if key not in KEYS:
        raise ConfigurationError(key, "is no setting", hint=_HINT)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    table = tree.setdefault(section, {})
    if isinstance(table, dict):  # else the conversion says what is wrong
        table[name] = value


def _typed(key: str, text: str, source: str) -> Any:
    """The value of a word: lists are separated by commas, numbers and booleans are as in TOML."""
    is_list = isinstance(KEYS[key].default, tuple)
    plain = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
    try:
        return msgspec.convert(plain, KEYS[key].type, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _explained(f"{error} - at `$.{key}`", source) from None


def _decode(kind: type, value: Any) -> Any:
    """Paths, which msgspec does not know."""
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value)
    raise ValueError(f"Expected a path, got `{type(value).__name__}`")


def _explained(message: str, source: str) -> ConfigurationError:
    found = _PLACE.match(message)
    rule, key = (found["rule"], found["key"] or "") if found else (message, "")
    if unknown := _UNKNOWN.search(rule):
        key, rule = f"{key}.{unknown['field']}".lstrip("."), "is no setting"
    if rule.startswith("Invalid enum value") and key in KEYS:
        rule += f": must be one of {', '.join(_words(KEYS[key].type))}"
    return ConfigurationError(key or "configuration", f"{rule} (from {source})", hint=_HINT)


def _words(kind: Any) -> list[str]:
    """The words of a Literal, within a union or a tuple too."""
    if isinstance(kind, str):
        return [kind]
    return [word for part in get_args(kind) for word in _words(part)]
