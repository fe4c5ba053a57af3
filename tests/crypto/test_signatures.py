"""Identities and the payloads that are signed."""

from dataclasses import replace
from typing import Any

import pytest

from saltline.crypto import signatures
from saltline.crypto.encoding import Malformed, lp, u32, u64
from saltline.crypto.primitives import BadSignature, RefusedKey, sha256
from saltline.crypto.signatures import (
    EMPTY_HISTORY,
    Identity,
    RoomStatement,
    certificate_payload,
    identity_payload,
    lengthen,
    login_payload,
    next_history_hash,
    register_payload,
    room_payload,
    seen_of,
    shorten,
)
from tests.crypto.people import REFUSALS, Device, flips

ALICE = Device("alice")


def test_an_identity_is_laid_out_as_written() -> None:
    identity = ALICE.keys.identity
    assert identity.encode() == (
        lp(identity.relay_id)
        + lp(b"alice")
        + u32(1)
        + identity.signing_key
        + identity.agreement_key
    )
    assert Identity.decode(identity.encode()) == identity
    assert identity.hash == sha256(identity.encode())
    longest = replace(identity, username="a" * 32, device=2**32 - 1)
    assert len(longest.encode()) == signatures.MAX_IDENTITY_BYTES == 140
    assert Identity.decode(longest.encode()) == longest


def test_an_identity_whose_halves_are_one_key_is_refused() -> None:
    identity = ALICE.keys.identity
    with pytest.raises(RefusedKey, match="made apart"):
        replace(identity, signing_key=identity.agreement_key)


def test_a_fingerprint_is_sixteen_digits_in_fours() -> None:
    fingerprint = ALICE.keys.identity.fingerprint
    assert fingerprint.replace(" ", "") == ALICE.keys.identity.hash.hex()[:16]
    assert [len(group) for group in fingerprint.split(" ")] == [4, 4, 4, 4]


def test_every_prefix_and_extension_of_an_identity_is_refused() -> None:
    encoded = ALICE.keys.identity.encode()
    for size in range(len(encoded)):
        with pytest.raises(Malformed):
            Identity.decode(encoded[:size])
    with pytest.raises(Malformed, match="left over"):
        Identity.decode(encoded + b"\x00")


def test_a_changed_identity_is_refused_or_another_identity() -> None:
    identity, signature = ALICE.keys.identity, ALICE.keys.identity_signature
    signatures.verify(identity.signing_key, identity_payload(identity), signature)
    for _, changed in flips(identity.encode()):
        try:
            other = Identity.decode(changed)
        except REFUSALS:
            continue
        assert other != identity and other.encode() == changed
        with pytest.raises(BadSignature):
            signatures.verify(other.signing_key, identity_payload(other), signature)


@pytest.mark.parametrize(
    "name", ["", "a" * 33, "al ice", "al\x1bice", "älice", "al\x7f", "al\nice"]
)
def test_names_that_a_screen_must_not_show_are_refused(name: str) -> None:
    with pytest.raises(Malformed):
        replace(ALICE.keys.identity, username=name)
    encoded = ALICE.keys.identity.encode()
    by_hand = encoded[:36] + lp(name.encode("latin-1")) + encoded[45:]
    with pytest.raises(Malformed):
        Identity.decode(by_hand)


@pytest.mark.parametrize("device", [0, -1, 2**32])
def test_device_numbers_go_from_one(device: int) -> None:
    with pytest.raises(Malformed):
        replace(ALICE.keys.identity, device=device)


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, b"\x01" + bytes(31)])
def test_an_identity_with_a_refused_agreement_key(key: bytes) -> None:
    encoded = ALICE.keys.identity.encode()
    with pytest.raises(RefusedKey):
        Identity.decode(encoded[:-32] + key)


def test_login_and_register_are_laid_out_as_written() -> None:
    relay_id, spki, entry = bytes(32), b"s" * 32, b"e" * 32
    conversation = sha256(lp(b"hello") + lp(b"challenge"))
    fields = lp(relay_id) + lp(b"alice") + u32(3) + conversation + spki
    login = login_payload(relay_id, "alice", 3, b"hello", b"challenge", spki)
    register = register_payload(relay_id, "alice", 3, b"hello", b"challenge", spki, entry)
    assert login == b"saltline/1 login\x00" + fields
    assert register == b"saltline/1 register\x00" + fields + entry


