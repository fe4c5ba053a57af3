"""The primitives once more, slowly, from their papers: big integers, hashlib and nothing else.

Nothing here is constant-time or fast. It exists so that the vectors of docs/protocol.md do not come
out of the same library calls that they are to check. Sources: RFC 7748 §5 (X25519), "Cryptography
in NaCl" (HSalsa20, XSalsa20-Poly1305, crypto_box), RFC 8439 §2.5 (Poly1305), RFC 2104 (HMAC),
RFC 5869 (HKDF), RFC 8032 §5.1 (Ed25519), libsodium's documentation (crypto_box_seal).
"""

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493  # the order of Ed25519's base point
BASE_POINT_U = (9).to_bytes(32, "little")


class ForgedBox(Exception):
    """The Poly1305 tag does not match."""


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104 with B = 64."""
    padded = (sha256(key) if len(key) > 64 else key).ljust(64, b"\x00")
    inner = sha256(xor(padded, b"\x36" * 64) + message)
    return sha256(xor(padded, b"\x5c" * 64) + inner)


def hkdf(salt: bytes, ikm: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869: extract, then expand."""
    prk = hmac_sha256(salt or bytes(32), ikm)
    output, block, counter = b"", b"", 1
    while len(output) < size:
        block = hmac_sha256(prk, block + info + bytes([counter]))
        output += block
        counter += 1
    return output[:size]


def x25519(scalar: bytes, u_coordinate: bytes) -> bytes:
    """RFC 7748 §5: the Montgomery ladder."""
    k = int.from_bytes(scalar, "little") & ~7
    k = (k & (2**255 - 1)) | 2**254
    x1 = int.from_bytes(u_coordinate, "little") & (2**255 - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a % P, c * b % P
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % P, x1 * (da - cb) ** 2 % P
        x2, z2 = aa * bb % P, e * (aa + 121665 * e) % P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def x25519_public(secret: bytes) -> bytes:
    return x25519(secret, BASE_POINT_U)


# Salsa20's double round as (target, source, source, rotation), from the Salsa20 specification §4-6.
_QUARTERS = ((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)) + (
    (0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)
)  # fmt: skip
_DOUBLE_ROUND = tuple(
    step
    for a, b, c, d in _QUARTERS
    for step in ((b, a, d, 7), (c, b, a, 9), (d, c, b, 13), (a, d, c, 18))
)


def _salsa_words(key: bytes, block: bytes) -> list[int]:
    sigma = b"expand 32-byte k"
    layout = sigma[0:4] + key[0:16] + sigma[4:8] + block + sigma[8:12] + key[16:32] + sigma[12:16]
    return [int.from_bytes(layout[i : i + 4], "little") for i in range(0, 64, 4)]


def _salsa_rounds(words: list[int]) -> list[int]:
    x = list(words)
    for _ in range(10):
        for target, left, right, turn in _DOUBLE_ROUND:
            total = (x[left] + x[right]) & 0xFFFFFFFF
            x[target] ^= (total << turn | total >> 32 - turn) & 0xFFFFFFFF
    return x


def hsalsa20(key: bytes, block: bytes) -> bytes:
    x = _salsa_rounds(_salsa_words(key, block))
    return b"".join(x[i].to_bytes(4, "little") for i in (0, 5, 10, 15, 6, 7, 8, 9))


def xsalsa20(key: bytes, nonce: bytes, size: int) -> bytes:
    """`size` bytes of key stream."""
    subkey = hsalsa20(key, nonce[:16])
    stream = b""
    for counter in range((size + 63) // 64):
        words = _salsa_words(subkey, nonce[16:] + counter.to_bytes(8, "little"))
        mixed = zip(words, _salsa_rounds(words), strict=True)
        stream += b"".join(((a + b) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in mixed)
    return stream[:size]


def poly1305(key: bytes, message: bytes) -> bytes:
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    accumulator = 0
    for start in range(0, len(message), 16):
        block = message[start : start + 16] + b"\x01"
        accumulator = (accumulator + int.from_bytes(block, "little")) * r % (2**130 - 5)
    total = accumulator + int.from_bytes(key[16:], "little")
    return (total % 2**128).to_bytes(16, "little")


def beforenm(public: bytes, secret: bytes) -> bytes:
    """crypto_box_beforenm: X25519, then HSalsa20 over a block of zeros."""
    return hsalsa20(x25519(secret, public), bytes(16))


def secretbox(key: bytes, nonce: bytes, plaintext: bytes) -> bytes:
    """nacl.secret.SecretBox: nonce ‖ tag ‖ ciphertext."""
    stream = xsalsa20(key, nonce, 32 + len(plaintext))
    ciphertext = xor(stream[32:], plaintext)
    return nonce + poly1305(stream[:32], ciphertext) + ciphertext


def open_secretbox(key: bytes, box: bytes) -> bytes:
    nonce, tag, ciphertext = box[:24], box[24:40], box[40:]
    stream = xsalsa20(key, nonce, 32 + len(ciphertext))
    if poly1305(stream[:32], ciphertext) != tag:
        raise ForgedBox
    return xor(stream[32:], ciphertext)


def sealed_box(public: bytes, ephemeral_secret: bytes, plaintext: bytes) -> bytes:
    """nacl.public.SealedBox with a chosen ephemeral key."""
    ephemeral = x25519_public(ephemeral_secret)
    nonce = hashlib.blake2b(ephemeral + public, digest_size=24).digest()
    return ephemeral + secretbox(beforenm(public, ephemeral_secret), nonce, plaintext)[24:]


def open_sealed_box(secret: bytes, box: bytes) -> bytes:
    ephemeral = box[:32]
    nonce = hashlib.blake2b(ephemeral + x25519_public(secret), digest_size=24).digest()
    return open_secretbox(beforenm(ephemeral, secret), nonce + box[32:])


# Ed25519 in extended coordinates, as in RFC 8032 §5.1.

Point = tuple[int, int, int, int]
_D = -121665 * pow(121666, P - 2, P) % P
_BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE: Point = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % P)


def _add(p: Point, q: Point) -> Point:
    a, b = (p[1] - p[0]) * (q[1] - q[0]), (p[1] + p[0]) * (q[1] + q[0])
    c, d = 2 * p[3] * q[3] * _D, 2 * p[2] * q[2]
    e, f, g, h = (b - a) % P, (d - c) % P, (d + c) % P, (b + a) % P
    return e * f % P, g * h % P, f * g % P, e * h % P


def _multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = _add(result, point)
        point = _add(point, point)
        scalar >>= 1
    return result


def _compress(point: Point) -> bytes:
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _expand(seed: bytes) -> tuple[int, bytes]:
    digest = sha512(seed)
    scalar = int.from_bytes(digest[:32], "little") & (2**254 - 8) | 2**254
    return scalar, digest[32:]


def ed25519_public(seed: bytes) -> bytes:
    return _compress(_multiply(_expand(seed)[0], _BASE))


def ed25519_sign(seed: bytes, message: bytes) -> bytes:
    scalar, prefix = _expand(seed)
    public = _compress(_multiply(scalar, _BASE))
    r = int.from_bytes(sha512(prefix + message), "little") % L
    commitment = _compress(_multiply(r, _BASE))
    h = int.from_bytes(sha512(commitment + public + message), "little") % L
    return commitment + ((r + h * scalar) % L).to_bytes(32, "little")
