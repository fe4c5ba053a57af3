"""Chains of message keys, the headers that name them, and the keys that wait for late messages.

Source: the Double Ratchet (Signal, revision 4) §2.2 and §3; docs/protocol.md §4.
"""

from dataclasses import dataclass, field
from itertools import islice
from typing import NewType, Self

from saltline.crypto.bundles import DAY_MS
from saltline.crypto.encoding import Malformed, Reader, lp, u32, u64
from saltline.crypto.handshake import SESSION_ID_BYTES
from saltline.crypto.primitives import (
    HASH_BYTES,
    KEY_BYTES,
    ML_KEM_768,
    hmac_sha256,
    label,
    sha256,
)

SendingChainKey = NewType("SendingChainKey", bytes)
ReceivingChainKey = NewType("ReceivingChainKey", bytes)
MessageKey = NewType("MessageKey", bytes)

MAX_HEADER_BYTES = 2342
MAX_STORED_KEYS = 2000
STORED_KEY_LIFE_MS = 30 * DAY_MS
"""As long as an envelope may wait in a mailbox."""

_CHAIN = label("chain")
_MESSAGE_KEY = b"\x01"
_NEXT_CHAIN_KEY = b"\x02"
_VERSION_AND_FLAGS = b"\x01\x00"


@dataclass(frozen=True, slots=True)
class Header:
    """Which key opens a message: docs/protocol.md §4.

    ``session_id`` 16 bytes; ``previous_length`` (PN) and ``number`` (N) u32; ``ratchet_key`` (dh)
    32, ``kem_key`` 1,184 and ``kem_ciphertext`` 1,088 bytes, or 0 in an initiator's first chain.
    ``chain_id`` (32) follows from the last three.
    """

    session_id: bytes
    previous_length: int
    number: int
    ratchet_key: bytes
    kem_key: bytes = field(repr=False)
    kem_ciphertext: bytes = field(repr=False)
    chain_id: bytes

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Exact. Raises Malformed."""
        reader = Reader(data)
        reader.expect(_VERSION_AND_FLAGS)
        session_id = reader.take(SESSION_ID_BYTES)
        previous_length = reader.u32()
        number = reader.u32()
        ratchet_key = reader.lp_exactly(KEY_BYTES)
        kem_key = reader.lp_exactly(ML_KEM_768.public_bytes)
        kem_ciphertext = reader.lp(ML_KEM_768.ciphertext_bytes)
        reader.finish()
        if kem_ciphertext and len(kem_ciphertext) != ML_KEM_768.ciphertext_bytes:
            raise Malformed("a KEM ciphertext has a wrong length")
        return cls(
            session_id,
            previous_length,
            number,
            ratchet_key,
            kem_key,
            kem_ciphertext,
            chain_id(data[_BEFORE_FIELDS_BYTES:]),
        )


_BEFORE_FIELDS_BYTES = len(_VERSION_AND_FLAGS) + SESSION_ID_BYTES + 4 + 4


def chain_fields(ratchet_key: bytes, kem_key: bytes, kem_ciphertext: bytes) -> bytes:
    """lp(dh) ‖ lp(kem_pk) ‖ lp(kem_ct): what all headers of one chain end with."""
    return lp(ratchet_key) + lp(kem_key) + lp(kem_ciphertext)


def chain_id(fields: bytes) -> bytes:
    """32 bytes, from ``chain_fields``."""
    return sha256(_CHAIN + fields)


@dataclass(frozen=True, slots=True)
class SendingChain:
    """Our current chain; ``next`` messages were sent on it. ``fields`` ends every header."""

    key: SendingChainKey = field(repr=False)
    next: int
    previous_length: int
    fields: bytes = field(repr=False)

    def step(self, session_id: bytes) -> tuple[Self, MessageKey, bytes]:
        """The chain after one more message, the message's key (32 bytes) and its header.

        Raises Malformed after 2^32 messages without an answer.
        """
        numbers = u32(self.previous_length) + u32(self.next)
        header = _VERSION_AND_FLAGS + session_id + numbers + self.fields
        key = SendingChainKey(hmac_sha256(self.key, _NEXT_CHAIN_KEY))
        after = type(self)(key, self.next + 1, self.previous_length, self.fields)
        return after, MessageKey(hmac_sha256(self.key, _MESSAGE_KEY)), header

    def to_bytes(self) -> bytes:
        """key (32) ‖ u32 next ‖ u32 PN ‖ the header's end. Secret."""
        return self.key + u32(self.next) + u32(self.previous_length) + self.fields

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact. Raises Malformed."""
        reader = Reader(data)
        key = SendingChainKey(reader.take(KEY_BYTES))
        next_number, previous_length = reader.u32(), reader.u32()
        fields = reader.rest()
        Header.decode(_VERSION_AND_FLAGS + bytes(_BEFORE_FIELDS_BYTES - 2) + fields)
        return cls(key, next_number, previous_length, fields)


@dataclass(frozen=True, slots=True)
class ReceivingChain:
    """The peer's current chain; the keys of its first ``next`` messages were derived."""

    id: bytes
    key: ReceivingChainKey = field(repr=False)
    next: int

    def step(self) -> tuple[Self, MessageKey]:
        """The chain after message number ``next``, and that message's key."""
        key = ReceivingChainKey(hmac_sha256(self.key, _NEXT_CHAIN_KEY))
        after = type(self)(self.id, key, self.next + 1)
        return after, MessageKey(hmac_sha256(self.key, _MESSAGE_KEY))

    def skip_to(self, number: int) -> tuple[Self, list[MessageKey]]:
        """The chain at ``number``, and the keys of the messages before it. Bound it first."""
        key = self.key
        skipped = []
        for _ in range(self.next, number):
            skipped.append(MessageKey(hmac_sha256(key, _MESSAGE_KEY)))
            key = ReceivingChainKey(hmac_sha256(key, _NEXT_CHAIN_KEY))
        return type(self)(self.id, key, number), skipped

    def to_bytes(self) -> bytes:
        """id (32) ‖ key (32) ‖ u32 next. Secret."""
        return self.id + self.key + u32(self.next)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact. Raises Malformed."""
        reader = Reader(data)
        chain = cls(
            reader.take(HASH_BYTES), ReceivingChainKey(reader.take(KEY_BYTES)), reader.u32()
        )
        reader.finish()
        return chain


# A stored key: chain id (32) ‖ u32 number ‖ u64 stored at ‖ message key (32).
_PLACE_BYTES = HASH_BYTES + 4
_TIME = slice(_PLACE_BYTES, _PLACE_BYTES + 8)
_KEY = slice(_PLACE_BYTES + 8, _PLACE_BYTES + 8 + KEY_BYTES)
_RECORD_BYTES = _PLACE_BYTES + 8 + KEY_BYTES

MAX_SKIPPED_KEYS_BYTES = MAX_STORED_KEYS * _RECORD_BYTES


class SkippedKeys:
    """Message keys (not box keys: those need the header) of messages that have not come yet.

    At most 2,000, the oldest go first, each for 30 days. Immutable: copied only when it changes.
    """

    __slots__ = ("_records",)

    def __init__(self, records: dict[bytes, bytes] | None = None) -> None:
        self._records = {} if records is None else records

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"SkippedKeys({len(self)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SkippedKeys) and self._records == other._records

    def __hash__(self) -> int:
        return hash(frozenset(self._records))

    def get(self, chain: bytes, number: int, now_ms: int | None) -> MessageKey | None:
        """The stored key, unless it is 30 days old; with None, however old it is."""
        record = self._records.get(chain + u32(number))
        if record is None or (now_ms is not None and _is_old(record, now_ms)):
            return None
        return MessageKey(record[_KEY])

    def without(self, chain: bytes, number: int) -> Self:
        records = dict(self._records)
        del records[chain + u32(number)]
        return type(self)(records)

    def adding(self, chain: bytes, first: int, keys: list[MessageKey], now_ms: int) -> Self:
        """With the keys of ``chain`` from number ``first``."""
        if not keys:
            return self
        records = dict(self._records)
        time = u64(now_ms)
        for number, key in enumerate(keys, first):
            place = chain + u32(number)
            records[place] = place + time + key
        for oldest in list(islice(records, max(0, len(records) - MAX_STORED_KEYS))):
            del records[oldest]
        return type(self)(records)

    def expire(self, now_ms: int) -> Self:
        """Without the keys that are 30 days old."""
        if not self._records or not _is_old(next(iter(self._records.values())), now_ms):
            return self
        return type(self)({k: v for k, v in self._records.items() if not _is_old(v, now_ms)})

    def to_bytes(self) -> bytes:
        """76 bytes a key, oldest first. Secret."""
        return b"".join(self._records.values())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact. Raises Malformed."""
        if len(data) % _RECORD_BYTES or len(data) > MAX_STORED_KEYS * _RECORD_BYTES:
            raise Malformed("stored keys have a wrong length")
        records = {}
        for at in range(0, len(data), _RECORD_BYTES):
            record = data[at : at + _RECORD_BYTES]
            records[record[:_PLACE_BYTES]] = record
        if len(records) * _RECORD_BYTES != len(data):
            raise Malformed("a key is stored twice")
        return cls(records)


def _is_old(record: bytes, now_ms: int) -> bool:
    return now_ms - int.from_bytes(record[_TIME], "big") >= STORED_KEY_LIFE_MS
