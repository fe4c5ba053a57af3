"""The published test vectors, through saltline.crypto.primitives and the slow transcription.

Vectors typed in from a paper or an RFC are files under vectors/known_answers that name it; the
others are the ones that `cryptography_vectors` ships (NIST's ML-KEM KATs among them).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import nacl.bindings
import pytest

from saltline.crypto import merkle, primitives
from tests.crypto import literal
from tests.crypto import slow_primitives as slow

unhex = bytes.fromhex
KNOWN = Path(__file__).parent / "vectors" / "known_answers"


def typed(name: str) -> dict[str, Any]:
    vector: dict[str, Any] = json.loads((KNOWN / name).read_text())
    assert vector["source"]
    return vector


def shipped(name: str) -> Iterator[dict[str, str]]:
    """NIST's stanzas of "name = value" lines: the next one starts where a name comes again."""
    stanza: dict[str, str] = {}
    with cryptography_vectors.open_vector_file(name, "r") as file:
        for line in file:
            key, found, value = (part.strip() for part in line.partition("="))
            if not found or line.startswith("#"):
                continue
            if key in stanza:
                yield stanza
                stanza = {}
            stanza[key] = value
    yield stanza


# X25519: RFC 7748 ------------------------------------------------------------------------------


def test_x25519_of_rfc_7748_one_by_one() -> None:
    cases = list(shipped("asymmetric/X25519/rfc7748.txt"))
    assert len(cases) == 3
    for case in cases:
        scalar, u = unhex(case["INPUT_SCALAR"]), unhex(case["INPUT_U"])
        assert slow.x25519(scalar, u) == unhex(case["OUTPUT_U"])
        assert nacl.bindings.crypto_scalarmult(scalar, u) == unhex(case["OUTPUT_U"])


@pytest.mark.parametrize("multiply", [slow.x25519, nacl.bindings.crypto_scalarmult])
def test_x25519_of_rfc_7748_iterated(multiply: Any) -> None:
    expected = typed("rfc7748.json")["iterated"]
    k = u = slow.BASE_POINT_U
    for count in range(1, 1001):
        k, u = multiply(k, u), k
        if str(count) in expected:
            assert k.hex() == expected.pop(str(count))
    assert not expected


def test_key_pairs_of_rfc_7748() -> None:
    vector = typed("rfc7748.json")
    for name in ("alice", "bob"):
        secret, public = unhex(vector[f"{name}_secret"]), unhex(vector[f"{name}_public"])
        assert primitives.x25519_generate(lambda size, given=secret: given) == (secret, public)  # type: ignore[misc]
        assert slow.x25519_public(secret) == public
    shared = slow.x25519(unhex(vector["alice_secret"]), unhex(vector["bob_public"]))
    assert shared.hex() == vector["shared"]


# crypto_box: NaCl ------------------------------------------------------------------------------


def test_both_sides_of_nacls_box_agree_on_its_key() -> None:
    vector = typed("nacl_box.json")
    for mine, theirs in (("alice", "bob"), ("bob", "alice")):
        secret, public = unhex(vector[f"{mine}_secret"]), unhex(vector[f"{theirs}_public"])
        assert primitives.agree(public, secret).hex() == vector["beforenm"]
        assert slow.beforenm(public, secret).hex() == vector["beforenm"]
    assert slow.hsalsa20(unhex(vector["shared"]), bytes(16)).hex() == vector["beforenm"]


def test_nacls_box_is_made_and_opened() -> None:
    vector = typed("nacl_box.json")
    key, nonce = unhex(vector["beforenm"]), unhex(vector["nonce"])
    plaintext, expected = unhex(vector["plaintext"]), nonce + unhex(vector["box"])
    assert primitives.box(key, nonce, plaintext) == expected
    assert slow.secretbox(key, nonce, plaintext) == expected
    assert primitives.open_box(key, expected) == plaintext
    for at in range(len(expected)):
        forged = expected[:at] + bytes([expected[at] ^ 0x80]) + expected[at + 1 :]
        with pytest.raises(primitives.CannotOpen):
            primitives.open_box(key, forged)


def test_sealed_boxes_open_at_the_other_implementation() -> None:
    vector = typed("nacl_box.json")
    secret, public = unhex(vector["bob_secret"]), unhex(vector["bob_public"])
    for size in (0, 1, 63, 64, 65, 3584):
        plaintext = bytes(i % 251 for i in range(size))
        ours = slow.sealed_box(public, unhex(vector["alice_secret"]), plaintext)
        assert primitives.open_sealed(public, secret, ours) == plaintext
        theirs = primitives.seal(public, plaintext)
        assert slow.open_sealed_box(secret, theirs) == plaintext
        assert len(theirs) == len(ours) == size + 48


