"""The negative vectors: what Bob must refuse, and with which class of failure."""

import copy
import os

from tests.crypto import literal
from tests.crypto import slow_primitives as slow
from tests.crypto.literal_session import Device, LiteralSession, Opened, open_envelope
from tests.crypto.vector_conversations import (
    DAY_MS,
    MADE_MS,
    RELAY_ID,
    Change,
    Drawer,
    Json,
    Recorder,
    Stage,
    remade,
)

P = 2**255 - 19
# Points of low order, the high bit, and encodings of p and above: docs/protocol.md §2.
REFUSED_U = {
    "u = 0": 0,
    "u = 1": 1,
    "order 8": 325606250916557431795983626356110631294008115727848805560023387167927233504,
    "order 8, the other": (
        39382357235489614581723060781553021112529911719440698176882885853963445705823
    ),
    "u = p - 1": P - 1,
    "u = p": P,
    "u = p + 1": P + 1,
    "u = p + 9": P + 9,
    "u = 2^255 - 1": 2**255 - 1,
    "9 with the high bit": 9 | 1 << 255,
}
REFUSED_KEYS = {name: u.to_bytes(32, "little") for name, u in REFUSED_U.items()}


def at(name: str, offset: int, mask: int = 1) -> Change:
    """Flips bits of one byte of one part."""

    def change(opened: Opened) -> None:
        part = bytearray(getattr(opened, name))
        part[offset] ^= mask
        setattr(opened, name, bytes(part))

    return change


def put(name: str, offset: int, new: bytes) -> Change:
    def change(opened: Opened) -> None:
        part: bytes = getattr(opened, name)
        setattr(opened, name, part[:offset] + new + part[offset + len(new) :])

    return change


def whole(name: str, new: bytes) -> Change:
    return lambda opened: setattr(opened, name, new)


def left_over(name: str) -> Change:
    return lambda opened: setattr(opened, name, getattr(opened, name) + b"\x00")


def setup_cases(stage: Stage, first: bytes) -> dict[str, tuple[str, Change]]:
    """Of a first message, whose setup holds started at 1, lp(ID_A) at 9, EK after it."""
    ek = 9 + 4 + len(stage.alice.ID)
    numbers, ct = ek + 32, ek + 32 + 4 + 4 + 1 + 4 + 4
    cases: dict[str, tuple[str, Change]] = {
        "the envelope's setup is of version 2": ("Malformed", put("setup", 0, b"\x02")),
        "a byte left over in the setup": ("Malformed", left_over("setup")),
        "a byte missing from the setup": (
            "Malformed",
            lambda opened: setattr(opened, "setup", opened.setup[:-1]),
        ),
        "the header is of version 2": ("Malformed", put("header", 0, b"\x02")),
        "a flag is set": ("Malformed", put("header", 1, b"\x01")),
        "a byte left over in the header": ("Malformed", left_over("header")),
        "no setup for an unknown sid": ("CannotAccept", whole("setup", b"")),
        "another started": ("CannotAccept", at("setup", 8)),
        "another EK": (
            "CannotAccept",
            put("setup", ek, slow.x25519_public(literal.H(b"another EK"))),
        ),
        "EK turned by a point of low order": ("CannotAccept", put("setup", ek, torsioned(stage))),
        "another device in ID_A": ("CannotAccept", at("setup", 9 + 4 + 4 + 32 + 4 + 5 + 3, 2)),
        "another IKs in ID_A": ("CannotAccept", at("setup", ek - 64)),
        "another SPK id": ("CannotAccept", at("setup", numbers + 3)),
        "another OPK id": ("CannotAccept", at("setup", numbers + 7)),
        "another KEM id": ("CannotAccept", at("setup", numbers + 12)),
        "the KEM ciphertext tampered": ("CannotAccept", at("setup", ct)),
        "the KEM re-encapsulated": (
            "CannotAccept",
            put("setup", ct, stage.encapsulate(1024, literal.kem_public(1024, bytes(64)))[1]),
        ),
        "another sid": ("CannotAccept", at("header", 2)),
        "the commitment tampered": ("BadCommitment", at("com", 31)),
        "the commitment of zeros": ("BadCommitment", whole("com", bytes(32))),
        "the header's N tampered": ("BadCommitment", at("header", 2 + 16 + 4 + 3)),
        "the ratchet key tampered": ("BadCommitment", at("header", 2 + 16 + 8 + 4 + 5)),
        "PN in a first chain": ("CannotDecrypt", at("header", 2 + 16 + 3)),
        "the box's tag tampered": ("CannotDecrypt", at("inner", 24)),
        "the box's ciphertext tampered": ("CannotDecrypt", at("inner", 300)),
        "the box's nonce tampered": ("CannotDecrypt", at("inner", 0)),
        "N more than 1,000 ahead": ("TooFarAhead", put("header", 22, literal.u32(1001))),
    }
    for name, key in REFUSED_KEYS.items():
        cases[f"IKd in ID_A: {name}"] = ("RefusedKey", put("setup", ek - 32, key))
        cases[f"EK: {name}"] = ("RefusedKey", put("setup", ek, key))
        cases[f"ratchet key: {name}"] = ("CannotDecrypt", put("header", 2 + 16 + 8 + 4, key))
    return cases


