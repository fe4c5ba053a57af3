"""Whole conversations for the vectors: every envelope with every value that led to it."""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.crypto import literal
from tests.crypto.literal_session import (
    Device,
    LiteralSession,
    Opened,
    PrivatePrekey,
    accept,
    initiate,
    open_envelope,
)

Json = dict[str, Any]
VECTORS = Path(__file__).parent / "vectors"
ENCAPSULATIONS = VECTORS / "encapsulations.json"
DAY_MS = 86_400_000
MADE_MS = 1_760_000_000_000
RELAY_ID = hashlib.sha256(b"the vectors' relay").digest()


class Drawer:
    """Reproducible "randomness": SHAKE-256 of the vector's name and the draw's. Keeps the draws."""

    def __init__(self, name: str) -> None:
        self.name, self.count, self.given = name, 0, dict[str, bytes]()

    def __call__(self, what: str, size: int) -> bytes:
        self.count += 1
        seed = f"saltline vectors: {self.name}: {self.count}: {what}"
        self.given[what] = hashlib.shake_256(seed.encode()).digest(size)
        return self.given[what]


class Recorder:
    """Encapsulations: the library draws their randomness itself, so they come from a file."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.used: dict[str, list[str]] = {}
        if ENCAPSULATIONS.exists():
            self.known = json.loads(ENCAPSULATIONS.read_text())["encapsulations"]
        self.last = (b"", b"")

    def __call__(self, size: int, public: bytes) -> tuple[bytes, bytes]:
        name = f"{size} {hashlib.sha256(public).hexdigest()}"
        if name not in self.known:
            self.known[name] = [part.hex() for part in literal.kem_encapsulate(size, public)]
        self.used[name] = self.known[name]
        self.last = (bytes.fromhex(self.known[name][0]), bytes.fromhex(self.known[name][1]))
        return self.last


def described(values: dict[str, bytes | int]) -> Json:
    return {k: v.hex() if isinstance(v, bytes) else v for k, v in values.items()}


def device_json(device: Device) -> Json:
    return {
        "username": device.name,
        "iks_seed": device.iks_seed.hex(),
        "ikd_secret": device.ikd_secret.hex(),
        "ID": device.ID.hex(),
        "H(ID)": literal.H(device.ID).hex(),
        "sigID": device.sign(literal.identity_payload(device.ID)).hex(),
    }


def prekey_json(prekey: PrivatePrekey) -> Json:
    return {
        "kind": prekey.kind,
        "id": prekey.number,
        "not_after_ms": prekey.not_after,
        "secret": prekey.secret.hex(),
        "key": prekey.key.hex(),
        "signature": prekey.signature.hex(),
    }


@dataclass
class Stage:
    """Alice, Bob, his prekeys and both literal sessions."""

    name: str
    with_one_time: bool
    encapsulate: Recorder

    def __post_init__(self) -> None:
        self.draw = Drawer(self.name)
        self.alice = Device.make(RELAY_ID, "alice", 1, self.draw)
        self.bob = Device.make(RELAY_ID, "bob", 2, self.draw)
        kinds = (1, 2, 4) if self.with_one_time else (1, 3)
        self.prekeys = {
            kind: PrivatePrekey.make(self.bob, kind, 7 + kind, MADE_MS + 45 * DAY_MS, self.draw)
            for kind in kinds
        }
        self.kem = self.prekeys[4 if self.with_one_time else 3]
        self.opk = self.prekeys.get(2)
        self.drawer = Drawer(self.name + " messages")
        self.encapsulation: tuple[bytes, bytes] | None = None
        self.at_alice = self.initiated()
        self.handshake = described(self.at_alice.trace) | {
            "EK secret": self.drawer.given["EK"].hex(),
            "ct": self.encapsulate.last[1].hex(),
            "setup": self.at_alice.setup.hex(),
        }
        self.at_bob: LiteralSession | None = None

    def initiated(self, started_ms: int = MADE_MS + DAY_MS) -> LiteralSession:
        spk = self.prekeys[1]
        return initiate(
            self.alice,
            self.bob.ID,
            (spk.number, spk.key),
            (self.opk.number, self.opk.key) if self.opk else None,
            (self.kem.kind, self.kem.number, self.kem.key),
            started_ms,
            self.drawer,
            self.encapsulate,
        )

    def session(self, sender: str) -> LiteralSession:
        if sender == "alice":
            return self.at_alice
        assert self.at_bob is not None
        return self.at_bob

    def _recorded(self, size: int, public: bytes) -> tuple[bytes, bytes]:
        self.encapsulation = self.encapsulate(size, public)
        return self.encapsulation

    def send(self, sender: str, content: bytes) -> tuple[bytes, Json]:
        """The envelope, and its row in the vector."""
        self.drawer.given, self.encapsulation = {}, None
        session = self.session(sender)
        envelope = session.encrypt(content, self.drawer, self._recorded)
        ss, ct = self.encapsulation or (b"", b"")
        row: Json = {"do": "send", "from": sender, "content": content.hex()}
        row |= {"draws": described(dict(self.drawer.given)), "values": described(session.trace)}
        row |= {"encapsulation": {"ss": ss.hex(), "ct": ct.hex()} if ct else None}
        row |= {"digest": literal.H(envelope).hex(), "envelope": envelope.hex()}
        return envelope, row

    def receive(self, receiver: str, envelope: bytes) -> bytes:
        opened = open_envelope(self.alice if receiver == "alice" else self.bob, envelope)
        if receiver == "alice":
            return self.at_alice.decrypt(opened)
        if self.at_bob is None:
            self.at_bob, content = accept(self.bob, opened, self.prekeys[1], self.kem, self.opk)
            return content
        return self.at_bob.decrypt(opened)

    def header_json(self) -> Json:
        return {
            "relay_id": RELAY_ID.hex(),
            "alice": device_json(self.alice) | {"device": 1},
            "bob": device_json(self.bob) | {"device": 2},
            "bob_prekeys": [prekey_json(prekey) for prekey in self.prekeys.values()],
            "started_ms": MADE_MS + DAY_MS,
            "handshake": self.handshake,
        }


# Sends, and deliveries in brackets of what was sent; a gap is a message on its way.
SCRIPT = """
alice:one alice:two alice:three [one] [three]
bob:four bob:five [five]
alice:six alice:seven [seven] [two]
bob:eight [eight] [four] [six]
alice:nine [nine] bob:ten alice:eleven [eleven] [ten]
"""


def conversation(name: str, with_one_time: bool, encapsulate: Recorder) -> Json:
    stage = Stage(name, with_one_time, encapsulate)
    sent: dict[str, tuple[str, bytes]] = {}
    rows: list[Json] = []
    for word in SCRIPT.split():
        if word.startswith("["):
            text = word.strip("[]")
            sender, envelope = sent.pop(text)
            receiver = "bob" if sender == "alice" else "alice"
            assert stage.receive(receiver, envelope).startswith(text.encode())
            rows.append({"do": "deliver", "to": receiver, "digest": literal.H(envelope).hex()})
        else:
            sender, text = word.split(":")
            long = b" and on" * 200 if text == "nine" else b""
            envelope, row = stage.send(sender, text.encode() + long)
            sent[text] = (sender, envelope)
            rows.append(row)
    assert not sent
    return stage.header_json() | {"rows": rows}


Change = Callable[[Opened], None]


def remade(stage: Stage, envelope: bytes, change: Change) -> bytes:
    """The same envelope for Bob, opened, changed and sealed again."""
    opened = copy.copy(open_envelope(stage.bob, envelope))
    change(opened)
    plaintext = literal.envelope_plaintext(opened.setup, opened.header, opened.com, opened.inner)
    ikd = stage.bob.ID[-32:]
    return literal.seal(ikd, stage.drawer("sealed again", 32), plaintext)
