"""The Double Ratchet with a KEM in every turn: docs/protocol.md §4.

Source: Signal's Double Ratchet, revision 4, §5; the KEM beside Diffie-Hellman follows Alwen,
Coretti and Dodis (EUROCRYPT 2019). Nothing here changes: every step returns the next ratchet.
"""

from dataclasses import dataclass, field
from typing import NewType, Self

from saltline.crypto.chains import (
    MAX_SKIPPED_KEYS_BYTES,
    Header,
    MessageKey,
    ReceivingChain,
    ReceivingChainKey,
    SendingChain,
    SendingChainKey,
    SkippedKeys,
    chain_fields,
    chain_id,
)
from saltline.crypto.encoding import Malformed, Reader, lp, u8, u32
from saltline.crypto.primitives import (
    HASH_BYTES,
    KEM_SEED_BYTES,
    KEY_BYTES,
    ML_KEM_768,
    CannotOpen,
    CryptoError,
    Random,
    RefusedKey,
    agree,
    hkdf,
    label,
    x25519_generate,
)

SendingRootKey = NewType("SendingRootKey", bytes)
"""Starts our next chain."""
ReceivingRootKey = NewType("ReceivingRootKey", bytes)
"""Starts the peer's next chain."""

MAX_SKIPPED = 1000
"""Per message, over both chains: 4 ms of work at most for a forgery."""
MAX_PAST_CHAINS = 100

_ROOT = label("root")
_OUR_TURN = u8(1)
_THEIR_TURN = u8(0)
_MAX_CHAIN_BYTES = 4096


class CannotDecrypt(CryptoError):
    """A message did not fit its session: it was changed, or one of both sides lost its state."""


class Consumed(CannotDecrypt):
    """The key of this message was used already: a repeated message, or a restored sender."""


class TooFarAhead(CannotDecrypt):
    """More messages are missing before this one than are kept track of."""


class NotYetAllowed(CannotDecrypt):
    """A message claims an answer to keys that were not sent yet."""


@dataclass(frozen=True, slots=True)
class OurRatchetKey:
    """The private halves of our last chain; a responder's first is its signed prekey, no KEM."""

    secret: bytes = field(repr=False)
    kem_seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class TheirRatchetKey:
    """The public halves of the peer's last chain; at first its signed prekey and no KEM key."""

    key: bytes
    kem_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class OurTurn:
    """turn = yes: our next message begins a chain; the one before had ``previous_length`` (PN)."""

    root: SendingRootKey = field(repr=False)
    theirs: TheirRatchetKey
    previous_length: int = 0

    def to_bytes(self) -> bytes:
        theirs = self.theirs
        numbers = u32(self.previous_length)
        return _OUR_TURN + self.root + theirs.key + lp(theirs.kem_key) + numbers

    @classmethod
    def read(cls, reader: Reader) -> Self:
        root, key = SendingRootKey(reader.take(KEY_BYTES)), reader.take(KEY_BYTES)
        kem_key = reader.lp(ML_KEM_768.public_bytes)
        if len(kem_key) not in (0, ML_KEM_768.public_bytes):
            raise Malformed("a KEM key has a wrong length")
        return cls(root, TheirRatchetKey(key, kem_key), reader.u32())


@dataclass(frozen=True, slots=True)
class TheirTurn:
    """turn = no: we go on with our chain, and the peer's next chain answers to our keys.

    Only a responder that has not received yet has no chain.
    """

    root: ReceivingRootKey = field(repr=False)
    ours: OurRatchetKey
    sending: SendingChain | None

    def to_bytes(self) -> bytes:
        ours = self.ours
        sending = self.sending.to_bytes() if self.sending else b""
        return _THEIR_TURN + self.root + ours.secret + lp(ours.kem_seed) + lp(sending)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        root, secret = ReceivingRootKey(reader.take(KEY_BYTES)), reader.take(KEY_BYTES)
        kem_seed = reader.lp_exactly(KEM_SEED_BYTES)
        sending = SendingChain.from_bytes(reader.lp(_MAX_CHAIN_BYTES))
        return cls(root, OurRatchetKey(secret, kem_seed), sending)


