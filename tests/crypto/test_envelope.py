"""Envelopes: one size for what is short, and an outer box that opens for one device only."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saltline.crypto.chains import MessageKey
from saltline.crypto.encoding import Malformed, lp
from saltline.crypto.envelope import (
    MAX_CONTENT_BYTES,
    MAX_ENVELOPE_BYTES,
    ContentTooLong,
    Opened,
    box_keys,
    open_envelope,
    pad,
    padded_size,
    unpad,
)
from saltline.crypto.handshake import MAX_SETUP_BYTES
from saltline.crypto.primitives import CannotOpen, hkdf, sha256
from tests.crypto.people import (
    Device,
    acquainted,
    flips,
    plaintext_of,
    refusal,
    sealed_for,
    seeded,
    strangers,
)


def test_a_message_is_bound_to_its_key_its_people_and_its_header() -> None:
    key, ad, header = MessageKey(b"k" * 32), b"a" * 32, b"header"
    bound = sha256(lp(ad) + lp(header))
    expected = hkdf(b"saltline/1 message\x00", key, b"saltline/1 box\x00" + bound, 64)
    assert box_keys(key, ad, header) == (expected[:32], expected[32:])
    others = [
        box_keys(MessageKey(b"K" * 32), ad, header),
        box_keys(key, b"A" * 32, header),
        box_keys(key, ad, b"Header"),
    ]
    assert len({*others, box_keys(key, ad, header)}) == 4


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        (1, 3584),
        (3584, 3584),
        (3585, 4096),
        (4097, 4608),
        (8192, 8192),
        (8193, 8704),
        (16384, 16384),
        (16385, 17408),
        (100_000, 100_352),
        (200_000, 200_704),
    ],
)
def test_padded_sizes(size: int, padded: int) -> None:
    assert padded_size(size) == padded


def test_above_8_kib_it_is_padme() -> None:
    """PURBs, algorithm 1, as printed there."""
    for size in range(8193, 300_000, 97):
        exponent = math.floor(math.log2(size))
        last_bits = exponent - (math.floor(math.log2(exponent)) + 1)
        mask = (1 << last_bits) - 1
        assert padded_size(size) == (size + mask) & ~mask
        assert size <= padded_size(size) <= size * 1.12


@given(st.binary(max_size=600), st.integers(0, 4000))
def test_padding_comes_off_again(content: bytes, around: int) -> None:
    padded = pad(content, around)
    assert unpad(padded) == content
    assert around + len(padded) == padded_size(around + len(content) + 1)


@pytest.mark.parametrize("padded", [b"", b"\x00", bytes(512), b"text", b"text\x00", b"\x81\x00"])
def test_padding_that_does_not_end_the_content_is_refused(padded: bytes) -> None:
    with pytest.raises(Malformed, match="padding"):
        unpad(padded)


def test_first_message_receipt_and_short_text_look_alike() -> None:
    alice, bob = strangers()
    sizes = {len(first := alice.says(b"hello, this is Alice" * 10)), len(alice.says(b""))}
    bob.hears(first)
    sizes.add(len(bob.says(b"receipt")))
    sizes.add(len(bob.says(b"t" * 1000)))
    assert sizes == {3584 + 48}


def test_the_longest_content_fits_and_one_byte_more_is_refused() -> None:
    alice, bob = Device("a" * 32), Device("bob")
    alice.initiates(bob.bundle())
    longest = alice.random(MAX_CONTENT_BYTES)
    envelope = alice.says(longest)
    assert len(envelope) <= MAX_ENVELOPE_BYTES
    assert len(bob.opens(envelope).setup) == MAX_SETUP_BYTES
    assert bob.hears(envelope) == longest
    before = alice.now.to_bytes()
    with pytest.raises(ContentTooLong):
        alice.says(longest + b"!")
    assert alice.now.to_bytes() == before


def test_an_envelope_opens_for_its_recipient_only() -> None:
    alice, bob = strangers()
    envelope = alice.says(b"for Bob")
    for other in (alice, Device("carol"), Device("bob", 2)):
        with pytest.raises(CannotOpen):
            other.opens(envelope)
    opened = bob.opens(envelope)
    assert opened.digest == sha256(envelope)
    assert opened.session_id == alice.now.id
    assert opened.setup_info is not None
    assert opened.setup_info.initiator == alice.keys.identity


def test_every_byte_of_an_envelope_is_held_by_the_outer_box() -> None:
    alice, bob = strangers()
    envelope = alice.says(b"for Bob")
    for at, changed in flips(envelope):
        assert refusal(bob.opens, changed) is CannotOpen, at
    for size in range(0, len(envelope), 5):
        with pytest.raises(CannotOpen):
            bob.opens(envelope[:size])
    with pytest.raises(CannotOpen):
        bob.opens(envelope + b"\x00")


def test_an_envelope_above_the_bound_is_not_even_opened() -> None:
    bob = Device("bob")
    with pytest.raises(Malformed, match="too long"):
        bob.opens(bytes(MAX_ENVELOPE_BYTES + 1))


def test_anyone_can_seal_nonsense_and_it_is_refused_cleanly() -> None:
    bob, draw = Device("bob"), seeded("nonsense")
    for size in range(0, 400, 3):
        with pytest.raises(Malformed):
            bob.opens(sealed_for(bob, draw(size)))


@pytest.mark.parametrize("confirmed", [False, True])
def test_every_prefix_of_what_is_inside_is_refused(confirmed: bool) -> None:
    alice, bob = acquainted() if confirmed else strangers()
    inside = plaintext_of(bob.opens(alice.says(b"text")))
    fixed = len(inside) - len(bob.opens(sealed_for(bob, inside)).inner) + 40
    for size in range(0, fixed, 3):
        with pytest.raises(Malformed):
            bob.opens(sealed_for(bob, inside[:size]))


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (b"\x00" + lp(b"") + lp(b"") + bytes(72), "unknown version"),
        (b"\x02" + lp(b"") + lp(b"") + bytes(72), "unknown version"),
        (b"\x01" + lp(bytes(MAX_SETUP_BYTES + 1)) + lp(b"") + bytes(72), "bound"),
        (b"\x01" + lp(b"") + lp(bytes(2343)) + bytes(72), "bound"),
        (b"\x01\xff\xff\xff\xff", "bound"),
        (b"\x01" + lp(b"") + b"\xff\xff\xff\xff", "bound"),
        (b"\x01" + lp(b"") + lp(b"") + bytes(71), "too short"),
    ],
)
def test_layouts_that_are_refused(inside: bytes, reason: str) -> None:
    bob = Device("bob")
    with pytest.raises(Malformed, match=reason):
        bob.opens(sealed_for(bob, inside))


def test_nothing_of_the_sender_is_outside() -> None:
    alice, bob = strangers()
    envelope = alice.says(b"plain words")
    identity = alice.keys.identity
    for secret in (b"plain words", b"alice", identity.signing_key, identity.agreement_key):
        assert secret not in envelope


def test_an_opened_envelope_shows_no_more_than_its_place() -> None:
    alice, bob = strangers()
    opened: Opened = open_envelope(bob.keys, alice.says(b"text"))
    assert repr(opened.inner)[2:40] not in repr(opened)
    assert repr(opened.commitment)[2:-1] not in repr(opened)