def torsioned(stage: Stage) -> bytes:
    """EK + a point of order 2, (0, 0): u becomes 1/u. It clamps to the same Diffie-Hellman."""
    ek = bytes.fromhex(stage.handshake["setup"])[13 + len(stage.alice.ID) :][:32]
    inverse = pow(int.from_bytes(ek, "little"), P - 2, P)
    return inverse.to_bytes(32, "little")


def patch(opened: Opened, change: Change) -> Json:
    """The one stretch of one part that a change replaces."""
    changed = copy.copy(opened)
    change(changed)
    for part in ("setup", "header", "com", "inner"):
        old, new = getattr(opened, part), getattr(changed, part)
        if old != new:
            start = len(os.path.commonprefix([old, new]))
            end = len(os.path.commonprefix([old[start:][::-1], new[start:][::-1]]))
            removed, inserted = old[start : len(old) - end], new[start : len(new) - end]
            return {"part": part, "offset": start, "removed": len(removed)} | {
                "inserted": inserted.hex()
            }
    raise AssertionError("the change changes nothing")


def one(name: str, source: str, expected: str, before: list[bytes], refused: bytes) -> Json:
    return {
        "name": name,
        "source": source,
        "expected": expected,
        "accepted_before": [envelope.hex() for envelope in before],
        "refused": refused.hex(),
    }


def first_messages(encapsulate: Recorder) -> Json:
    stage = Stage("refusals of a first message", True, encapsulate)
    first, _ = stage.send("alice", b"a first message")
    opened = open_envelope(stage.bob, first)
    patched = [
        {"name": name, "source": "docs/protocol.md §2-§4", "expected": expected}
        | patch(opened, change)
        for name, (expected, change) in setup_cases(stage, first).items()
    ]
    cases: list[Json] = []
    ikd = stage.bob.ID[-32:]
    plain = literal.envelope_plaintext(opened.setup, opened.header, opened.com, opened.inner)
    other = Device.make(RELAY_ID, "mallory", 1, stage.draw)
    seals = {
        "the envelope is of version 2": ("Malformed", ikd, b"\x02" + plain[1:]),
        "an envelope cut short": ("Malformed", ikd, plain[:60]),
        "sealed to another device": ("CannotOpen", other.ID[-32:], plain),
    }
    for name, (expected, key, plaintext) in seals.items():
        envelope = literal.seal(key, stage.drawer("seal", 32), plaintext)
        cases.append(one(name, "docs/protocol.md §4", expected, [], envelope))
    flipped = first[:40] + bytes([first[40] ^ 1]) + first[41:]
    cases.append(one("the outer box tampered", "docs/protocol.md §4", "CannotOpen", [], flipped))
    return stage.header_json() | {"valid": first.hex(), "patched": patched, "cases": cases}


