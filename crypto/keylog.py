"""The key log: entries, what replaying them gives, and its Merkle hashes (docs/protocol.md §7).

A relay may import this module.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Self

from saltline.crypto.encoding import Malformed, Reader, lp, u8, u32, u64
from saltline.crypto.merkle import LEAF_BYTES as LEAF_BYTES
from saltline.crypto.merkle import TreeHasher as TreeHasher
from saltline.crypto.merkle import tree_root as tree_root
from saltline.crypto.primitives import (
    HASH_BYTES,
    KEY_BYTES,
    SIGNATURE_BYTES,
    BadSignature,
    CryptoError,
    Random,
    ed25519_from_seed,
    ed25519_sign,
    label,
    sha256,
)
from saltline.crypto.signatures import (
    MAX_IDENTITY_BYTES,
    MAX_USERNAME_BYTES,
    Identity,
    identity_payload,
    verify,
)

Sign = Callable[[bytes], bytes]

LOG_SIGNER = 0
"""``Entry.signer`` where the log key signed: a reset, or the admin's revoke."""

MAX_ENTRY_BYTES = 374

_ENTRY = label("entry")
NO_PREVIOUS = bytes(HASH_BYTES)
"""``Entry.previous`` of an account's first entry."""


class BadEntry(CryptoError):
    """The key log holds an entry that its rules do not allow. Do not trust this account's keys."""


class Op(IntEnum):
    """The u8 op of an entry."""

    CREATE = 1
    ADD_DEVICE = 2
    REVOKE = 3
    RESET = 4

    @classmethod
    def decode(cls, reader: Reader) -> Self:
        """One byte. Raises Malformed."""
        number = reader.u8()
        if number not in cls._value2member_map_:
            raise Malformed("unknown kind of entry")
        return cls(number)


