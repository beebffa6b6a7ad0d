"""Which keys a verification stands on (spec: audit-log.md section 6)."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final

import msgspec

from vram_residency.audit.format import note
from vram_residency.audit.format.chain import KEY_BYTES
from vram_residency.audit.reading.verdict import Trust
from vram_residency.audit.store.keyring import Keyring, MacState, read_genesis_key, require_key_folder
from vram_residency.core.errors import InvalidInputError, LogDamagedError, MissingKeyError, VramError

_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}\Z")


class TrustedKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that count, and where they come from; ``repr`` shows no secret.

    ``mac_state`` may be there without counting as a key (``uses_mac_state``): a log shorter than it says
    was cut, whoever is trusted.
    """

    trust: Trust
    vkey: note.VerifierKey | None = None
    genesis_key: bytes | None = None
    mac_state: MacState | None = None

    @property
    def uses_mac_state(self) -> bool:
        """Whether the running epoch's key is all there is for the macs."""
        return self.trust == "local" and self.genesis_key is None and self.mac_state is not None

    def __repr__(self) -> str:
        return f"TrustedKeys({self.trust!r}, vkey={self.vkey})"


def gather(
    default_keys: Path,
    *,
    vkey: str | None,
    mac_key: bytes | str | None,
    keys: str | os.PathLike[str] | None,
) -> TrustedKeys:
    """Keys given count first, then this machine's own folder, else none.

    Raises InvalidInputError for a malformed key, ConfigurationError for a key folder that is open to
    others or malformed, MissingKeyError for one that holds no key, or was named and is missing.
    """
    folder = default_keys if keys is None else Path(keys)
    if vkey is not None or mac_key is not None:
        return TrustedKeys(
            trust="given",
            vkey=None if vkey is None else _parse_vkey(vkey),
            genesis_key=None if mac_key is None else parse_mac_key(mac_key),
            mac_state=_witness(folder),
        )
    if keys is None and not folder.is_dir():
        return TrustedKeys(trust="self-asserted")
    return _local(folder)


def parse_mac_key(unverified: bytes | str) -> bytes:
    """K_0 as 32 bytes or 64 hex digits, else InvalidInputError."""
    if isinstance(unverified, bytes) and len(unverified) == KEY_BYTES:
        return unverified
    text = unverified.decode("ascii", "replace") if isinstance(unverified, bytes) else unverified
    if _HEX_KEY.match(text.strip()) is None:
        raise InvalidInputError(
            "mac_key", "must be K_0: 32 bytes or 64 hex digits", hint="`vram audit init` printed it once."
        )
    return bytes.fromhex(text.strip())


def _parse_vkey(text: str) -> note.VerifierKey:
    try:
        return note.VerifierKey.parse(text.strip())
    except note.NoteFormatError as error:
        hint = "Give the text name+hash+base64 that `vram audit init` printed."
        raise InvalidInputError("vkey", str(error), hint=hint) from None


def _local(folder: Path) -> TrustedKeys:
    require_key_folder(folder)
    has_log_key = (folder / "log.key").exists()
    signer = Keyring(folder).signer if has_log_key else None
    genesis_key = read_genesis_key(folder)
    if signer is None and genesis_key is None:
        raise MissingKeyError(str(folder), "holds neither log.key nor genesis.key")
    return TrustedKeys(
        trust="local",
        vkey=None if signer is None else signer.verifier,
        genesis_key=genesis_key,
        mac_state=_read_mac_state(folder) if has_log_key else None,
    )


def _witness(folder: Path) -> MacState | None:
    # Only asked how long the log was: a folder that is missing or unsafe is no reason to stop.
    with contextlib.suppress(VramError, OSError):
        return _read_mac_state(folder)
    return None


def _read_mac_state(folder: Path) -> MacState | None:
    if not (folder / "mac.key").exists():
        return None
    with contextlib.suppress(LogDamagedError):
        return Keyring(folder).read_mac_state()
    return None
