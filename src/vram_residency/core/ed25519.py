"""Ed25519 (RFC 8032) by ``cryptography``, with the checks on public keys that it leaves out."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_SIGN_BIT = 1 << 255
# The y coordinates of the eight points of small order: such a key accepts signatures for any message.
_LOW_ORDER_Y = frozenset(
    {
        0,
        1,
        _P - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)


class SigningKey:
    """A private key; ``repr`` shows only the public half."""

    def __init__(self, seed: bytes) -> None:
        self._private: Ed25519PrivateKey = _ed25519().Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def generate(cls) -> SigningKey:
        """A key from the system's CSPRNG."""
        import secrets

        return cls(secrets.token_bytes(KEY_BYTES))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the key file alone."""
        return self._private.private_bytes_raw()

    @property
    def public_key(self) -> bytes:
        """The 32 public bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """A signature of 64 bytes."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public_key={self.public_key.hex()})"


def is_sound_public_key(unverified: bytes) -> bool:
    """Whether the 32 bytes are a canonical encoding of a point that is not of small order."""
    if len(unverified) != KEY_BYTES:
        return False
    y = int.from_bytes(unverified, "little") & ~_SIGN_BIT
    return y < _P and y not in _LOW_ORDER_Y


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` is one of ``public_key`` over ``message``; False for an unsound key."""
    if not is_sound_public_key(public_key) or len(signature) != SIGNATURE_BYTES:
        return False
    from cryptography.exceptions import InvalidSignature

    try:
        _ed25519().Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ed25519() -> ModuleType:
    """Import late: 30 ms that only signing and verifying need."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519
