"""The ratchet alone: its rules, one by one."""

import pytest

from saltline.crypto.chains import MAX_HEADER_BYTES, Header, MessageKey, chain_fields
from saltline.crypto.encoding import Malformed, lp, u32
from saltline.crypto.primitives import ML_KEM_768, CryptoError, sha256
from saltline.crypto.ratchet import CannotDecrypt, Consumed, NotYetAllowed, OurTurn, TheirTurn
from tests.crypto.ends import SESSION_ID, End, ends, talking
from tests.crypto.people import flips, torsioned, with_field

# --- a conversation -------------------------------------------------------------------------


def test_turns() -> None:
    alice, bob = ends()
    one, two = alice.sends(), alice.sends()
    bob.gets(one)
    bob.gets(two)
    for _ in range(3):
        for sender, receiver in ((bob, alice), (alice, bob)):
            for message in sender.sends_many(3):
                receiver.gets(message)


def test_headers_count_and_repeat_their_keys() -> None:
    alice, bob = ends()
    first, second = (Header.decode(header) for header, _ in alice.sends_many(2))
    assert (first.previous_length, first.number, second.number) == (0, 0, 1)
    assert first.kem_ciphertext == b"" and len(first.kem_key) == 1184
    assert first.chain_id == second.chain_id
    assert (first.ratchet_key, first.kem_key) == (second.ratchet_key, second.kem_key)
    bob.gets(alice.sends())
    answer = bob.sends()
    header = Header.decode(answer[0])
    assert (header.previous_length, header.number, len(header.kem_ciphertext)) == (0, 0, 1088)
    alice.gets(answer)
    third = Header.decode(alice.sends()[0])
    assert (third.previous_length, third.number) == (3, 0)
    assert third.chain_id != first.chain_id and third.session_id == SESSION_ID


def test_the_layout_of_a_header() -> None:
    alice, bob = talking()
    header, _ = alice.sends()
    decoded = Header.decode(header)
    fields = chain_fields(decoded.ratchet_key, decoded.kem_key, decoded.kem_ciphertext)
    assert header == b"\x01\x00" + SESSION_ID + u32(1) + u32(0) + fields
    assert decoded.chain_id == sha256(b"saltline/1 chain\x00" + fields)
    assert len(header) == MAX_HEADER_BYTES


def test_keys_are_drawn_at_the_first_send_of_a_turn_only() -> None:
    alice, bob = ends()
    drawn: list[int] = []
    draw = alice.random

    def counting(size: int) -> bytes:
        drawn.append(size)
        return draw(size)

    alice.random = counting
    alice.sends()
    assert drawn == [32, 64]
    alice.sends()
    assert drawn == [32, 64]
    bob.gets(alice.sends())
    alice.gets(bob.sends())
    assert drawn == [32, 64]
    alice.sends()
    assert drawn == [32, 64, 32, 64]


def test_a_responder_sends_after_it_has_received() -> None:
    _, bob = ends()
    with pytest.raises(CryptoError, match="after it has received"):
        bob.sends()


def test_messages_of_two_chains_in_any_order() -> None:
    alice, bob = talking()
    old = alice.sends_many(3)
    bob.gets(old[1])
    alice.gets(bob.sends())
    new = alice.sends_many(3)
    for message in (new[2], old[0], new[0], old[2], new[1]):
        bob.gets(message)
    assert len(bob.ratchet.skipped) == 0
    for message in old + new:
        assert bob.misses(message) is Consumed


# --- what is refused ------------------------------------------------------------------------


def test_headers_are_exact() -> None:
    alice, _ = talking()
    header, _ = alice.sends()
    for size in range(len(header)):
        with pytest.raises(Malformed):
            Header.decode(header[:size])
    with pytest.raises(Malformed, match="left over"):
        Header.decode(header + b"\x00")
    for version, flags in ((0, 0), (2, 0), (1, 1), (1, 128)):
        with pytest.raises(Malformed, match="unknown version"):
            Header.decode(bytes((version, flags)) + header[2:])


@pytest.mark.parametrize(
    ("key", "kem_key", "ciphertext"),
    [(31, 1184, 0), (33, 1184, 0)]
    + [(32, 0, 0), (32, 1183, 0), (32, 1568, 0), (32, 1184, 1), (32, 1184, 1087), (32, 1184, 1089)],
)
def test_headers_with_other_sizes(key: int, kem_key: int, ciphertext: int) -> None:
    fields = lp(bytes(key)) + lp(bytes(kem_key)) + lp(bytes(ciphertext))
    with pytest.raises(Malformed):
        Header.decode(b"\x01\x00" + SESSION_ID + bytes(8) + fields)