def later_messages(encapsulate: Recorder) -> Json:
    """Bob has accepted Alice's first chain and has not answered: turn = yes at Bob's."""
    stage = Stage("refusals of a later message", True, encapsulate)
    first, _ = stage.send("alice", b"one")
    second, _ = stage.send("alice", b"two")
    third, _ = stage.send("alice", b"three")
    before = [first, third]
    for envelope in before:
        stage.receive("bob", envelope)
    unpadded = again(stage, stage.at_alice, bytes(400))
    cases = [
        one("a consumed message", "docs/protocol.md §4", "Consumed", before, first),
        one("a consumed skipped message", "docs/protocol.md §4", "Consumed", [*before, second],
            second),
        one("padding without its mark", "docs/protocol.md §4", "CannotDecrypt", before, unpadded),
    ]  # fmt: skip
    forward, _ = stage.send("alice", b"four")
    far = remade(stage, forward, put("header", 22, literal.u32(3 + 1001)))
    cases.append(one("1,001 keys to skip", "docs/protocol.md §4", "TooFarAhead", before, far))
    stage.at_alice.turn, stage.at_alice.theirs = True, (stage.prekeys[1].key, b"")
    hasty, _ = stage.send("alice", b"a second chain without an answer")
    cases.append(one("a chain out of turn", "docs/protocol.md §4", "NotYetAllowed", before, hasty))
    return stage.header_json() | {"valid": second.hex(), "cases": cases}


def again(stage: Stage, session: LiteralSession, padded: bytes) -> bytes:
    """Alice's next message with `padded` in the box as it stands."""
    dh, kem_pk, kem_ct = session.own
    header = literal.header(session.sid, session.PN, session.Ns, dh, kem_pk, kem_ct)
    k, com = literal.box_key(literal.message_key(session.CKs), session.AD, header)
    inner = slow.secretbox(k, stage.drawer("nonce", 24), padded)
    plaintext = literal.envelope_plaintext(session.setup, header, com, inner)
    return literal.seal(session.peer_ikd, stage.drawer("seal", 32), plaintext)


def prekeys(encapsulate: Recorder) -> Json:
    """Prekeys that a bundle must not hold, checked at MADE_MS + 1 day."""
    stage = Stage("refusals of a prekey", True, encapsulate)
    bob, spk, kem = stage.bob, stage.prekeys[1], stage.prekeys[4]
    cases: list[Json] = []

    def case(name: str, kind: int, number: int, not_after: int, key: bytes, sig: bytes) -> None:
        fields: Json = {"kind": kind, "id": number, "not_after_ms": not_after, "key": key.hex()}
        cases.append(
            {"name": name, "source": "docs/protocol.md §2", "expected": "BadBundle"}
            | fields
            | {"signature": sig.hex()}
        )

    def signed(kind: int, number: int, not_after: int, key: bytes) -> bytes:
        return bob.sign(literal.prekey_payload(kind, number, not_after, bob.ID, key))

    soon, late = MADE_MS + 40 * DAY_MS, MADE_MS + DAY_MS
    case("expired", 1, 8, late - 1, spk.key, signed(1, 8, late - 1, spk.key))
    case("too far ahead", 1, 8, MADE_MS + 50 * DAY_MS, spk.key,
         signed(1, 8, MADE_MS + 50 * DAY_MS, spk.key))  # fmt: skip
    case("id 0", 1, 0, soon, spk.key, signed(1, 0, soon, spk.key))
    case("a KEM key of ML-KEM-768's size", 4, 8, soon, kem.key[:1184],
         signed(4, 8, soon, kem.key[:1184]))  # fmt: skip
    case("an X25519 key cut short", 1, 8, soon, spk.key[:31], signed(1, 8, soon, spk.key[:31]))
    case("signed as another kind", 1, 8, soon, spk.key, signed(2, 8, soon, spk.key))
    case("signed with another id", 1, 8, soon, spk.key, signed(1, 9, soon, spk.key))
    case("signed with another date", 1, 8, soon, spk.key, signed(1, 8, soon + 1, spk.key))
    foreign = literal.prekey_payload(1, 8, soon, stage.alice.ID, spk.key)
    case("signed for another ID", 1, 8, soon, spk.key, bob.sign(foreign))
    payload = literal.prekey_payload(1, 8, soon, bob.ID, spk.key)
    case("signed by another", 1, 8, soon, spk.key, stage.alice.sign(payload))
    for name, key in REFUSED_KEYS.items():
        case(name, 1, 8, soon, key, signed(1, 8, soon, key))
    return {"identity": bob.ID.hex(), "now_ms": late, "cases": cases}


