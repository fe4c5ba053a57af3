"""What the libraries must do for us, and what they must refuse."""

import threading

import nacl.public
import nacl.secret
import pytest

from saltline.crypto import primitives
from saltline.crypto.primitives import (
    ML_KEM_768,
    ML_KEM_1024,
    BadSignature,
    CannotOpen,
    CryptoError,
    Kem,
    RefusedKey,
    agree,
    check_agreement_key,
    ed25519_from_seed,
    ed25519_sign,
    ed25519_verify,
    x25519_generate,
)
from tests.crypto.people import flips, seeded, torsioned

PRIME = 2**255 - 19
ORDER_8 = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
LOW_ORDER = [0, 1, *ORDER_8, PRIME - 1]
NOT_CANONICAL = [PRIME, PRIME + 1, PRIME + 9, 2**255 - 1]


def test_a_label_is_the_name_and_one_zero_byte() -> None:
    assert primitives.label("ad") == b"saltline/1 ad\x00"


@pytest.mark.parametrize("u", LOW_ORDER)
def test_low_order_agreement_keys_are_refused(u: int) -> None:
    secret, _ = x25519_generate(seeded("mine"))
    key = u.to_bytes(32, "little")
    with pytest.raises(RefusedKey, match="low order"):
        check_agreement_key(key)
    with pytest.raises(RefusedKey):
        agree(key, secret)
    with pytest.raises(RefusedKey):
        primitives.seal(key, b"text")


