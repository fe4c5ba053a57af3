"""docs/protocol.md §2–§4, §6 and §7, transcribed line by line, as slowly as it is written there.

The formulas stand here as in the specification and share no code with saltline.crypto. The KEM's
arithmetic is the one thing taken from a library (`cryptography`), with its randomness recorded.
"""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import mlkem

from tests.crypto import slow_primitives as slow
from tests.crypto.slow_primitives import hkdf, hmac_sha256, sha256, sha512

# Notation -------------------------------------------------------------------------------------


def H(data: bytes) -> bytes:
    return sha256(data)


def label(x: str) -> bytes:
    """'x' = ASCII `saltline/1 x` ‖ 00."""
    return b"saltline/1 " + x.encode("ascii") + b"\x00"


def u8(n: int) -> bytes:
    return n.to_bytes(1, "big")


def u32(n: int) -> bytes:
    return n.to_bytes(4, "big")


def u64(n: int) -> bytes:
    return n.to_bytes(8, "big")


def lp(x: bytes) -> bytes:
    return u32(len(x)) + x


# The KEM: ML-KEM-1024 where a key waits for weeks, ML-KEM-768 on every message ------------------


def kem_public(size: int, seed: bytes) -> bytes:
    if size == 1024:
        return mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
    return mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()


def kem_decapsulate(size: int, seed: bytes, ciphertext: bytes) -> bytes:
    if size == 1024:
        return mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)
    return mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).decapsulate(ciphertext)


def kem_encapsulate(size: int, public: bytes) -> tuple[bytes, bytes]:
    """(shared secret, ciphertext), out of the library's own randomness."""
    if size == 1024:
        return mlkem.MLKEM1024PublicKey.from_public_bytes(public).encapsulate()
    return mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()


# §2 Keys --------------------------------------------------------------------------------------


def identity(relay_id: bytes, username: str, device: int, iks: bytes, ikd: bytes) -> bytes:
    return lp(relay_id) + lp(username.encode("ascii")) + u32(device) + iks + ikd


def identity_payload(ID: bytes) -> bytes:
    return label("identity") + lp(ID)


def prekey_payload(kind: int, number: int, not_after: int, ID: bytes, key: bytes) -> bytes:
    return label("prekey") + u8(kind) + u32(number) + u64(not_after) + H(ID) + lp(key)


# §3 Session set-up ----------------------------------------------------------------------------


def DH(a: bytes, B: bytes) -> bytes:
    """DH(a, B) = crypto_box_beforenm(B, a)."""
    return slow.beforenm(B, a)


def setup(
    started: int,
    ID_A: bytes,
    EK: bytes,
    spk_id: int,
    opk_id: int,
    kem_kind: int,
    kem_id: int,
    ct: bytes,
) -> bytes:
    return (
        u8(1)
        + u64(started)
        + lp(ID_A)
        + EK
        + u32(spk_id)
        + u32(opk_id)
        + u8(kem_kind)
        + u32(kem_id)
        + lp(ct)
    )


def associated_data(ID_A: bytes, ID_B: bytes) -> bytes:
    return H(label("ad") + lp(ID_A) + lp(ID_B))


def transcript(AD: bytes, setup: bytes, SPK: bytes, OPK: bytes, kem_key: bytes) -> bytes:
    return H(label("transcript") + lp(AD) + lp(setup) + lp(SPK) + lp(OPK) + lp(kem_key))


def shared_key(dhs: Sequence[bytes], ss: bytes, th: bytes) -> bytes:
    """SK, from DH(IKd_A,SPK), DH(EK,IKd_B), DH(EK,SPK) and, where there is one, DH(EK,OPK)."""
    info = label("pqxdh X25519 ML-KEM-1024 SHA-256") + th
    return hkdf(bytes(32), b"\xff" * 32 + b"".join(dhs) + ss, info, 32)


def session_id(th: bytes) -> bytes:
    return H(label("sid") + th)[:16]


# §4 Ratchet -----------------------------------------------------------------------------------


def chain_id(dh: bytes, kem_pk: bytes, kem_ct: bytes) -> bytes:
    return H(label("chain") + lp(dh) + lp(kem_pk) + lp(kem_ct))


def root_step(RK: bytes, dh_output: bytes, ss: bytes, chain: bytes) -> tuple[bytes, bytes]:
    """RK' and CK."""
    output = hkdf(RK, dh_output + lp(ss), label("root") + chain, 64)
    return output[:32], output[32:]


def message_key(CK: bytes) -> bytes:
    return hmac_sha256(CK, b"\x01")


def next_chain_key(CK: bytes) -> bytes:
    return hmac_sha256(CK, b"\x02")


def header(
    sid: bytes, PN: int, N: int, dh: bytes, kem_pk: bytes, kem_ct: bytes, flags: int = 0
) -> bytes:
    return u8(1) + u8(flags) + sid + u32(PN) + u32(N) + lp(dh) + lp(kem_pk) + lp(kem_ct)


