"""Devices for tests: each with its keys, its prekeys, and the sessions it holds, in memory."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from saltline.crypto.bundles import DAY_MS, Bundle, PrekeyKind
from saltline.crypto.encoding import Malformed, lp, u8
from saltline.crypto.envelope import Opened, open_envelope
from saltline.crypto.keylog import LogKey
from saltline.crypto.keys import IdentityKeys, PrekeyPair, generate_prekey
from saltline.crypto.primitives import CryptoError, Random, seal
from saltline.crypto.session import Session

NOW_MS = 1_800_000_000_000
REFUSALS = (CryptoError, Malformed)


def seeded(seed: str) -> Random:
    """The same bytes for the same seed, in the order they are drawn."""
    state = hashlib.sha256(seed.encode()).digest()

    def draw(size: int) -> bytes:
        nonlocal state
        state = hashlib.sha256(state).digest()
        return hashlib.shake_256(state).digest(size)

    return draw


LOG = LogKey.generate(seeded("log"))


class Device:
    """One device: ``says`` gives an envelope, ``hears`` a content; both commit."""

    def __init__(self, username: str, device: int = 1, relay_id: bytes = LOG.relay_id) -> None:
        self.random = seeded(f"{username} {device}")
        self.keys = IdentityKeys.generate(relay_id, username, device, self.random)
        self.prekeys = {
            kind: generate_prekey(self.keys, kind, 10 + kind, NOW_MS - DAY_MS, self.random)
            for kind in PrekeyKind
        }
        self.session: Session | None = None

    @property
    def now(self) -> Session:
        """The session as it stands."""
        assert self.session is not None
        return self.session

    def bundle(self, *, one_time: bool = True, one_time_kem: bool = True) -> Bundle:
        kem = PrekeyKind.ONE_TIME_KEM if one_time_kem else PrekeyKind.LAST_RESORT_KEM
        return Bundle(
            self.keys.identity,
            self.keys.identity_signature,
            self.prekeys[PrekeyKind.SIGNED].public,
            self.prekeys[kem].public,
            self.prekeys[PrekeyKind.ONE_TIME].public if one_time else None,
        )

    def initiates(self, bundle: Bundle, started_ms: int = NOW_MS) -> None:
        self.session = Session.initiate(self.keys, bundle, started_ms, NOW_MS, self.random)

    def says(self, content: bytes) -> bytes:
        self.session, envelope = self.now.encrypt(content, self.random)
        return envelope

    def opens(self, envelope: bytes) -> Opened:
        return open_envelope(self.keys, envelope)

    def hears(self, envelope: bytes, now_ms: int = NOW_MS) -> bytes:
        opened = self.opens(envelope)
        if self.session is None:
            self.session, content = self.accepts(opened, now_ms)
        else:
            self.session, content = self.session.decrypt(opened, now_ms)
        return content

    def accepts(self, opened: Opened, now_ms: int = NOW_MS) -> tuple[Session, bytes]:
        """A session from ``opened``, with the prekeys that it names; does not commit."""
        info = opened.setup_info
        one_time: PrekeyPair | None = None
        kem = self.prekeys[PrekeyKind.LAST_RESORT_KEM]
        if info is not None:
            kem = self.prekeys[info.kem_kind]
            if info.one_time_prekey_id:
                one_time = self.prekeys[PrekeyKind.ONE_TIME]
        signed = self.prekeys[PrekeyKind.SIGNED]
        return Session.accept(self.keys, opened, signed, kem, one_time, now_ms)


def strangers() -> tuple[Device, Device]:
    """Alice, who has started a session with Bob; he has not heard of it."""
    alice, bob = Device("alice"), Device("bob")
    alice.initiates(bob.bundle())
    return alice, bob


def acquainted() -> tuple[Device, Device]:
    """Alice and Bob after one round trip; it is Alice's turn to begin a chain."""
    alice, bob = strangers()
    assert bob.hears(alice.says(b"hello")) == b"hello"
    assert alice.hears(bob.says(b"welcome")) == b"welcome"
    return alice, bob


def plaintext_of(opened: Opened) -> bytes:
    """What was inside the outer box."""
    fields = (u8(1), lp(opened.setup), lp(opened.header_bytes), opened.commitment, opened.inner)
    return b"".join(fields)


def resealed(recipient: Device, opened: Opened, **changes: bytes) -> bytes:
    """An envelope with other ``setup``, ``header_bytes``, ``commitment`` or ``inner``."""
    return sealed_for(recipient, plaintext_of(replace(opened, **changes)))  # type: ignore[arg-type]


def sealed_for(recipient: Device, plaintext: bytes) -> bytes:
    """An outer box; anyone can make one."""
    return seal(recipient.keys.identity.agreement_key, plaintext)


def flips(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """(position, ``data`` with one bit flipped there) for every byte."""
    for at in range(start, len(data) if end is None else end):
        bit = 1 << (at * 5 + 3) % 8
        yield at, data[:at] + bytes((data[at] ^ bit,)) + data[at + 1 :]


def refusal(attempt: Callable[..., object], *arguments: object) -> type[Exception] | None:
    """How ``attempt`` was refused; None if it was not. Any other error passes through."""
    try:
        attempt(*arguments)
    except REFUSALS as refused:
        return type(refused)
    return None


def header_places(header: bytes) -> dict[str, slice]:
    """Where the header's fields are; those of variable length without their length."""
    places = {
        "version": slice(0, 1),
        "flags": slice(1, 2),
        "session id": slice(2, 18),
        "PN": slice(18, 22),
        "N": slice(22, 26),
    }
    at = 26
    for name in ("dh", "kem_pk", "kem_ct"):
        size = int.from_bytes(header[at : at + 4], "big")
        places[name] = slice(at + 4, at + 4 + size)
        at += 4 + size
    assert at == len(header)
    return places


def with_field(header: bytes, name: str, value: bytes) -> bytes:
    """``header`` with another field of the same length."""
    place = header_places(header)[name]
    assert len(value) == place.stop - place.start
    return header[: place.start] + value + header[place.stop :]


def torsioned(agreement_key: bytes) -> bytes:
    """Another X25519 key with the same shared secrets: u -> 1/u adds the point of order 2."""
    prime = 2**255 - 19
    u = int.from_bytes(agreement_key, "little")
    return pow(u, prime - 2, prime).to_bytes(32, "little")
