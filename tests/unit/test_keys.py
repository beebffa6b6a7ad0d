"""Secrets: where they may come from and what is derived from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from vram_residency.core import keys
from vram_residency.core.errors import ConfigurationError

TOKEN = "0123456789abcdef"


def secret_file(path: Path, text: str | bytes = TOKEN, mode: int = 0o600) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(mode)
    return path


@pytest.fixture(autouse=True)
def _no_secrets_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv(keys.SEAL_TOKEN_VARIABLE, raising=False)


def test_a_fingerprint_is_the_first_six_digits_of_sha_256() -> None:
    """The well-known digest of "abc" begins with ba7816."""
    assert keys.fingerprint("abc") == keys.fingerprint(b"abc") == "ba7816"


def test_a_private_file_gives_its_token_without_white_space(tmp_path: Path) -> None:
    """Editors add a newline; it is not part of the token."""
    assert keys.load_seal_token(secret_file(tmp_path / "token", f"  {TOKEN}\n")) == TOKEN


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o666, 0o700])
def test_a_looser_mode_is_refused_with_the_mending_command(tmp_path: Path, mode: int) -> None:
    """The error names the file and what to type."""
    path = secret_file(tmp_path / "token", mode=mode)
    with pytest.raises(ConfigurationError, match="looser than 0600") as refused:
        keys.load_seal_token(path)
    assert refused.value.hint == f"Run `chmod 600 {path}`."


def test_a_tighter_mode_is_fine(tmp_path: Path) -> None:
    """0400 is what a careful administrator sets."""
    assert keys.read_secret_file(secret_file(tmp_path / "token", mode=0o400)) == TOKEN


@pytest.mark.parametrize(
    ("content", "rule"), [(b"\xff\xfe" * 20, "not UTF-8"), (b"x" * 65_537, "not a secret file")]
)
def test_what_is_no_text_or_no_secret_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    """A model named by mistake is not read into memory as a token."""
    with pytest.raises(ConfigurationError, match=rule):
        keys.read_secret_file(secret_file(tmp_path / "token", content))


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    """Not an OSError: only errors of our tree come out."""
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        keys.read_secret_file(tmp_path / "absent")


def test_a_short_token_is_refused_without_showing_it(tmp_path: Path) -> None:
    """16 characters are the least; the message does not hold the token."""
    with pytest.raises(ConfigurationError, match="fewer than 16 characters") as refused:
        keys.load_seal_token(secret_file(tmp_path / "token", "hunter2"))
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


def test_the_environment_serves_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes of the same user can read it, and the warning says so without the token."""
    monkeypatch.setenv(keys.SEAL_TOKEN_VARIABLE, TOKEN)
    with pytest.warns(UserWarning, match="keep it in a 0600 file") as caught:
        assert keys.load_seal_token() == TOKEN
    assert TOKEN not in str(caught[0].message)


def test_a_systemd_credential_goes_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the service manager hands a token over, nothing else is looked at."""
    secret_file(tmp_path / keys.SEAL_TOKEN_CREDENTIAL, "credential-of-the-unit")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv(keys.SEAL_TOKEN_VARIABLE, TOKEN)
    assert keys.load_seal_token() == "credential-of-the-unit"


def test_no_token_at_all_is_an_error_that_lists_the_ways() -> None:
    """The hint names the file, the credential and the variable."""
    with pytest.raises(ConfigurationError, match="no seal token was given") as refused:
        keys.load_seal_token()
    assert "0600 file" in refused.value.hint


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    """0700 is the widest for a directory of keys."""
    tmp_path.chmod(0o755)
    with pytest.raises(ConfigurationError, match="0755 is looser than 0700"):
        keys.require_private(tmp_path, mode=0o700)
    tmp_path.chmod(0o700)
    keys.require_private(tmp_path, mode=0o700)