def box_key(mk: bytes, AD: bytes, header: bytes) -> tuple[bytes, bytes]:
    """k and com."""
    output = hkdf(label("message"), mk, label("box") + H(lp(AD) + lp(header)), 64)
    return output[:32], output[32:]


def padded_size(L: int) -> int:
    """Of the SealedBox's plaintext: 3,584, then steps of 512 to 8 KiB, PADMÉ above."""
    if L <= 3584:
        return 3584
    if L <= 8192:
        return -(-L // 512) * 512
    E = L.bit_length() - 1
    S = (E.bit_length() - 1) + 1
    step = 1 << (E - S)
    return -(-L // step) * step


def pad(content: bytes, setup: bytes, header: bytes) -> bytes:
    """content ‖ 80 ‖ 00…: the rest of the SealedBox's plaintext is counted in."""
    around = 1 + 4 + len(setup) + 4 + len(header) + 32 + 24 + 16
    size = padded_size(around + len(content) + 1) - around
    return (content + b"\x80").ljust(size, b"\x00")


def envelope_plaintext(setup: bytes, header: bytes, com: bytes, inner: bytes) -> bytes:
    return u8(1) + lp(setup) + lp(header) + com + inner


def seal(ikd_b: bytes, ephemeral_secret: bytes, plaintext: bytes) -> bytes:
    return slow.sealed_box(ikd_b, ephemeral_secret, plaintext)


# §5 Generations -------------------------------------------------------------------------------


def generation_key(iks_seed: bytes) -> bytes:
    return hkdf(b"", iks_seed, label("generation"), 32)


def generation_mac(iks_seed: bytes, g: int) -> bytes:
    return hmac_sha256(generation_key(iks_seed), u64(g))


# §6 Relay connection and rooms ----------------------------------------------------------------


def _login(
    x: str, relay_id: bytes, user: str, device: int, hello: bytes, challenge: bytes, spki: bytes
) -> bytes:
    talk = H(lp(hello) + lp(challenge))
    return label(x) + lp(relay_id) + lp(user.encode("ascii")) + u32(device) + talk + spki


def login_payload(
    relay_id: bytes, user: str, device: int, hello: bytes, challenge: bytes, spki: bytes
) -> bytes:
    return _login("login", relay_id, user, device, hello, challenge, spki)


def register_payload(
    relay_id: bytes,
    user: str,
    device: int,
    hello: bytes,
    challenge: bytes,
    spki: bytes,
    create_entry: bytes,
) -> bytes:
    statement = _login("register", relay_id, user, device, hello, challenge, spki)
    return statement + H(create_entry)


def certificate_payload(spki: bytes, not_after: int) -> bytes:
    return label("tls") + spki + u64(not_after)


def room_statement(
    kind: int, message_id: bytes, time: int, seen: int, c_seen: bytes, body: bytes
) -> bytes:
    return u8(kind) + message_id + u64(time) + u64(seen) + c_seen + body


def room_payload(relay_id: bytes, room: str, ID: bytes, statement: bytes) -> bytes:
    return label("room") + lp(relay_id) + lp(room.encode("ascii")) + H(ID) + statement


def history_hash(
    previous: bytes, username: str, device: int, statement: bytes, signature: bytes
) -> bytes:
    """c_n from c_{n−1}; c_0 = 0^32."""
    author = u32(device) + lp(username.encode("ascii"))
    return H(label("history") + previous + signature + author + statement)


# §7 Key log -----------------------------------------------------------------------------------


def entry_unsigned(
    op: int,
    username: str,
    n: int,
    prev: bytes,
    time: int,
    ID: bytes,
    sigID: bytes,
    signer: int,
) -> bytes:
    return (
        label("entry")
        + u8(op)
        + lp(username.encode("ascii"))
        + u32(n)
        + prev
        + u64(time)
        + lp(ID)
        + sigID
        + u32(signer)
    )


def leaf(username: str, entry: bytes) -> bytes:
    return H(lp(username.encode("ascii"))) + H(entry)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1: MTH."""
    if not leaves:
        return H(b"")
    if len(leaves) == 1:
        return H(b"\x00" + leaves[0])
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return H(b"\x01" + tree_root(leaves[:k]) + tree_root(leaves[k:]))


def safety_hash(ID: bytes) -> bytes:
    x = lp(ID)
    h = sha512(label("safety") + x)
    for _ in range(5199):
        h = sha512(h + x)
    return h


def safety_side(h: bytes) -> str:
    groups = (h[i : i + 5] for i in range(0, 30, 5))
    return "".join(f"{int.from_bytes(group, 'big') % 100_000:05d}" for group in groups)


def safety_digits(one: bytes, other: bytes) -> str:
    """Of two IDs: 60 digits, the lower side first."""
    return "".join(sorted([safety_side(safety_hash(one)), safety_side(safety_hash(other))]))


def safety_qr(one: bytes, other: bytes) -> bytes:
    return b"".join(sorted([safety_hash(one)[:32], safety_hash(other)[:32]]))