# Ed25519: RFC 8032 -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", typed("ed25519.json")["cases"], ids=lambda case: case["message"])
def test_ed25519_of_rfc_8032(case: dict[str, str]) -> None:
    seed, public, message = unhex(case["seed"]), unhex(case["public"]), unhex(case["message"])
    assert primitives.ed25519_from_seed(seed) == slow.ed25519_public(seed) == public
    signature = primitives.ed25519_sign(seed, message)
    assert signature == slow.ed25519_sign(seed, message) == unhex(case["signature"])
    primitives.ed25519_verify(public, message, signature)


@pytest.mark.parametrize("case", typed("ed25519.json")["refused"], ids=lambda case: case["name"])
def test_ed25519_refusals(case: dict[str, str]) -> None:
    assert case["expected"] == "BadSignature"
    with pytest.raises(primitives.BadSignature):
        primitives.ed25519_verify(
            unhex(case["public"]), unhex(case["message"]), unhex(case["signature"])
        )


def test_ed25519_of_its_authors() -> None:
    """sign.input of the Ed25519 software: seed ‖ key : key : message : signature ‖ message."""
    with cryptography_vectors.open_vector_file("asymmetric/Ed25519/sign.input", "r") as file:
        lines = file.read().splitlines()
    assert len(lines) == 1024
    for line in lines:
        secret, public, message, signed = (unhex(part) for part in line.split(":")[:4])
        assert primitives.ed25519_sign(secret[:32], message) == signed[:64]
        primitives.ed25519_verify(public, message, signed[:64])


# HKDF: RFC 5869 --------------------------------------------------------------------------------


def test_hkdf_of_rfc_5869() -> None:
    cases = list(shipped("KDF/rfc-5869-HKDF-SHA256.txt"))
    assert len(cases) == 3
    for case in cases:
        inputs = unhex(case["salt"]), unhex(case["IKM"]), unhex(case["info"]), int(case["L"])
        assert primitives.hkdf(*inputs) == slow.hkdf(*inputs) == unhex(case["OKM"])


# Merkle trees: RFC 6962 ------------------------------------------------------------------------


def test_the_tree_of_rfc_6962(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference leaves have other sizes than our 64 bytes, so the check on it steps aside."""
    vector = typed("rfc6962.json")
    leaves = [unhex(leaf) for leaf in vector["leaves"]]
    hasher = merkle.TreeHasher()
    assert hasher.root().hex() == vector["empty"]
    for size, root in enumerate(vector["roots"], 1):
        monkeypatch.setattr(merkle, "LEAF_BYTES", len(leaves[size - 1]))
        hasher.append(leaves[size - 1])
        assert hasher.root().hex() == literal.tree_root(leaves[:size]).hex() == root


# ML-KEM: NIST's KATs ---------------------------------------------------------------------------


@pytest.mark.parametrize("kem", [primitives.ML_KEM_768, primitives.ML_KEM_1024])
def test_ml_kem_of_nist(kem: primitives.Kem) -> None:
    """Keys from their seeds, decapsulation, and the implicit rejection of a foreign ciphertext."""
    size = kem.name.removeprefix("ML-KEM-")
    count = 0
    for case in shipped(f"asymmetric/MLKEM/kat_MLKEM_{size}.rsp"):
        seed = unhex(case["d"] + case["z"])
        assert kem.generate(lambda size, given=seed: given) == (seed, unhex(case["pk"]))  # type: ignore[misc]
        assert kem.decapsulate(seed, unhex(case["ct"])) == unhex(case["ss"])
        assert kem.decapsulate(seed, unhex(case["ct_n"])) == unhex(case["ss_n"])
        count += 1
    assert count == 1000


@pytest.mark.parametrize("kem", [primitives.ML_KEM_768, primitives.ML_KEM_1024])
def test_ml_kem_refuses_what_is_not_a_key(kem: primitives.Kem) -> None:
    seed = bytes(64)
    public = kem.generate(lambda size: seed)[1]
    secret, ciphertext = kem.encapsulate(public)
    assert kem.decapsulate(seed, ciphertext) == secret
    above_the_modulus = b"\xff\xff\xff" + public[3:]
    for refused in (public[:-1], public + b"\x00", above_the_modulus, b""):
        with pytest.raises(primitives.RefusedKey):
            kem.encapsulate(refused)
    for wrong in (ciphertext[:-1], ciphertext + b"\x00", b""):
        with pytest.raises(primitives.CannotOpen):
            kem.decapsulate(seed, wrong)