class LogKey:
    """The relay's Ed25519 log key. ``public`` and ``relay_id`` (its hash) have 32 bytes."""

    __slots__ = ("_seed", "public", "relay_id")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != KEY_BYTES:
            raise Malformed("a log key has 32 bytes")
        self._seed = seed
        self.public = ed25519_from_seed(seed)
        self.relay_id = relay_id(self.public)

    @classmethod
    def generate(cls, random: Random) -> Self:
        return cls(random(KEY_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """From the 32 bytes that ``to_bytes`` gave. Raises Malformed."""
        return cls(seed)

    def to_bytes(self) -> bytes:
        """The 32-byte seed. Secret."""
        return self._seed

    def sign(self, payload: bytes) -> bytes:
        """64 bytes."""
        return ed25519_sign(self._seed, payload)

    def __repr__(self) -> str:
        return f"LogKey(relay_id={self.relay_id.hex()})"


def relay_id(log_public: bytes) -> bytes:
    """H(the relay's log public key), 32 bytes."""
    return sha256(log_public)


@dataclass(frozen=True, slots=True)
class Entry:
    """One change to a name's devices. ``number`` counts them from 0, ``previous`` is H(the last).

    ``identity`` is the device that the entry adds or revokes; ``signer`` a device number, or 0 for
    the log key; signatures have 64 bytes. Raises Malformed when it names two users.
    """

    op: Op
    username: str
    number: int
    previous: bytes
    time_ms: int
    identity: Identity
    identity_signature: bytes
    signer: int
    signature: bytes = b""

    def __post_init__(self) -> None:
        if self.username != self.identity.username:
            raise Malformed("an entry names two users")

    def unsigned(self) -> bytes:
        """What ``signature`` covers: all the rest, with its label."""
        return b"".join(
            (
                _ENTRY,
                u8(self.op),
                lp(self.username.encode("ascii")),
                u32(self.number),
                self.previous,
                u64(self.time_ms),
                lp(self.identity.encode()),
                self.identity_signature,
                u32(self.signer),
            )
        )

    def encode(self) -> bytes:
        return self.unsigned() + self.signature

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Exact. Raises Malformed or RefusedKey; who signed is for ``Account`` to judge."""
        reader = Reader(data)
        reader.expect(_ENTRY)
        entry = cls(
            op=Op.decode(reader),
            username=reader.lp(MAX_USERNAME_BYTES).decode("latin-1"),
            number=reader.u32(),
            previous=reader.take(HASH_BYTES),
            time_ms=reader.u63(),
            identity=Identity.decode(reader.lp(MAX_IDENTITY_BYTES)),
            identity_signature=reader.take(SIGNATURE_BYTES),
            signer=reader.u32(),
            signature=reader.take(SIGNATURE_BYTES),
        )
        reader.finish()
        return entry

    @property
    def hash(self) -> bytes:
        """H(entry), 32 bytes."""
        return sha256(self.encode())


@dataclass(frozen=True, slots=True)
class Account:
    """What replaying a name's entries gives. Immutable: ``apply`` returns the next one.

    ``live`` is ordered by device number; ``root`` is the identity of the create or last reset
    entry, which safety numbers compare; a ``closed`` name takes no more entries.
    """

    username: str
    next_number: int
    last_hash: bytes
    live: tuple[Identity, ...]
    root: Identity
    highest_device: int
    closed: bool
    resets: int
    live_signatures: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def start(cls, entry: Entry, log_public: bytes) -> Self:
        """The account that a create entry opens. Raises BadEntry."""
        identity = entry.identity
        if entry.op is not Op.CREATE or entry.number != 0 or entry.previous != NO_PREVIOUS:
            raise BadEntry("a name begins with its create entry")
        if entry.signer != identity.device:
            raise BadEntry("a create entry is signed by its own device")
        _check_identity(entry, log_public)
        _check_signature(entry, identity.signing_key)
        return cls(
            username=entry.username,
            next_number=1,
            last_hash=entry.hash,
            live=(identity,),
            root=identity,
            highest_device=identity.device,
            closed=False,
            resets=0,
            live_signatures=(entry.identity_signature,),
        )

    def apply(self, entry: Entry, log_public: bytes) -> Self:
        """The account after ``entry``. Raises BadEntry for what the log's rules do not allow."""
        if self.closed:
            raise BadEntry("the name is closed")
        if entry.username != self.username:
            raise BadEntry("the entry belongs to another name")
        if entry.number != self.next_number or entry.previous != self.last_hash:
            raise BadEntry("the entry does not follow the one before")
        _check_identity(entry, log_public)
        _check_signature(entry, self._signing_key(entry, log_public))
        is_revoke = entry.op is Op.REVOKE
        changed = self._without(entry.identity) if is_revoke else self._with(entry)
        return replace(changed, next_number=self.next_number + 1, last_hash=entry.hash)

    def live_device(self, device: int) -> Identity | None:
        """The identity that holds this device number now."""
        return next((each for each in self.live if each.device == device), None)

    def is_live(self, identity: Identity) -> bool:
        """Is exactly this ID, every field of it, live?"""
        return identity in self.live

    def _signing_key(self, entry: Entry, log_public: bytes) -> bytes:
        if entry.op is Op.CREATE:
            raise BadEntry("the name exists already")
        if entry.signer == LOG_SIGNER:
            if entry.op is Op.ADD_DEVICE:
                raise BadEntry("only a live device adds a device")
            return log_public
        if entry.op is Op.RESET:
            raise BadEntry("only the log key resets a name")
        signer = self.live_device(entry.signer)
        if signer is None:
            raise BadEntry("the signing device is not live")
        return signer.signing_key

    def _with(self, entry: Entry) -> Self:
        identity, signature = entry.identity, entry.identity_signature
        if identity.device <= self.highest_device:
            raise BadEntry("a device number is used twice")
        is_reset = entry.op is Op.RESET
        return replace(
            self,
            live=(identity,) if is_reset else (*self.live, identity),
            live_signatures=(signature,) if is_reset else (*self.live_signatures, signature),
            root=identity if is_reset else self.root,
            highest_device=identity.device,
            resets=self.resets + is_reset,
        )

    def _without(self, identity: Identity) -> Self:
        if identity not in self.live:
            raise BadEntry("the revoked device is not live")
        gone = self.live.index(identity)
        live = self.live[:gone] + self.live[gone + 1 :]
        signatures = self.live_signatures[:gone] + self.live_signatures[gone + 1 :]
        return replace(self, live=live, live_signatures=signatures, closed=not live)


def _check_identity(entry: Entry, log_public: bytes) -> None:
    identity = entry.identity
    if identity.relay_id != relay_id(log_public):
        raise BadEntry("the identity belongs to another relay")
    try:
        verify(identity.signing_key, identity_payload(identity), entry.identity_signature)
    except BadSignature:
        raise BadEntry("the identity is not signed by its own key") from None


def _check_signature(entry: Entry, signing_key: bytes) -> None:
    try:
        verify(signing_key, entry.unsigned(), entry.signature)
    except BadSignature:
        raise BadEntry("the entry's signature does not match its signer") from None


def replay(entries: Iterable[bytes], log_public: bytes) -> Account:
    """The account that all encoded entries of one name give, in order.

    Raises BadEntry, Malformed or RefusedKey.
    """
    account: Account | None = None
    for data in entries:
        entry = Entry.decode(data)
        if account is None:
            account = Account.start(entry, log_public)
        else:
            account = account.apply(entry, log_public)
    if account is None:
        raise BadEntry("a name without entries")
    return account


# --- making entries -------------------------------------------------------------------------


def create_entry(identity: Identity, identity_signature: bytes, time_ms: int, sign: Sign) -> Entry:
    """The first entry of a name; ``sign`` is by the identity itself."""
    name, signer = identity.username, identity.device
    return _signed(
        sign, Op.CREATE, name, 0, NO_PREVIOUS, time_ms, identity, identity_signature, signer
    )


def add_device_entry(
    account: Account,
    identity: Identity,
    identity_signature: bytes,
    time_ms: int,
    signer: int,
    sign: Sign,
) -> Entry:
    """``signer`` is a live device of the account, and ``sign`` is by its key."""
    place = (account.username, account.next_number, account.last_hash)
    return _signed(sign, Op.ADD_DEVICE, *place, time_ms, identity, identity_signature, signer)


def revoke_entry(
    account: Account, identity: Identity, time_ms: int, signer: int, sign: Sign
) -> Entry:
    """``signer`` is a live device (it may be the revoked one), or LOG_SIGNER. Raises BadEntry."""
    if not account.is_live(identity):
        raise BadEntry("the revoked device is not live")
    identity_signature = account.live_signatures[account.live.index(identity)]
    place = (account.username, account.next_number, account.last_hash)
    return _signed(sign, Op.REVOKE, *place, time_ms, identity, identity_signature, signer)


def reset_entry(
    account: Account, identity: Identity, identity_signature: bytes, time_ms: int, sign: Sign
) -> Entry:
    """Ends every device of the account but the new ``identity``; ``sign`` is by the log key."""
    place = (account.username, account.next_number, account.last_hash)
    return _signed(sign, Op.RESET, *place, time_ms, identity, identity_signature, LOG_SIGNER)


def _signed(
    sign: Sign,
    op: Op,
    username: str,
    number: int,
    previous: bytes,
    time_ms: int,
    identity: Identity,
    identity_signature: bytes,
    signer: int,
) -> Entry:
    entry = Entry(op, username, number, previous, time_ms, identity, identity_signature, signer)
    return replace(entry, signature=sign(entry.unsigned()))


def leaf(entry: Entry) -> bytes:
    """What the log's tree holds for ``entry``: H(lp(username)) ‖ H(entry), 64 bytes."""
    return sha256(lp(entry.username.encode("ascii"))) + entry.hash
