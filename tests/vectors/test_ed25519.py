"""Ed25519 against RFC 8032, and the public keys that must never be trusted."""

from __future__ import annotations

import pytest

from vram_residency.core.ed25519 import SigningKey, is_sound_public_key, verify

P = 2**255 - 19

# RFC 8032 section 7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

Point = tuple[int, int]


def add(first: Point, second: Point) -> Point:
    """The addition of RFC 8032 section 5.1.4 in plain fractions: slow, and easy to compare with the text."""
    (x1, y1), (x2, y2) = first, second
    product = D * x1 * x2 * y1 * y2
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, P)
    return x % P, y % P


def times(factor: int, point: Point) -> Point:
    """Double and add."""
    result = (0, 1)
    while factor:
        if factor & 1:
            result = add(result, point)
        point, factor = add(point, point), factor >> 1
    return result


def point_with(y: int) -> Point | None:
    """A point of the curve with this y, or None where there is none (RFC 8032 section 5.1.3)."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    for x in (root := pow(square, (P + 3) // 8, P), root * pow(2, (P - 1) // 4, P) % P):
        if x * x % P == square:
            return x, y
    return None


def small_order_y() -> list[int]:
    """The y coordinates of all points whose order divides 8: L times a point with a full torsion part."""
    points = (times(L, point) for y in range(2, 100) if (point := point_with(y)))
    generator = next(point for point in points if times(4, point) != (0, 1))
    return sorted({times(factor, generator)[1] for factor in range(8)})


LOW_ORDER_Y = small_order_y()


def encoded(y: int, *, sign: int = 0) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


@pytest.mark.parametrize(("seed", "public_key", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(seed: str, public_key: str, message: str, signature: str) -> None:
    """Public key and signature come out bit for bit, and verify."""
    key = SigningKey(bytes.fromhex(seed))
    assert key.public_key.hex() == public_key
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert verify(key.public_key, bytes.fromhex(signature), bytes.fromhex(message))


@pytest.mark.parametrize("bit", [0, 7, 255, 256, 511])
def test_one_bit_changed_in_a_signature_is_refused(bit: int) -> None:
    """Wherever the bit lies, R or S."""
    key = SigningKey.generate()
    signature = int.from_bytes(key.sign(b"message"), "big") ^ (1 << bit)
    assert not verify(key.public_key, signature.to_bytes(64, "big"), b"message")


def test_another_message_or_key_is_refused() -> None:
    """A signature is one key's, over one message."""
    key = SigningKey.generate()
    signature = key.sign(b"message")
    assert not verify(key.public_key, signature, b"massage")
    assert not verify(SigningKey.generate().public_key, signature, b"message")


def test_eight_points_of_small_order_have_five_y_coordinates() -> None:
    """The reference arithmetic above finds them all."""
    assert len(LOW_ORDER_Y) == 5
    assert {0, 1, P - 1} < set(LOW_ORDER_Y)


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", LOW_ORDER_Y)
def test_a_key_of_small_order_is_unsound(y: int, sign: int) -> None:
    """Such a key accepts signatures of anybody, over anything: the library behind us would take it."""
    assert not is_sound_public_key(encoded(y, sign=sign))


def test_a_forgery_under_a_key_of_small_order_is_refused() -> None:
    """R = the identity, S = 0 verifies under the identity as key; here it does not."""
    identity = encoded(1)
    assert not verify(identity, identity + bytes(32), b"any message at all")


@pytest.mark.parametrize("y", [P, P + 1, P + 3, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1])
def test_a_non_canonical_key_is_unsound(y: int, sign: int) -> None:
    """One key has one encoding, so y must be below the field's prime."""
    assert not is_sound_public_key(encoded(y, sign=sign))


@pytest.mark.parametrize("size_bytes", [0, 31, 33])
def test_a_key_of_another_length_is_unsound(size_bytes: int) -> None:
    """32 bytes, no more, no less."""
    assert not is_sound_public_key(b"\x02" * size_bytes)


@pytest.mark.parametrize("size_bytes", [0, 63, 65])
def test_a_signature_of_another_length_is_refused(size_bytes: int) -> None:
    """64 bytes, no more, no less; and no exception."""
    assert not verify(SigningKey.generate().public_key, bytes(size_bytes), b"message")


def test_a_key_that_is_no_point_verifies_nothing() -> None:
    """Where y has no x on the curve the answer is no, not an exception."""
    assert not verify(encoded(2), bytes(64), b"message")


def test_a_seed_makes_the_same_key_again_and_stays_out_of_repr() -> None:
    """The seed is for the key file alone."""
    key = SigningKey.generate()
    assert SigningKey(key.seed).public_key == key.public_key
    assert key.seed.hex() not in repr(key)
