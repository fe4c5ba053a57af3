"""The ratchet alone: its rules, one by one, and its bounds."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from saltline.crypto.chains import (
    MAX_HEADER_BYTES,
    MAX_STORED_KEYS,
    STORED_KEY_LIFE_MS,
    Header,
    MessageKey,
    chain_fields,
)
from saltline.crypto.encoding import Malformed, lp, u32
from saltline.crypto.primitives import ML_KEM_768, CryptoError, sha256, x25519_generate
from saltline.crypto.ratchet import (
    MAX_PAST_CHAINS,
    MAX_SKIPPED,
    CannotDecrypt,
    Consumed,
    NotYetAllowed,
    OurTurn,
    Ratchet,
    TheirTurn,
    TooFarAhead,
)
from tests.crypto.people import NOW_MS, flips, refusal, seeded, torsioned, with_field

SESSION_ID = bytes(range(16))
SECRET = b"s" * 32


class End:
    """One end of a ratchet. A message is its header and the key that it was encrypted with."""

    def __init__(self, ratchet: Ratchet, name: str) -> None:
        self.ratchet = ratchet
        self.random = seeded(name)

    def sends(self) -> tuple[bytes, MessageKey]:
        self.ratchet, key, header = self.ratchet.send(SESSION_ID, self.random)
        return header, key

    def sends_many(self, count: int) -> list[tuple[bytes, MessageKey]]:
        return [self.sends() for _ in range(count)]

    def tries(self, header: bytes, now_ms: int = NOW_MS) -> MessageKey:
        """Derives the key and commits nothing."""
        return self.ratchet.receive(Header.decode(header), now_ms)[1]

    def gets(self, message: tuple[bytes, MessageKey], now_ms: int = NOW_MS) -> None:
        header, expected = message
        after, key = self.ratchet.receive(Header.decode(header), now_ms)
        assert key == expected
        self.ratchet = after

    def misses(self, message: tuple[bytes, MessageKey], now_ms: int = NOW_MS) -> type | None:
        """How the message is refused; the state is as it was."""
        before = self.ratchet.to_bytes()
        how = refusal(self.tries, message[0], now_ms)
        assert self.ratchet.to_bytes() == before
        return how


def ends() -> tuple[End, End]:
    secret, public = x25519_generate(seeded("signed prekey"))
    alice = End(Ratchet.of_initiator(SECRET, public), "alice")
    return alice, End(Ratchet.of_responder(SECRET, secret), "bob")


def talking() -> tuple[End, End]:
    """After a message each way; Alice begins the next chain."""
    alice, bob = ends()
    bob.gets(alice.sends())
    alice.gets(bob.sends())
    return alice, bob


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


# --- bounds ---------------------------------------------------------------------------------


def test_at_most_a_thousand_are_skipped_in_a_chain() -> None:
    alice, bob = talking()
    messages = alice.sends_many(MAX_SKIPPED + 2)
    assert bob.misses(messages[MAX_SKIPPED + 1]) is TooFarAhead
    bob.gets(messages[MAX_SKIPPED])
    assert len(bob.ratchet.skipped) == MAX_SKIPPED
    bob.gets(messages[MAX_SKIPPED + 1])
    bob.gets(messages[0])


def test_at_most_a_thousand_are_skipped_in_a_running_chain() -> None:
    alice, bob = talking()
    messages = alice.sends_many(MAX_SKIPPED + 3)
    bob.gets(messages[0])
    assert bob.misses(messages[MAX_SKIPPED + 2]) is TooFarAhead
    bob.gets(messages[MAX_SKIPPED + 1])


@pytest.mark.parametrize(("in_old", "in_new"), [(600, 400), (1000, 0), (0, 1000)])
def test_at_most_a_thousand_are_skipped_over_both_chains(in_old: int, in_new: int) -> None:
    alice, bob = talking()
    old = alice.sends_many(in_old + 1)
    bob.gets(old[0])
    alice.gets(bob.sends())
    new = alice.sends_many(in_new + 2)
    assert bob.misses(new[in_new + 1]) is TooFarAhead
    bob.gets(new[in_new])
    assert len(bob.ratchet.skipped) == 1000
    for message in (*old[1:], *new[:in_new]):
        bob.gets(message)
    assert len(bob.ratchet.skipped) == 0


def test_a_header_cannot_ask_for_four_billion_steps() -> None:
    alice, bob = talking()
    header, key = alice.sends()
    for name in ("PN", "N"):
        assert bob.misses((with_field(header, name, b"\xff" * 4), key)) is TooFarAhead


def test_two_thousand_keys_are_kept_and_the_oldest_go() -> None:
    alice, bob = talking()
    messages = alice.sends_many(3 * MAX_SKIPPED)
    for at in range(999, 3000, 1000):
        bob.gets(messages[at])
    assert len(bob.ratchet.skipped) == MAX_STORED_KEYS
    lost = 3 * 999 - MAX_STORED_KEYS
    assert bob.misses(messages[lost - 1]) is Consumed
    bob.gets(messages[lost])
    bob.gets(messages[2998])


def test_keys_are_kept_for_thirty_days() -> None:
    alice, bob = talking()
    messages = alice.sends_many(5)
    bob.gets(messages[1])
    bob.gets(messages[3], NOW_MS + 1)
    end_ms = NOW_MS + STORED_KEY_LIFE_MS
    assert bob.misses(messages[0], end_ms) is Consumed
    bob.gets(messages[2], end_ms)
    assert len(bob.ratchet.skipped) == 0
    bob.gets(messages[4], end_ms)


def test_old_keys_go_without_any_message() -> None:
    alice, bob = talking()
    bob.gets(alice.sends_many(3)[2])
    end_ms = NOW_MS + STORED_KEY_LIFE_MS
    assert bob.ratchet.expire(end_ms - 1) is bob.ratchet
    assert len(bob.ratchet.expire(end_ms).skipped) == 0


def test_a_hundred_chains_are_remembered() -> None:
    alice, bob = talking()
    first = alice.sends_many(2)
    bob.gets(first[0])
    for _ in range(MAX_PAST_CHAINS):
        alice.gets(bob.sends())
        bob.gets(alice.sends())
    bob.gets(first[1])  # skipped, so its key was kept
    assert len(bob.ratchet.past) == MAX_PAST_CHAINS
    assert bob.misses(first[0]) is Consumed
    alice.gets(bob.sends())
    bob.gets(alice.sends())
    assert len(bob.ratchet.past) == MAX_PAST_CHAINS
    assert bob.misses(first[0]) is NotYetAllowed
    bob.sends()
    # Forgotten, it counts as a new chain, and gives another key.
    assert bob.tries(first[0][0]) != first[0][1]


# --- state ----------------------------------------------------------------------------------


STATES: dict[str, Callable[[], Ratchet]] = {
    "initiator": lambda: ends()[0].ratchet,
    "first chain": lambda: sent_once().ratchet,
    "our turn": lambda: talking()[0].ratchet,
    "their turn": lambda: talking()[1].ratchet,
    "skipped": lambda: skipped_three().ratchet,
}


def sent_once() -> End:
    alice, _ = ends()
    alice.sends()
    return alice


def skipped_three() -> End:
    alice, bob = talking()
    bob.gets(alice.sends_many(4)[3])
    return bob


@pytest.mark.parametrize("state", STATES)
def test_a_state_survives_its_bytes_and_nothing_else_passes(state: str) -> None:
    ratchet = STATES[state]()
    stored = ratchet.to_bytes()
    assert Ratchet.from_bytes(stored) == ratchet
    for size in range(0, len(stored)):
        with pytest.raises(Malformed):
            Ratchet.from_bytes(stored[:size])
    for wrong in (stored + b"\x00", b"\x02" + stored[1:]):
        with pytest.raises(Malformed):
            Ratchet.from_bytes(wrong)
    for _, changed in flips(stored):
        if refusal(Ratchet.from_bytes, changed) is None:
            assert Ratchet.from_bytes(changed).to_bytes() == changed


def test_a_conversation_goes_on_from_its_bytes() -> None:
    alice, bob = talking()
    held = alice.sends_many(3)
    bob.gets(held[2])
    for end in (alice, bob):
        end.ratchet = Ratchet.from_bytes(end.ratchet.to_bytes())
    for message in (held[0], held[1], alice.sends()):
        bob.gets(message)
    alice.gets(bob.sends())


def test_a_responder_that_has_not_received_is_not_stored() -> None:
    stored = ends()[1].ratchet.to_bytes()
    with pytest.raises(Malformed):
        Ratchet.from_bytes(stored)


def test_used_keys_leave_the_state() -> None:
    """Message keys, chain keys, root keys and ratchet keys of what is over, on both ends."""
    alice, bob = talking()
    used: list[bytes] = []
    for sender, receiver in ((alice, bob), (bob, alice)) * 2:
        asked, answered = sender.ratchet.turn, receiver.ratchet.turn
        assert isinstance(asked, OurTurn) and isinstance(answered, TheirTurn)
        used += [asked.root, answered.root, answered.ours.secret, answered.ours.kem_seed]
        for _ in range(2):
            message = sender.sends()
            receiver.gets(message)
            turn = sender.ratchet.turn
            assert isinstance(turn, TheirTurn) and turn.sending
            used += [message[1], turn.sending.key]
    # Still needed: the keys of the chains that may go on, and the root of the next one.
    assert alice.ratchet.receiving and bob.ratchet.receiving
    needed = {alice.ratchet.receiving.key, bob.ratchet.receiving.key, alice.ratchet.turn.root}
    for end in (alice, bob):
        stored = end.ratchet.to_bytes()
        assert [secret for secret in used if secret in stored and secret not in needed] == []


def test_a_ratchet_shows_nothing_secret() -> None:
    for make in STATES.values():
        ratchet = make()
        stored, shown = ratchet.to_bytes(), repr(ratchet)
        turn = ratchet.turn
        secrets: list[bytes] = [turn.root]
        if isinstance(turn, TheirTurn) and turn.sending:
            secrets += [turn.ours.secret, turn.ours.kem_seed, turn.sending.key]
        if ratchet.receiving:
            secrets.append(ratchet.receiving.key)
        if len(ratchet.skipped):
            secrets.append(ratchet.skipped.to_bytes()[44:76])
        for secret in filter(None, secrets):
            assert secret in stored
            assert repr(secret)[2:-1] not in shown and secret.hex() not in shown


def test_two_states_with_the_same_keys_are_equal() -> None:
    one, other = skipped_three().ratchet, skipped_three().ratchet
    assert one.skipped != other.skipped  # the KEM draws its own randomness
    copy = Ratchet.from_bytes(one.to_bytes())
    assert copy.skipped == one.skipped and hash(copy.skipped) == hash(one.skipped)
    assert replace(one, skipped=other.skipped) != one
