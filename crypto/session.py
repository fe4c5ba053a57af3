"""A session with one device: set-up, ratchet and state as bytes (docs/protocol.md §3, §4).

Sessions do not change: every operation returns the next one, and whoever calls commits it.
"""

from dataclasses import dataclass, field, replace
from typing import Self

from saltline.crypto.bundles import Bundle
from saltline.crypto.encoding import Malformed, Reader, lp, u8, u64
from saltline.crypto.envelope import Opened, box_keys, pad_message, seal_envelope, unpad
from saltline.crypto.handshake import (
    MAX_SETUP_BYTES,
    SESSION_ID_BYTES,
    CannotAccept,
    consume_setup,
    create_setup,
)
from saltline.crypto.keys import IdentityKeys, PrekeyPair
from saltline.crypto.primitives import (
    HASH_BYTES,
    NONCE_BYTES,
    CannotOpen,
    Random,
    box,
    equal,
    open_box,
)
from saltline.crypto.ratchet import CannotDecrypt, Consumed, NotYetAllowed, Ratchet, TooFarAhead
from saltline.crypto.signatures import MAX_IDENTITY_BYTES, Identity

__all__ = [
    "BadCommitment",
    "CannotAccept",
    "CannotDecrypt",
    "Consumed",
    "NotYetAllowed",
    "Session",
    "TooFarAhead",
]

_VERSION = u8(1)
_INITIATOR, _CONFIRMED, _ABANDONED, _SUPERSEDED = 1, 2, 4, 8


class BadCommitment(CannotDecrypt):
    """A message's key does not belong to its header: forged, changed, or from another session."""


