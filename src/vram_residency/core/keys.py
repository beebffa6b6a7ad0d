"""Secrets: where they may come from, what is derived from them, how they are named in public."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from pathlib import Path

from vram_residency.core.errors import ConfigurationError
from vram_residency.core.identifiers import is_unicode

TOKEN_CHARACTERS_MIN = 16
SEAL_TOKEN_VARIABLE = "VRAM_SEAL_TOKEN"  # noqa: S105 - the name of a variable, not a secret
SEAL_TOKEN_CREDENTIAL = "vram-seal-token"  # noqa: S105 - the name of a systemd credential
_SECRET_FILE_BYTES_MAX = 65_536


def fingerprint(secret: str | bytes) -> str:
    """First 6 hex digits of SHA-256: names a token in logs without giving it away (audit-log.md §5)."""
    data = secret.encode() if isinstance(secret, str) else secret
    return hashlib.sha256(data).hexdigest()[:6]


def hkdf_sha256(secret: bytes, *, info: bytes, size_bytes: int = 32) -> bytes:
    """HKDF-SHA256 without salt (RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=size_bytes, salt=None, info=info).derive(secret)


def require_private(path: Path, *, mode: int) -> None:
    """Refuse a file or directory that others may read or write (audit-log.md section 1).

    ``mode`` is the widest allowed, 0o600 or 0o700. Raises ConfigurationError naming the mending command.
    """
    actual = stat.S_IMODE(path.stat().st_mode)
    if actual & ~mode:
        raise ConfigurationError(
            str(path), f"mode {actual:04o} is looser than {mode:04o}", hint=f"Run `chmod {mode:o} {path}`."
        )


def read_secret_file(path: Path, *, must_be_private: bool = True) -> str:
    """Text of a 0600 file without the white space around it. Raises ConfigurationError."""
    try:
        if must_be_private:
            require_private(path, mode=0o600)
        with path.open("rb") as file:
            data = file.read(_SECRET_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(str(path), f"cannot be read: {error.strerror}") from error
    if len(data) > _SECRET_FILE_BYTES_MAX:
        raise ConfigurationError(str(path), f"is over {_SECRET_FILE_BYTES_MAX} bytes: not a secret file")
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ConfigurationError(str(path), "is not UTF-8 text") from error


def check_seal_token(unverified: str) -> str:
    """A seal token has at least 16 characters (residency.md section 4), else ConfigurationError."""
    if not is_unicode(unverified):
        raise ConfigurationError("worker_token", "is not text")
    if len(unverified) < TOKEN_CHARACTERS_MIN:
        raise ConfigurationError(
            "worker_token",
            f"has fewer than {TOKEN_CHARACTERS_MIN} characters",
            hint="Make one with `openssl rand -hex 32` and keep it in a 0600 file.",
        )
    return unverified


def load_seal_token(path: Path | None = None) -> str:
    """The seal token: from ``path`` (0600), a systemd credential, or the environment (with a warning).

    Raises ConfigurationError where there is none, or where it is unsafe.
    """
    if path is not None:
        return check_seal_token(read_secret_file(path))
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if directory and (credential := Path(directory) / SEAL_TOKEN_CREDENTIAL).exists():
        return check_seal_token(credential.read_text("utf-8").strip())
    if token := os.environ.get(SEAL_TOKEN_VARIABLE):
        warnings.warn(
            f"the seal token comes from the environment variable {SEAL_TOKEN_VARIABLE}, which other "
            "processes of this user can read; keep it in a 0600 file instead",
            stacklevel=2,
        )
        return check_seal_token(token)
    raise ConfigurationError(
        "worker_token",
        "no seal token was given",
        hint=f"Name a 0600 file, a systemd credential {SEAL_TOKEN_CREDENTIAL}, or set {SEAL_TOKEN_VARIABLE}.",
    )