def _entry(
    before: list[bytes],
    op: int,
    device: Device,
    signer: int,
    seed: bytes,
    n: int | None = None,
    prev: bytes | None = None,
    sigID: bytes | None = None,
) -> bytes:
    """An entry after `before`; what is given replaces what would be right."""
    unsigned = literal.entry_unsigned(
        op,
        device.name,
        len(before) if n is None else n,
        (literal.H(before[-1]) if before else bytes(32)) if prev is None else prev,
        MADE_MS,
        device.ID,
        sigID or device.sign(literal.identity_payload(device.ID)),
        signer,
    )
    return unsigned + slow.ed25519_sign(seed, unsigned)


def entries() -> Json:
    """Histories of one name whose last entry the log's rules do not allow."""
    draw = Drawer("refusals of an entry")
    log_seed = draw("log key", 32)
    log_public = slow.ed25519_public(log_seed)
    relay = literal.H(log_public)
    one, two, three = (Device.make(relay, "ada", n, draw) for n in (1, 2, 3))
    again = Device.make(relay, "ada", 2, draw)
    abroad = Device.make(literal.H(b"another relay"), "ada", 2, draw)
    bob = Device.make(relay, "bob", 2, draw)
    create, add, revoke, reset = 1, 2, 3, 4

    entry = _entry
    by_one, by_two, by_log = one.iks_seed, two.iks_seed, log_seed
    new = [entry([], create, one, 1, by_one)]
    pair = [*new, entry(new, add, two, 1, by_one)]
    left = [*pair, entry(pair, revoke, two, 1, by_one)]
    closed = [*new, entry(new, revoke, one, 1, by_one)]
    begun = [*new, entry(new, reset, two, 0, by_log)]
    valid = {"new": new, "pair": pair, "left": left, "closed": closed, "begun": begun}
    good = pair[1]
    refused: dict[str, list[bytes]] = {
        "begins with add-device": [entry([], add, one, 1, by_one)],
        "begins at 1": [entry([], create, one, 1, by_one, n=1)],
        "begins after something": [entry([], create, one, 1, by_one, prev=literal.H(b""))],
        "created by the log key": [entry([], create, one, 0, by_log)],
        "created by another key": [entry([], create, one, 1, by_two)],
        "created with another's sigID": [
            entry([], create, one, 1, by_one, sigID=two.sign(literal.identity_payload(one.ID)))
        ],
        "created twice": [*new, entry(new, create, two, 2, by_two)],
        "a number left out": [*new, entry(new, add, two, 1, by_one, n=2)],
        "a number again": [*new, entry(new, add, two, 1, by_one, n=0)],
        "another past": [*new, entry(new, add, two, 1, by_one, prev=bytes(32))],
        "added by itself": [*new, entry(new, add, two, 2, by_two)],
        "added by the log key": [*new, entry(new, add, two, 0, by_log)],
        "added by a device that is not live": [*left, entry(left, add, three, 2, by_two)],
        "a revoked device's number": [*left, entry(left, add, again, 1, by_one)],
        "a live device's number": [*pair, entry(pair, add, again, 1, by_one)],
        "signature tampered": [*new, good[:-1] + bytes([good[-1] ^ 1])],
        "signed by another device's key": [*pair, entry(pair, add, three, 1, by_two)],
        "an identity of another relay": [*new, entry(new, add, abroad, 1, by_one)],
        "an entry of another name": [*new, entry(new, add, bob, 1, by_one)],
        "revoked twice": [*left, entry(left, revoke, two, 1, by_one)],
        "revoked with other keys": [*pair, entry(pair, revoke, again, 1, by_one)],
        "reset by a device": [*pair, entry(pair, reset, three, 1, by_one)],
        "reset to a live device": [*pair, entry(pair, reset, two, 0, by_log)],
        "signed by a device older than the reset": [*begun, entry(begun, add, three, 1, by_one)],
        "after the last revoke": [*closed, entry(closed, add, two, 1, by_one)],
        "a reset after the last revoke": [*closed, entry(closed, reset, two, 0, by_log)],
    }
    return {
        "log_public": log_public.hex(),
        "valid": {name: [each.hex() for each in history] for name, history in valid.items()},
        "cases": [
            {"name": name, "source": "docs/protocol.md §7", "expected": "BadEntry"}
            | {"entries": [each.hex() for each in history]}
            for name, history in refused.items()
        ],
    }