@dataclass(frozen=True, slots=True)
class Session:
    """One pairwise ratchet. ``id`` (sid) has 16 bytes; times are Unix ms.

    ``confirmed``: something from the peer has opened, so the setup is no longer repeated.
    ``superseded_ms``: since when it only receives, or None.
    """

    id: bytes
    peer: Identity
    started_ms: int
    created_ms: int
    initiator: bool
    confirmed: bool
    associated_data: bytes = field(repr=False)
    setup: bytes = field(repr=False)
    ratchet: Ratchet = field(repr=False)
    abandoned: bool = False
    superseded_ms: int | None = None

    @classmethod
    def initiate(
        cls, keys: IdentityKeys, bundle: Bundle, started_ms: int, now_ms: int, random: Random
    ) -> Self:
        """A new, unconfirmed session with the bundle's device. Raises BadBundle."""
        agreement = create_setup(keys, bundle, started_ms, now_ms, random)
        return cls(
            id=agreement.session_id,
            peer=bundle.identity,
            started_ms=started_ms,
            created_ms=now_ms,
            initiator=True,
            confirmed=False,
            associated_data=agreement.associated_data,
            setup=agreement.setup,
            ratchet=Ratchet.of_initiator(agreement.secret, bundle.signed_prekey.key),
        )

    @classmethod
    def accept(
        cls,
        keys: IdentityKeys,
        opened: Opened,
        signed_prekey: PrekeyPair,
        kem_prekey: PrekeyPair,
        one_time: PrekeyPair | None,
        now_ms: int,
    ) -> tuple[Self, bytes]:
        """The session that ``opened`` sets up, and the content of that message.

        The caller has checked that this session id was never accepted and that the initiator is
        live in the key log; it deletes the one-time private halves with the same commit. Raises
        CannotAccept, CannotDecrypt, Malformed or RefusedKey.
        """
        info = opened.setup_info
        if info is None:
            raise CannotAccept("no session, and no setup for one")
        agreement = consume_setup(
            keys, info, opened.setup, opened.session_id, signed_prekey, kem_prekey, one_time
        )
        session = cls(
            id=agreement.session_id,
            peer=info.initiator,
            started_ms=info.started_ms,
            created_ms=now_ms,
            initiator=False,
            confirmed=True,
            associated_data=agreement.associated_data,
            setup=b"",
            ratchet=Ratchet.of_responder(agreement.secret, signed_prekey.secret),
        )
        return session.decrypt(opened, now_ms)

    def encrypt(self, content: bytes, random: Random) -> tuple[Self, bytes]:
        """The next session and an envelope for the peer. Raises ContentTooLong.

        Commit both before the envelope leaves; a retry sends the same bytes.
        """
        ratchet, key, header = self.ratchet.send(self.id, random)
        padded = pad_message(content, self.setup, header)
        box_key, commitment = box_keys(key, self.associated_data, header)
        # Random, never derived: a restored backup must not use one nonce for two messages.
        inner = box(box_key, random(NONCE_BYTES), padded)
        envelope = seal_envelope(self.peer, self.setup, header, commitment, inner)
        return self._after(ratchet, self.confirmed), envelope

    def decrypt(self, opened: Opened, now_ms: int, *, expire: bool = True) -> tuple[Self, bytes]:
        """The next session and the content. Raises CannotDecrypt, and self is as it was.

        `expire` is that of ``Ratchet.receive``.
        """
        if opened.session_id != self.id:
            raise CannotDecrypt("this message belongs to another session")
        ratchet, key = self.ratchet.receive(opened.header, now_ms, expire=expire)
        box_key, commitment = box_keys(key, self.associated_data, opened.header_bytes)
        if not equal(commitment, opened.commitment):
            raise BadCommitment("this message does not commit to its key")
        try:
            content = unpad(open_box(box_key, opened.inner))
        except (CannotOpen, Malformed) as refused:
            raise CannotDecrypt(str(refused)) from None
        return self._after(ratchet, confirmed=True), content

    def _after(self, ratchet: Ratchet, confirmed: bool) -> Self:
        return type(self)(
            self.id,
            self.peer,
            self.started_ms,
            self.created_ms,
            self.initiator,
            confirmed,
            self.associated_data,
            b"" if confirmed else self.setup,
            ratchet,
            self.abandoned,
            self.superseded_ms,
        )

    def marked(self, *, abandoned: bool, superseded_ms: int | None) -> Self:
        """With other marks of ``SessionSet``."""
        if (abandoned, superseded_ms) == (self.abandoned, self.superseded_ms):
            return self
        return replace(self, abandoned=abandoned, superseded_ms=superseded_ms)

    def expire(self, now_ms: int) -> Self:
        """Without skipped message keys that are 30 days old."""
        ratchet = self.ratchet.expire(now_ms)
        return self if ratchet is self.ratchet else replace(self, ratchet=ratchet)

    def to_bytes(self) -> bytes:
        """Secret; exact inverse of ``from_bytes``. 2 to 8 KiB, and 76 bytes a skipped key."""
        superseded = self.superseded_ms
        flags = (
            _INITIATOR * self.initiator
            | _CONFIRMED * self.confirmed
            | _ABANDONED * self.abandoned
            | _SUPERSEDED * (superseded is not None)
        )
        return b"".join(
            (
                _VERSION,
                u8(flags),
                self.id,
                u64(self.started_ms),
                u64(self.created_ms),
                u64(superseded or 0),
                lp(self.peer.encode()),
                self.associated_data,
                lp(self.setup),
                self.ratchet.to_bytes(),
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Exact. Raises Malformed or RefusedKey."""
        reader = Reader(data)
        reader.expect(_VERSION)
        flags = reader.u8()
        session_id = reader.take(SESSION_ID_BYTES)
        started_ms, created_ms, superseded_ms = reader.u63(), reader.u63(), reader.u63()
        peer = Identity.decode(reader.lp(MAX_IDENTITY_BYTES))
        associated_data = reader.take(HASH_BYTES)
        setup = reader.lp(MAX_SETUP_BYTES)
        ratchet = Ratchet.from_bytes(reader.rest())
        confirmed = bool(flags & _CONFIRMED)
        if flags > 15 or confirmed == bool(setup) or (superseded_ms and not flags & _SUPERSEDED):
            raise Malformed("session state contradicts itself")
        return cls(
            id=session_id,
            peer=peer,
            started_ms=started_ms,
            created_ms=created_ms,
            initiator=bool(flags & _INITIATOR),
            confirmed=confirmed,
            associated_data=associated_data,
            setup=setup,
            ratchet=ratchet,
            abandoned=bool(flags & _ABANDONED),
            superseded_ms=superseded_ms if flags & _SUPERSEDED else None,
        )
