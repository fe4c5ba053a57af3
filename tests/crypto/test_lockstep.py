"""The ratchet in lockstep with another implementation: Syndace's DoubleRatchet.

Where the constructions coincide, both run the same random schedule of sends, losses, reorderings
and repeats, and must agree on every header's turn, PN and N, on every message key (shown by its
commitment in our envelope, which the literal formula computes from their key), and on what is
refused as consumed:

- the symmetric chain: mk = HMAC(CK, 01), CK' = HMAC(CK, 02) is their "separate HMACs" KDF;
- the order of root steps, one per new ratchet key, receiving and sending in turn;
- PN, N and the keys kept for skipped messages, the oldest of which go first.

Where they differ, the difference is given to theirs from outside:

- our root step takes a KEM secret and a chain id: their root KDF is ours, fed from a table;
- they make new keys on receipt, we at the next send: the order of keys is the same, so key number
  n is drawn beforehand (0 is the signed prekey, odd ones are Alice's, even ones Bob's);
- ours derives the box key from mk and the header, theirs hands mk to an AEAD: theirs only records;
- ours refuses a new chain out of turn, PN below what came, and 1,000 skipped keys over both
  chains; theirs would warn and go on. An honest schedule meets none of these;
- a repeat from a chain that is over: ours knows the chain, theirs takes it for a new one and fails
  later. Such repeats go to ours alone.
"""

import asyncio
import hashlib
import random
from dataclasses import dataclass
from typing import Any

import doubleratchet
import pytest
from doubleratchet.recommended import HashFunction, diffie_hellman_ratchet_curve25519
from doubleratchet.recommended import kdf_separate_hmacs as separate_hmacs

from saltline.crypto import primitives
from saltline.crypto.bundles import Bundle, PrekeyKind
from saltline.crypto.chains import ReceivingChain, ReceivingChainKey
from saltline.crypto.envelope import open_envelope
from saltline.crypto.keys import IdentityKeys, generate_prekey
from saltline.crypto.session import Consumed, Session
from tests.crypto import literal
from tests.crypto import slow_primitives as slow

NOW_MS = 1_760_000_000_000


class Keys:
    """Every ratchet key that a conversation will use, drawn beforehand, and the KEM's part."""

    def __init__(self, seed: int, signed_prekey_secret: bytes) -> None:
        self.seed = seed
        self.secrets = [signed_prekey_secret]
        self.publics = [slow.x25519_public(signed_prekey_secret)]
        self.kem_seeds, self.kem_keys = [b""], [b""]
        self.encapsulations = [(b"", b"")]
        self.agreed: dict[bytes, int] = {}  # X25519 of key n with key n - 1, to n

    def secret(self, n: int) -> bytes:
        while len(self.secrets) <= n:
            name = f"{self.seed} {len(self.secrets)}".encode()
            drawn = hashlib.shake_256(name).digest(96)
            self.agreed[slow.x25519(drawn[:32], self.publics[-1])] = len(self.secrets)
            self.secrets.append(drawn[:32])
            self.publics.append(slow.x25519_public(drawn[:32]))
            before = self.kem_keys[-1]
            self.encapsulations.append(
                literal.kem_encapsulate(768, before) if before else (b"", b"")
            )
            self.kem_seeds.append(drawn[32:])
            self.kem_keys.append(literal.kem_public(768, drawn[32:]))
        return self.secrets[n]

    def chain_id(self, n: int) -> bytes:
        """Of the chain that key number n begins."""
        return literal.chain_id(self.publics[n], self.kem_keys[n], self.encapsulations[n][1])

    def encapsulate(self, kem: primitives.Kem, public: bytes) -> tuple[bytes, bytes]:
        return self.encapsulations[self.kem_keys.index(public) + 1]

    def root_step(self, RK: bytes, dh_output: bytes) -> bytes:
        """Our root step as their KDF: which chain it begins follows from the DH output."""
        n = self.agreed[dh_output]
        shared, ss = slow.hsalsa20(dh_output, bytes(16)), self.encapsulations[n][0]
        return b"".join(literal.root_step(RK, shared, ss, self.chain_id(n)))