def test_hello_and_challenge_do_not_run_into_each_other() -> None:
    one = login_payload(bytes(32), "alice", 1, b"ab", b"c", bytes(32))
    other = login_payload(bytes(32), "alice", 1, b"a", b"bc", bytes(32))
    assert one != other


def test_a_certificate_is_laid_out_as_written() -> None:
    assert certificate_payload(b"s" * 32, 5) == b"saltline/1 tls\x00" + b"s" * 32 + u64(5)


STATEMENT = RoomStatement(
    kind=1,
    message_id=b"m" * 16,
    time_ms=7,
    seen=3,
    seen_hash=b"c" * 32,
    body="grüße".encode(),
)


def test_a_room_statement_is_laid_out_as_written() -> None:
    statement = STATEMENT.encode()
    assert statement == b"\x01" + b"m" * 16 + u64(7) + u64(3) + b"c" * 32 + "grüße".encode()
    assert RoomStatement.decode(statement, 100) == STATEMENT
    author = ALICE.keys.identity.hash
    assert room_payload(b"r" * 32, "#salt", author, statement) == (
        b"saltline/1 room\x00" + lp(b"r" * 32) + lp(b"#salt") + author + statement
    )


def test_a_shortened_statement_lacks_the_hash_alone() -> None:
    statement = STATEMENT.encode()
    short = shorten(statement)
    assert short == b"\x01" + b"m" * 16 + u64(7) + u64(3) + "grüße".encode()
    assert seen_of(short) == 3
    assert lengthen(short, b"c" * 32) == statement
    with pytest.raises(Malformed):
        seen_of(short[:32])
    with pytest.raises(Malformed):
        seen_of(short[:25] + u64(2**63) + short[33:])


@pytest.mark.parametrize(
    "wrong", [{"kind": 256}, {"message_id": b"m" * 15}, {"seen": -1}, {"seen_hash": b"c" * 33}]
)
def test_a_room_statement_with_a_field_of_a_wrong_size_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        STATEMENT._replace(**wrong).encode()


def test_a_changed_room_statement_is_refused_or_another_statement() -> None:
    encoded = STATEMENT.encode()
    signature = ALICE.keys.sign(encoded)
    for _, changed in flips(encoded):
        with pytest.raises(BadSignature):
            signatures.verify(ALICE.keys.identity.signing_key, changed, signature)
        try:
            other = RoomStatement.decode(changed, 100)
        except REFUSALS:
            continue
        assert other != STATEMENT and other.encode() == changed
    for size in range(65):
        with pytest.raises(Malformed):
            RoomStatement.decode(encoded[:size], 100)
    with pytest.raises(Malformed, match="size"):
        RoomStatement.decode(encoded, 3)


def test_a_statement_is_no_login_and_no_identity() -> None:
    room = room_payload(bytes(32), "#salt", bytes(32), STATEMENT.encode())
    labels = {payload.split(b"\x00")[0] for payload in (room, *other_payloads())}
    assert len(labels) == 5


def other_payloads() -> list[bytes]:
    return [
        login_payload(bytes(32), "alice", 1, b"", b"", bytes(32)),
        register_payload(bytes(32), "alice", 1, b"", b"", bytes(32), bytes(32)),
        identity_payload(ALICE.keys.identity),
        certificate_payload(bytes(32), 0),
    ]


def test_history_binds_every_entry_and_its_order() -> None:
    entry = ("alice", 1, b"statement", b"s" * 64)
    changed = [("alicf", *entry[1:]), ("alice", 2, *entry[2:]), (*entry[:2], b"x", entry[3])]
    changed += [("alices", 1, b"tatement", entry[3]), (*entry[:3], b"t" * 64)]
    hashes = {next_history_hash(EMPTY_HISTORY, *each) for each in [entry, *changed]}
    hashes.add(next_history_hash(next_history_hash(EMPTY_HISTORY, *entry), *entry))
    assert len(hashes) == 7
    place = bytes(32) + b"s" * 64 + b"\x00\x00\x00\x01" + lp(b"alice")
    first = sha256(b"saltline/1 history\x00" + place + b"statement")
    assert next_history_hash(EMPTY_HISTORY, *entry) == first