@pytest.mark.parametrize("u", LOW_ORDER)
def test_libsodium_refuses_low_order_keys_by_itself(
    u: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(primitives, "check_agreement_key", lambda key: None)
    secret, _ = x25519_generate(seeded("mine"))
    with pytest.raises(RefusedKey, match="low order"):
        agree(u.to_bytes(32, "little"), secret)


@pytest.mark.parametrize("u", NOT_CANONICAL)
def test_agreement_keys_of_another_encoding_are_refused(u: int) -> None:
    with pytest.raises(RefusedKey, match="not canonical"):
        check_agreement_key(u.to_bytes(32, "little"))


def test_agreement_keys_with_the_high_bit_are_refused() -> None:
    _, public = x25519_generate(seeded("theirs"))
    high = public[:31] + bytes((public[31] | 0x80,))
    with pytest.raises(RefusedKey, match="not canonical"):
        agree(high, x25519_generate(seeded("mine"))[0])


@pytest.mark.parametrize("size", [0, 31, 33])
def test_agreement_keys_of_another_size_are_refused(size: int) -> None:
    with pytest.raises(RefusedKey, match="32 bytes"):
        check_agreement_key(bytes(size))


def test_a_torsioned_key_agrees_on_the_same_secret() -> None:
    """So the key's own bytes must be bound wherever one is used: see the handshake's tests."""
    secret, _ = x25519_generate(seeded("mine"))
    _, public = x25519_generate(seeded("theirs"))
    assert torsioned(public) != public
    assert agree(torsioned(public), secret) == agree(public, secret)


def test_agreement_is_nacl_box() -> None:
    secret, public = x25519_generate(seeded("mine"))
    other_secret, other_public = x25519_generate(seeded("theirs"))
    ours = nacl.public.Box(nacl.public.PrivateKey(secret), nacl.public.PublicKey(other_public))
    assert agree(other_public, secret) == ours.shared_key() == agree(public, other_secret)
    nonce = bytes(24)
    boxed = primitives.box(agree(public, other_secret), nonce, b"text")
    assert ours.decrypt(boxed) == b"text"


def test_the_message_box_is_nacl_secret_box() -> None:
    key, nonce = bytes(range(32)), bytes(range(24))
    boxed = primitives.box(key, nonce, b"text")
    assert boxed == bytes(nacl.secret.SecretBox(key).encrypt(b"text", nonce))
    assert primitives.open_box(key, boxed) == b"text"
    for _, changed in flips(boxed):
        with pytest.raises(CannotOpen):
            primitives.open_box(key, changed)
    for size in range(len(boxed)):
        with pytest.raises(CannotOpen):
            primitives.open_box(key, boxed[:size])


def test_the_outer_box_is_nacl_sealed_box() -> None:
    secret, public = x25519_generate(seeded("mine"))
    theirs = nacl.public.SealedBox(nacl.public.PrivateKey(secret))
    assert theirs.decrypt(primitives.seal(public, b"text")) == b"text"
    sealed = theirs.encrypt(b"text")
    assert len(sealed) == 4 + primitives.SEAL_OVERHEAD_BYTES
    assert primitives.open_sealed(public, secret, sealed) == b"text"
    for _, changed in flips(sealed):
        with pytest.raises(CannotOpen):
            primitives.open_sealed(public, secret, changed)
    for size in range(len(sealed)):
        with pytest.raises(CannotOpen):
            primitives.open_sealed(public, secret, sealed[:size])


def test_signatures_hold_for_one_key_one_message_and_one_form() -> None:
    seed = seeded("signer")(32)
    public = ed25519_from_seed(seed)
    signature = ed25519_sign(seed, b"message")
    ed25519_verify(public, b"message", signature)
    for _, changed in flips(signature):
        with pytest.raises(BadSignature):
            ed25519_verify(public, b"message", changed)
    for _, changed in flips(public):
        with pytest.raises(BadSignature):
            ed25519_verify(changed, b"message", signature)
    for key, message, sig in (
        (public, b"other", signature),
        (public, b"message", signature[:63]),
        (public, b"message", signature + b"\x00"),
        (public[:31], b"message", signature),
        (public, b"", b""),
    ):
        with pytest.raises(BadSignature):
            ed25519_verify(key, message, sig)


def test_a_second_form_of_a_signature_is_refused() -> None:
    """S + L verifies for whoever does not check that S is below the group's order."""
    seed = seeded("signer")(32)
    signature = ed25519_sign(seed, b"message")
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(BadSignature):
        ed25519_verify(
            ed25519_from_seed(seed), b"message", signature[:32] + s.to_bytes(32, "little")
        )


@pytest.mark.parametrize(
    "point",
    [
        "01" + "00" * 31,
        "00" * 32,
        "00" * 31 + "80",
        "ec" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    ],
)
def test_small_order_signing_keys_are_refused(point: str) -> None:
    """R = A = a small point, S = 0 satisfies the equation for every eighth message or for all."""
    for number in range(16):
        with pytest.raises(BadSignature):
            ed25519_verify(bytes.fromhex(point), bytes((number,)), bytes.fromhex(point) + bytes(32))


@pytest.mark.parametrize("kem", [ML_KEM_768, ML_KEM_1024], ids=lambda kem: kem.name)
def test_encapsulation(kem: Kem) -> None:
    seed, public = kem.generate(seeded("kem"))
    assert (len(seed), len(public)) == (64, kem.public_bytes)
    assert kem.public(seed) == public
    secret, ciphertext = kem.encapsulate(public)
    assert (len(secret), len(ciphertext)) == (32, kem.ciphertext_bytes)
    assert kem.decapsulate(seed, ciphertext) == secret
    # Implicit rejection: a changed ciphertext is no error, which is why the transcript binds it.
    _, changed = next(flips(ciphertext))
    assert kem.decapsulate(seed, changed) != secret
    for wrong in (b"", ciphertext[:-1], ciphertext + b"\x00"):
        with pytest.raises(CannotOpen):
            kem.decapsulate(seed, wrong)
    above_modulus = b"\xff" * kem.public_bytes
    for wrong in (b"", public[:-1], public + b"\x00", above_modulus):
        with pytest.raises(RefusedKey):
            kem.check(wrong)
        with pytest.raises(RefusedKey):
            kem.encapsulate(wrong)


def test_substitutes_stay_in_their_block_and_their_thread() -> None:
    def encapsulate(kem: Kem, public: bytes) -> tuple[bytes, bytes]:
        return b"secret", b"ciphertext"

    _, kem_key = ML_KEM_768.generate(seeded("kem"))
    _, public = x25519_generate(seeded("mine"))
    elsewhere: list[bytes] = []
    with primitives.substituted(encapsulate=encapsulate, seal=lambda key, text: b"sealed"):
        assert ML_KEM_768.encapsulate(kem_key) == (b"secret", b"ciphertext")
        assert primitives.seal(public, b"text") == b"sealed"
        other = threading.Thread(target=lambda: elsewhere.append(primitives.seal(public, b"")))
        other.start()
        other.join()
    assert elsewhere != [b"sealed"] and len(elsewhere[0]) == 48
    assert ML_KEM_768.encapsulate(kem_key)[0] != b"secret"
    assert primitives.seal(public, b"text") != b"sealed"


def test_every_refusal_is_a_crypto_error() -> None:
    assert all(issubclass(each, CryptoError) for each in (RefusedKey, BadSignature, CannotOpen))


def test_comparison_and_randomness() -> None:
    assert primitives.equal(b"ab", b"ab")
    assert not primitives.equal(b"ab", b"ac")
    assert not primitives.equal(b"ab", b"abc")
    assert len(primitives.system_random(24)) == 24
    assert primitives.system_random(24) != primitives.system_random(24)