class ChainKdf(separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


CHAIN_CONSTANT = b"\x02\x01"  # their output is the next chain key first, then the message key


class RecordingAead(doubleratchet.AEAD):
    """No encryption: the message key itself travels, and has to be the one that is derived."""

    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        return key

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        if ciphertext != key:
            raise doubleratchet.AuthenticationFailedException
        return key


class TheirRatchet(doubleratchet.DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: doubleratchet.Header) -> bytes:
        return associated_data


def their_parts(keys: Keys, first: int) -> dict[str, Any]:
    """Their configuration for the side that owns every second key from number `first`."""
    numbers = iter(range(first, 10_000, 2))

    class DiffieHellman(diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet):
        @staticmethod
        def _generate_priv() -> bytes:
            return keys.secret(next(numbers))

    class RootKdf(doubleratchet.KDF):
        @staticmethod
        async def derive(key: bytes, data: bytes, length: int) -> bytes:
            return keys.root_step(key, data)

    return {
        "diffie_hellman_ratchet_class": DiffieHellman,
        "root_chain_kdf": RootKdf,
        "message_chain_kdf": ChainKdf,
        "message_chain_constant": CHAIN_CONSTANT,
        "dos_protection_threshold": 1000,
        "max_num_skipped_message_keys": 2000,
        "aead": RecordingAead,
    }


@dataclass(frozen=True)
class Message:
    content: bytes
    ours: bytes
    theirs: doubleratchet.EncryptedMessage


@dataclass
class Side:
    """One person, twice: a session of ours and a ratchet of theirs."""

    keys: IdentityKeys
    first_key: int  # of every second one in Keys
    ours: Session | None = None
    theirs: doubleratchet.DoubleRatchet | None = None
    chains: int = 0


class Lockstep:
    """Both implementations through one schedule."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        draw = self.random.randbytes
        self.alice = Side(IdentityKeys.generate(bytes(32), "alice", 1, draw), 1)
        self.bob = Side(IdentityKeys.generate(bytes(32), "bob", 1, draw), 2)
        self.spk = generate_prekey(self.bob.keys, PrekeyKind.SIGNED, 1, NOW_MS, draw)
        self.kem = generate_prekey(self.bob.keys, PrekeyKind.LAST_RESORT_KEM, 2, NOW_MS, draw)
        bundle = Bundle(
            self.bob.keys.identity,
            self.bob.keys.identity_signature,
            self.spk.public,
            self.kem.public,
        )
        self.keys = Keys(seed, self.spk.secret)
        self.parts = {1: their_parts(self.keys, 1), 2: their_parts(self.keys, 2)}
        self.alice.ours = Session.initiate(self.alice.keys, bundle, NOW_MS, NOW_MS, draw)
        self.AD = literal.associated_data(
            self.alice.keys.identity.encode(), self.bob.keys.identity.encode()
        )
        self.SK = self.alice.ours.ratchet.turn.root
        self.sent = 0

    def draw(self, side: Side, size: int) -> bytes:
        n = side.first_key + 2 * side.chains
        if size == 32:
            return self.keys.secret(n)
        if size == 64:
            side.chains += 1
            return self.keys.kem_seeds[n]
        return self.random.randbytes(size)

    async def send(self, side: Side) -> Message:
        """One message by both; same turn, same PN and N, same message key."""
        assert side.ours
        self.sent += 1
        content = b"message %d" % self.sent
        with primitives.substituted(encapsulate=self.keys.encapsulate):
            side.ours, envelope = side.ours.encrypt(content, lambda n: self.draw(side, n))
        if side.theirs is None:
            side.theirs, theirs = await TheirRatchet.encrypt_initial_message(
                shared_secret=self.SK,
                recipient_ratchet_pub=self.keys.publics[0],
                message=b"",
                associated_data=b"",
                **self.parts[side.first_key],
            )
        else:
            theirs = await side.theirs.encrypt_message(b"", b"")
        opened = open_envelope(self.other(side).keys, envelope)
        header, mk = opened.header, theirs.ciphertext
        assert theirs.header == (header.ratchet_key, header.previous_length, header.number)
        k, com = literal.box_key(mk, self.AD, opened.header_bytes)
        assert opened.commitment == com
        assert slow.open_secretbox(k, opened.inner).startswith(content + b"\x80")
        return Message(content, envelope, theirs)

    async def deliver(self, side: Side, message: Message) -> None:
        opened = open_envelope(side.keys, message.ours)
        if side.ours is None:
            side.ours, content = Session.accept(side.keys, opened, self.spk, self.kem, None, NOW_MS)
            side.theirs, mk = await TheirRatchet.decrypt_initial_message(
                shared_secret=self.SK,
                own_ratchet_priv=self.spk.secret,
                message=message.theirs,
                associated_data=b"",
                **self.parts[side.first_key],
            )
        else:
            assert side.theirs
            side.ours, content = side.ours.decrypt(opened, NOW_MS)
            mk = await side.theirs.decrypt_message(message.theirs, b"")
        assert content == message.content
        assert mk == message.theirs.ciphertext
        self.compare_stored_keys(side)

    async def repeat(self, side: Side, message: Message) -> None:
        """A message that both have opened before; theirs knows it in its current chain alone."""
        assert side.ours and side.theirs
        with pytest.raises(Consumed):
            side.ours.decrypt(open_envelope(side.keys, message.ours), NOW_MS)
        n = self.keys.publics.index(message.theirs.header.ratchet_pub)
        if self.keys.chain_id(n) == receiving_chain(side).id:
            with pytest.raises(doubleratchet.DuplicateMessageException):
                await side.theirs.decrypt_message(message.theirs, b"")

    def compare_stored_keys(self, side: Side) -> None:
        """The same (chain, N) are kept for later, in the same order, with the same keys."""
        assert side.ours and side.theirs
        theirs = [
            (self.keys.chain_id(self.keys.publics.index(stored.ratchet_pub)), stored.index)
            + (stored.message_key,)
            for stored in side.theirs.model.skipped_message_keys
        ]
        stored = side.ours.ratchet.skipped.to_bytes()  # 76 bytes a key, oldest first
        ours = [
            (record[:32], int.from_bytes(record[32:36], "big"), record[44:])
            for record in (stored[at : at + 76] for at in range(0, len(stored), 76))
        ]
        assert ours == theirs
        assert side.theirs.receiving_chain_length == receiving_chain(side).next

    def other(self, side: Side) -> Side:
        return self.bob if side is self.alice else self.alice


def receiving_chain(side: Side) -> ReceivingChain:
    assert side.ours and side.ours.ratchet.receiving
    return side.ours.ratchet.receiving


async def converse(seed: int, steps: int) -> tuple[int, int, int, int]:
    """A random schedule; how many messages, chains, late arrivals and repeats it had."""
    both = Lockstep(seed)
    choose = both.random
    on_the_way: list[tuple[Side, Message]] = []
    opened: dict[int, list[Message]] = {1: [], 2: []}
    late = repeats = 0
    for _ in range(steps):
        what = choose.choices(("send", "deliver", "lose", "repeat"), (9, 8, 1, 1))[0]
        side = choose.choice((both.alice, both.bob))
        if what == "send" and side.ours:
            for _ in range(choose.choice((1, 1, 2, 5))):
                on_the_way.append((both.other(side), await both.send(side)))
        elif what == "deliver" and on_the_way:
            # The latest, the oldest, or any.
            at = choose.choice((-1, 0, choose.randrange(len(on_the_way))))
            receiver, message = on_the_way.pop(at)
            stored = len(receiver.ours.ratchet.skipped) if receiver.ours else 0
            await both.deliver(receiver, message)
            assert receiver.ours
            late += len(receiver.ours.ratchet.skipped) < stored
            opened[receiver.first_key].append(message)
        elif what == "lose" and on_the_way:
            on_the_way.pop(choose.randrange(len(on_the_way)))
        elif what == "repeat" and (ever := opened[side.first_key]):
            await both.repeat(side, choose.choice([ever[-1], choose.choice(ever)]))
            repeats += 1
    return both.sent, both.alice.chains + both.bob.chains, late, repeats


@pytest.mark.parametrize("seed", range(6))
def test_random_schedules(seed: int) -> None:
    messages, chains, late, repeats = asyncio.run(converse(seed, 300))
    assert messages > 150 and chains > 12 and late > 25 and repeats > 3


async def overflow() -> tuple[Side, list[Message]]:
    both = Lockstep(99)
    lost = []
    for _ in range(3):  # 3 × 900 keys are skipped; 2,000 are kept, the oldest go first
        for _ in range(900):
            lost.append(await both.send(both.alice))
        await both.deliver(both.bob, await both.send(both.alice))
    await both.deliver(both.bob, lost[-1])
    return both.bob, lost


def test_the_oldest_stored_keys_go_first() -> None:
    bob, lost = asyncio.run(overflow())
    assert bob.ours and len(bob.ours.ratchet.skipped) == 1999
    bob.ours.decrypt(open_envelope(bob.keys, lost[700].ours), NOW_MS)
    with pytest.raises(Consumed):
        bob.ours.decrypt(open_envelope(bob.keys, lost[699].ours), NOW_MS)


async def chain_keys(CK: bytes, steps: int) -> list[bytes]:
    chain = doubleratchet.KDFChain.create(ChainKdf, CK)
    return [await chain.step(CHAIN_CONSTANT, 32) for _ in range(steps)]


def test_the_symmetric_chain_alone() -> None:
    for seed in range(20):
        CK = hashlib.sha256(b"%d" % seed).digest()
        chain = ReceivingChain(bytes(32), ReceivingChainKey(CK), 0)
        _, ours = chain.skip_to(100)
        assert ours == asyncio.run(chain_keys(CK, 100))