def test_every_byte_of_a_header_is_held() -> None:
    """By the rules, or by another message key; the session's tests add the commitment."""
    alice, bob = talking()
    message = alice.sends()
    header, key = message
    for at, changed in flips(header):
        if 2 <= at < 18:
            continue  # the session id picks the session
        try:
            other = bob.tries(changed)
        except (CannotDecrypt, Malformed):
            continue
        # PN alone may lie upwards without touching this message's key.
        assert other != key or 18 <= at < 22, at
    bob.gets(message)


def test_a_repeat_is_consumed() -> None:
    alice, bob = talking()
    messages = alice.sends_many(3)
    bob.gets(messages[2])
    assert bob.misses(messages[2]) is Consumed
    bob.gets(messages[0])
    assert bob.misses(messages[0]) is Consumed
    bob.gets(messages[1])


def test_a_chain_that_is_over_is_consumed_even_where_it_was_never_received() -> None:
    """The next chain's PN tells its length: only a restored peer makes what lies beyond."""
    alice, bob = talking()
    bob.gets(alice.sends())
    beyond = End(alice.ratchet, "alice restored").sends()
    alice.gets(bob.sends())
    bob.gets(alice.sends())
    assert bob.misses(beyond) is Consumed


def test_the_peer_cannot_answer_keys_that_we_have_not_sent() -> None:
    alice, bob = talking()
    forger = End(alice.ratchet, "forger")
    bob.gets(alice.sends())
    assert isinstance(bob.ratchet.turn, OurTurn)
    assert bob.misses(forger.sends()) is NotYetAllowed


@pytest.mark.parametrize("claimed", [0, 1, 2])
def test_the_chain_before_is_at_least_as_long_as_what_came(claimed: int) -> None:
    alice, bob = talking()
    for message in alice.sends_many(3):
        bob.gets(message)
    alice.gets(bob.sends())
    header, key = alice.sends()
    assert Header.decode(header).previous_length == 3
    assert bob.misses((with_field(header, "PN", u32(claimed)), key)) is CannotDecrypt
    bob.gets((header, key))


def test_the_first_chain_has_none_before() -> None:
    alice, bob = ends()
    header, key = alice.sends()
    assert bob.misses((with_field(header, "PN", u32(1)), key)) is CannotDecrypt
    bob.gets((header, key))


def test_the_kem_is_in_every_turn_but_the_first() -> None:
    alice, bob = talking()
    header = Header.decode(alice.sends()[0])
    without = b"\x01\x00" + SESSION_ID + u32(1) + u32(0)
    without += chain_fields(header.ratchet_key, header.kem_key, b"")
    assert bob.misses((without, MessageKey(b""))) is CannotDecrypt
    alice, bob = ends()
    header = Header.decode(alice.sends()[0])
    one_too_many = b"\x01\x00" + SESSION_ID + bytes(8)
    one_too_many += chain_fields(header.ratchet_key, header.kem_key, bytes(1088))
    assert bob.misses((one_too_many, MessageKey(b""))) is CannotDecrypt


@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32])
def test_refused_ratchet_keys(key: bytes) -> None:
    alice, bob = talking()
    header, expected = alice.sends()
    with pytest.raises(CannotDecrypt, match="ratchet key is refused"):
        bob.tries(with_field(header, "dh", key))
    high = Header.decode(header).ratchet_key
    high = high[:31] + bytes((high[31] | 0x80,))
    with pytest.raises(CannotDecrypt, match="not canonical"):
        bob.tries(with_field(header, "dh", high))
    bob.gets((header, expected))


def test_a_kem_key_that_we_could_not_answer_is_refused_with_its_message() -> None:
    alice, bob = talking()
    header, _ = alice.sends()
    with pytest.raises(CannotDecrypt, match="ML-KEM-768"):
        bob.tries(with_field(header, "kem_pk", b"\xff" * 1184))


def test_torsioned_and_re_encapsulated_keys_give_another_message_key() -> None:
    alice, bob = talking()
    header, key = alice.sends()
    twisted = with_field(header, "dh", torsioned(Header.decode(header).ratchet_key))
    assert bob.tries(twisted) != key
    assert isinstance(bob.ratchet.turn, TheirTurn)
    bobs_key = ML_KEM_768.public(bob.ratchet.turn.ours.kem_seed)
    _, ciphertext = ML_KEM_768.encapsulate(bobs_key)
    assert bob.tries(with_field(header, "kem_ct", ciphertext)) != key
    assert bob.tries(header) == key
