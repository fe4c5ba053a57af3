"""The two state machines of docs/protocol.md §3 and §4 over the formulas in `literal`.

One peer of a conversation, without limits, ages or storage: what the specification computes and
in which order. It speaks with saltline.crypto in the tests and writes the pinned vectors.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.crypto import literal
from tests.crypto import slow_primitives as slow

Draw = Callable[[str, int], bytes]  # (what for, size in bytes) -> bytes
Encapsulate = Callable[[int, bytes], tuple[bytes, bytes]]  # (768 or 1024, key) -> (ss, ct)


class Refused(Exception):
    """The specification refuses this message; the argument is its class of failure."""


@dataclass(frozen=True)
class Device:
    """A device's identity key halves and its ID."""

    name: str
    iks_seed: bytes
    ikd_secret: bytes
    ID: bytes

    @classmethod
    def make(cls, relay_id: bytes, name: str, device: int, draw: Draw) -> "Device":
        seed, secret = draw(f"{name} IKs", 32), draw(f"{name} IKd", 32)
        iks, ikd = slow.ed25519_public(seed), slow.x25519_public(secret)
        return cls(name, seed, secret, literal.identity(relay_id, name, device, iks, ikd))

    def sign(self, payload: bytes) -> bytes:
        return slow.ed25519_sign(self.iks_seed, payload)


@dataclass(frozen=True)
class PrivatePrekey:
    """kind 1 and 2: X25519; 3 and 4: ML-KEM-1024, the secret being its 64-byte seed."""

    kind: int
    number: int
    not_after: int
    secret: bytes
    key: bytes
    signature: bytes

    @classmethod
    def make(
        cls, device: Device, kind: int, number: int, not_after: int, draw: Draw
    ) -> "PrivatePrekey":
        what = f"{device.name} prekey {kind}.{number}"
        if kind in (1, 2):
            secret = draw(what, 32)
            key = slow.x25519_public(secret)
        else:
            secret = draw(what, 64)
            key = literal.kem_public(1024, secret)
        payload = literal.prekey_payload(kind, number, not_after, device.ID, key)
        return cls(kind, number, not_after, secret, key, device.sign(payload))


@dataclass
class Opened:
    """What an envelope holds."""

    setup: bytes
    header: bytes
    com: bytes
    inner: bytes


class Cursor:
    """Takes bytes off the front."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if size > len(self.data):
            raise Refused("Malformed")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def lp(self) -> bytes:
        return self.take(self.number(4))


def open_envelope(device: Device, envelope: bytes) -> Opened:
    cursor = Cursor(slow.open_sealed_box(device.ikd_secret, envelope))
    if cursor.number(1) != 1:
        raise Refused("Malformed")
    return Opened(cursor.lp(), cursor.lp(), cursor.take(32), cursor.data)


@dataclass
class LiteralSession:
    """One side's ratchet. `trace` keeps every value that the last operation computed."""

    AD: bytes
    sid: bytes
    RK: bytes
    peer_ikd: bytes
    turn: bool
    theirs: tuple[bytes, bytes]  # dh, kem_pk
    ours: tuple[bytes, bytes]  # X25519 secret, ML-KEM-768 seed
    setup: bytes = b""  # repeated until something of the peer's opens
    own: tuple[bytes, bytes, bytes] = (b"", b"", b"")  # dh, kem_pk, kem_ct of the sending chain
    CKs: bytes = b""
    Ns: int = 0
    PN: int = 0
    receiving: bytes = b""  # chain_id
    CKr: bytes = b""
    Nr: int = 0
    skipped: dict[tuple[bytes, int], bytes] = field(default_factory=dict)
    past: list[bytes] = field(default_factory=list)
    trace: dict[str, bytes | int] = field(default_factory=dict)

    def encrypt(self, content: bytes, draw: Draw, encapsulate: Encapsulate) -> bytes:
        self.trace = {}
        if self.turn:
            self._begin_chain(draw, encapsulate)
        dh, kem_pk, kem_ct = self.own
        header = literal.header(self.sid, self.PN, self.Ns, dh, kem_pk, kem_ct)
        mk = literal.message_key(self.CKs)
        self.CKs, self.Ns = literal.next_chain_key(self.CKs), self.Ns + 1
        k, com = literal.box_key(mk, self.AD, header)
        padded = literal.pad(content, self.setup, header)
        nonce = draw("nonce", 24)
        inner = slow.secretbox(k, nonce, padded)
        plaintext = literal.envelope_plaintext(self.setup, header, com, inner)
        self.trace |= {"header": header, "mk": mk, "k": k, "com": com, "nonce": nonce}
        self.trace |= {"plaintext_size": len(plaintext)}
        return literal.seal(self.peer_ikd, draw("sealed box", 32), plaintext)

    def _begin_chain(self, draw: Draw, encapsulate: Encapsulate) -> None:
        their_dh, their_kem = self.theirs
        self.ours = (draw("ratchet X25519", 32), draw("ratchet ML-KEM-768", 64))
        ss, kem_ct = encapsulate(768, their_kem) if their_kem else (b"", b"")
        dh, kem_pk = slow.x25519_public(self.ours[0]), literal.kem_public(768, self.ours[1])
        self.own = (dh, kem_pk, kem_ct)
        self.PN, self.Ns = self.Ns, 0
        chain = literal.chain_id(*self.own)
        dh_output = literal.DH(self.ours[0], their_dh)
        self.trace |= {"RK": self.RK, "DH": dh_output, "ss": ss, "chain_id": chain}
        self.RK, self.CKs = literal.root_step(self.RK, dh_output, ss, chain)
        self.trace |= {"RK'": self.RK, "CK": self.CKs}
        self.turn = False

    def decrypt(self, opened: Opened) -> bytes:
        """On the live state: a caller that expects a refusal copies it first."""
        cursor = Cursor(opened.header)
        if cursor.number(1) != 1 or cursor.number(1) != 0:
            raise Refused("Malformed")
        if cursor.take(16) != self.sid:
            raise Refused("CannotDecrypt")
        PN, N = cursor.number(4), cursor.number(4)
        dh, kem_pk, kem_ct = cursor.lp(), cursor.lp(), cursor.lp()
        if cursor.data:
            raise Refused("Malformed")
        chain = literal.chain_id(dh, kem_pk, kem_ct)
        if (chain, N) in self.skipped:
            mk = self.skipped.pop((chain, N))
        else:
            if chain in self.past or (chain == self.receiving and N < self.Nr):
                raise Refused("Consumed")
            if chain != self.receiving:
                self._follow_chain(chain, PN, dh, kem_pk, kem_ct)
            self._skip_to(N)
            mk = literal.message_key(self.CKr)
            self.CKr, self.Nr = literal.next_chain_key(self.CKr), self.Nr + 1
        k, com = literal.box_key(mk, self.AD, opened.header)
        if com != opened.com:
            raise Refused("BadCommitment")
        padded = slow.open_secretbox(k, opened.inner)
        self.setup = b""
        content, mark, zeros = padded.rpartition(b"\x80")
        if not mark or zeros.strip(b"\x00"):
            raise Refused("Malformed")
        return content

    def _follow_chain(self, chain: bytes, PN: int, dh: bytes, kem_pk: bytes, kem_ct: bytes) -> None:
        own_seed = self.ours[1]
        if self.turn:
            raise Refused("NotYetAllowed")
        if len(kem_pk) != 1184 or len(kem_ct) != (1088 if own_seed else 0):
            raise Refused("CannotDecrypt")
        if PN < self.Nr:
            raise Refused("CannotDecrypt")
        if self.receiving:
            self._skip_to(PN)
            self.past.append(self.receiving)
        elif PN:
            raise Refused("CannotDecrypt")
        ss = literal.kem_decapsulate(768, own_seed, kem_ct) if own_seed else b""
        self.RK, self.CKr = literal.root_step(self.RK, literal.DH(self.ours[0], dh), ss, chain)
        self.theirs, self.ours, self.turn = (dh, kem_pk), (b"", b""), True
        self.receiving, self.Nr = chain, 0

    def _skip_to(self, N: int) -> None:
        while self.Nr < N:
            self.skipped[self.receiving, self.Nr] = literal.message_key(self.CKr)
            self.CKr, self.Nr = literal.next_chain_key(self.CKr), self.Nr + 1