@dataclass(frozen=True, slots=True)
class Ratchet:
    """The secrets of one session."""

    turn: OurTurn | TheirTurn
    receiving: ReceivingChain | None = None
    past: tuple[bytes, ...] = field(default=(), repr=False)
    skipped: SkippedKeys = field(default_factory=SkippedKeys)

    @classmethod
    def of_initiator(cls, secret: bytes, signed_prekey: bytes) -> Self:
        """From SK (32 bytes) and the responder's public signed prekey."""
        return cls(OurTurn(SendingRootKey(secret), TheirRatchetKey(signed_prekey, b"")))

    @classmethod
    def of_responder(cls, secret: bytes, signed_prekey_secret: bytes) -> Self:
        """From SK (32 bytes) and our private signed prekey."""
        ours = OurRatchetKey(signed_prekey_secret, b"")
        return cls(TheirTurn(ReceivingRootKey(secret), ours, None))

    def send(self, session_id: bytes, random: Random) -> tuple[Self, MessageKey, bytes]:
        """The next ratchet, a message key (32 bytes) and the message's header."""
        turn = self.turn
        if isinstance(turn, OurTurn):
            turn = _begin_chain(turn, random)
        if turn.sending is None:
            raise CryptoError("a responder sends after it has received")
        sending, key, header = turn.sending.step(session_id)
        turn = TheirTurn(turn.root, turn.ours, sending)
        return type(self)(turn, self.receiving, self.past, self.skipped), key, header

    def receive(
        self, header: Header, now_ms: int, *, expire: bool = True
    ) -> tuple[Self, MessageKey]:
        """The next ratchet and the message's key. Raises CannotDecrypt.

        Nothing is proved yet: keep the result only if the message opens. Without `expire` no stored
        key is too old: the clock may be wrong.
        """
        chain, number = header.chain_id, header.number
        skipped = self.skipped.expire(now_ms) if expire else self.skipped
        stored = skipped.get(chain, number, now_ms if expire else None)
        if stored is not None:
            return self._with(skipped=skipped.without(chain, number)), stored
        current = self.receiving
        if current is not None and chain == current.id:
            if number < current.next:
                raise Consumed("this message was received before")
            if number - current.next > MAX_SKIPPED:
                raise TooFarAhead("too many messages are missing")
            return self._take(self.turn, current, self.past, skipped, number, now_ms)
        if chain in self.past:
            raise Consumed("this message belongs to a chain that is over")
        return self._receive_new_chain(header, skipped, now_ms)

    def _receive_new_chain(
        self, header: Header, skipped: SkippedKeys, now_ms: int
    ) -> tuple[Self, MessageKey]:
        turn, old, past = self.turn, self.receiving, self.past
        if isinstance(turn, OurTurn):
            raise NotYetAllowed("the peer cannot have our next keys yet")
        if bool(header.kem_ciphertext) != bool(turn.ours.kem_seed):
            raise CannotDecrypt("a chain without its KEM ciphertext, or with one too many")
        old_next = old.next if old else 0
        if header.previous_length < old_next or (old is None and header.previous_length):
            raise CannotDecrypt("the chain before is longer than the message says")
        if header.previous_length - old_next + header.number > MAX_SKIPPED:
            raise TooFarAhead("too many messages are missing")
        chain, next_turn = _answer(turn, header)
        if old is not None:
            _, keys = old.skip_to(header.previous_length)
            skipped = skipped.adding(old.id, old_next, keys, now_ms)
            past = (*past[1 - MAX_PAST_CHAINS :], old.id)
        return self._take(next_turn, chain, past, skipped, header.number, now_ms)

    def _take(
        self,
        turn: OurTurn | TheirTurn,
        chain: ReceivingChain,
        past: tuple[bytes, ...],
        skipped: SkippedKeys,
        number: int,
        now_ms: int,
    ) -> tuple[Self, MessageKey]:
        if number > chain.next:
            first = chain.next
            chain, keys = chain.skip_to(number)
            skipped = skipped.adding(chain.id, first, keys, now_ms)
        chain, key = chain.step()
        return type(self)(turn, chain, past, skipped), key

    def expire(self, now_ms: int) -> Self:
        """Without the stored keys that are 30 days old."""
        skipped = self.skipped.expire(now_ms)
        return self if skipped is self.skipped else self._with(skipped)

    def _with(self, skipped: SkippedKeys) -> Self:
        return type(self)(self.turn, self.receiving, self.past, skipped)

    def to_bytes(self) -> bytes:
        """Secret; exact inverse of ``from_bytes``."""
        return b"".join(
            (
                self.turn.to_bytes(),
                lp(self.receiving.to_bytes() if self.receiving else b""),
                u32(len(self.past)),
                *self.past,
                lp(self.skipped.to_bytes()),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact. Raises Malformed."""
        reader = Reader(data)
        kind = reader.take(1)
        if kind not in (_OUR_TURN, _THEIR_TURN):
            raise Malformed("unknown kind of turn")
        turn = OurTurn.read(reader) if kind == _OUR_TURN else TheirTurn.read(reader)
        receiving = reader.lp(_MAX_CHAIN_BYTES)
        past_count = reader.u32()
        if past_count > MAX_PAST_CHAINS:
            raise Malformed("too many past chains")
        ratchet = cls(
            turn,
            ReceivingChain.from_bytes(receiving) if receiving else None,
            tuple(reader.take(HASH_BYTES) for _ in range(past_count)),
            SkippedKeys.from_bytes(reader.lp(MAX_SKIPPED_KEYS_BYTES)),
        )
        reader.finish()
        return ratchet


def _begin_chain(turn: OurTurn, random: Random) -> TheirTurn:
    """Our new chain, which answers to the peer's keys, and their turn after it."""
    # Keys are made at the first send, not on receipt: fresher, and a forgery costs less.
    secret, public = x25519_generate(random)
    kem_seed, kem_key = ML_KEM_768.generate(random)
    kem_secret, kem_ciphertext = b"", b""
    if turn.theirs.kem_key:
        kem_secret, kem_ciphertext = ML_KEM_768.encapsulate(turn.theirs.kem_key)
    fields = chain_fields(public, kem_key, kem_ciphertext)
    shared = agree(turn.theirs.key, secret)
    root, key = _root_step(turn.root, shared, kem_secret, chain_id(fields))
    chain = SendingChain(SendingChainKey(key), 0, turn.previous_length, fields)
    return TheirTurn(ReceivingRootKey(root), OurRatchetKey(secret, kem_seed), chain)


def _answer(turn: TheirTurn, header: Header) -> tuple[ReceivingChain, OurTurn]:
    """The peer's new chain, which uses up our keys, and our turn after it."""
    ours = turn.ours
    kem_secret = b""
    try:
        # An unusable KEM key would only show at our next send: refuse it with the message.
        ML_KEM_768.check(header.kem_key)
        if header.kem_ciphertext:
            kem_secret = ML_KEM_768.decapsulate(ours.kem_seed, header.kem_ciphertext)
        shared = agree(header.ratchet_key, ours.secret)
    except (RefusedKey, CannotOpen) as refused:
        raise CannotDecrypt(f"a ratchet key is refused: {refused}") from None
    root, key = _root_step(turn.root, shared, kem_secret, header.chain_id)
    theirs = TheirRatchetKey(header.ratchet_key, header.kem_key)
    chain = ReceivingChain(header.chain_id, ReceivingChainKey(key), 0)
    previous_length = turn.sending.next if turn.sending else 0
    return chain, OurTurn(SendingRootKey(root), theirs, previous_length)


def _root_step(root: bytes, shared: bytes, kem_secret: bytes, chain: bytes) -> tuple[bytes, bytes]:
    """(next root key, chain key), 32 bytes each."""
    keys = hkdf(root, shared + lp(kem_secret), _ROOT + chain, 2 * KEY_BYTES)
    return keys[:KEY_BYTES], keys[KEY_BYTES:]