def initiate(
    alice: Device,
    ID_B: bytes,
    SPK: tuple[int, bytes],
    OPK: tuple[int, bytes] | None,
    kem: tuple[int, int, bytes],
    started: int,
    draw: Draw,
    encapsulate: Encapsulate,
) -> LiteralSession:
    """Alice's half of §3. SPK and OPK are (id, key); the KEM prekey is (kind, id, key)."""
    secret = draw("EK", 32)
    ss, ct = encapsulate(1024, kem[2])
    setup = literal.setup(
        started, alice.ID, slow.x25519_public(secret), SPK[0], OPK[0] if OPK else 0, *kem[:2], ct
    )
    dhs = [
        literal.DH(alice.ikd_secret, SPK[1]),
        literal.DH(secret, ID_B[-32:]),
        literal.DH(secret, SPK[1]),
    ] + ([literal.DH(secret, OPK[1])] if OPK else [])
    AD = literal.associated_data(alice.ID, ID_B)
    th = literal.transcript(AD, setup, SPK[1], OPK[1] if OPK else b"", kem[2])
    SK = literal.shared_key(dhs, ss, th)
    session = LiteralSession(
        AD, literal.session_id(th), SK, ID_B[-32:], True, (SPK[1], b""), (b"", b""), setup
    )
    session.trace = {"AD": AD, "th": th, "SK": SK, "ss": ss, "sid": session.sid}
    session.trace |= {f"DH{i}": dh for i, dh in enumerate(dhs, 1)}
    return session


def accept(
    bob: Device,
    opened: Opened,
    spk: PrivatePrekey,
    kem: PrivatePrekey,
    opk: PrivatePrekey | None,
) -> tuple[LiteralSession, bytes]:
    """Bob's half of §3: the session and the first content."""
    cursor = Cursor(opened.setup)
    if cursor.number(1) != 1:
        raise Refused("Malformed")
    cursor.take(8)
    ID_A, EK = cursor.lp(), cursor.take(32)
    numbers = cursor.number(4), cursor.number(4), cursor.number(1), cursor.number(4)
    ct = cursor.lp()
    if cursor.data:
        raise Refused("Malformed")
    if numbers != (spk.number, opk.number if opk else 0, kem.kind, kem.number):
        raise Refused("CannotDecrypt")
    dhs = [
        literal.DH(spk.secret, ID_A[-32:]),
        literal.DH(bob.ikd_secret, EK),
        literal.DH(spk.secret, EK),
    ] + ([literal.DH(opk.secret, EK)] if opk else [])
    AD = literal.associated_data(ID_A, bob.ID)
    th = literal.transcript(AD, opened.setup, spk.key, opk.key if opk else b"", kem.key)
    ss = literal.kem_decapsulate(1024, kem.secret, ct)
    SK = literal.shared_key(dhs, ss, th)
    session = LiteralSession(
        AD, literal.session_id(th), SK, ID_A[-32:], False, (b"", b""), (spk.secret, b"")
    )
    return session, session.decrypt(opened)
