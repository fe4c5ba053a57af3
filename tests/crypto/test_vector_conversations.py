"""Whole conversations and refused messages against the pinned vectors (docs/protocol.md §3, §4).

Both sides run saltline.crypto with the draws of the vector: every envelope has to come out byte
for byte, and every refused one has to fail with its class and leave the state as it was.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from saltline.crypto import encoding, primitives
from saltline.crypto import session as sessions
from saltline.crypto.bundles import Bundle, Prekey, PrekeyKind
from saltline.crypto.envelope import open_envelope
from saltline.crypto.keys import IdentityKeys, PrekeyPair
from saltline.crypto.session import Session
from tests.crypto import literal_session
from tests.crypto import slow_primitives as slow
from tests.crypto.literal import envelope_plaintext
from tests.crypto.vector_files import read

unhex = bytes.fromhex
Json = dict[str, Any]
FAILURES: dict[str, type[Exception]] = {
    "Malformed": encoding.Malformed,
    "RefusedKey": primitives.RefusedKey,
    "CannotOpen": primitives.CannotOpen,
    "CannotAccept": sessions.CannotAccept,
    "CannotDecrypt": sessions.CannotDecrypt,
    "BadCommitment": sessions.BadCommitment,
    "Consumed": sessions.Consumed,
    "TooFarAhead": sessions.TooFarAhead,
    "NotYetAllowed": sessions.NotYetAllowed,
}


def keys_of(device: Json, relay_id: str) -> IdentityKeys:
    draws = [unhex(device["iks_seed"]), unhex(device["ikd_secret"])]
    keys = IdentityKeys.generate(
        unhex(relay_id), device["username"], device["device"], lambda size: draws.pop(0)
    )
    assert keys.identity.encode().hex() == device["ID"]
    return keys


class Bob:
    """The responder of a vector: his keys, prekeys and, once accepted, his session."""

    def __init__(self, vector: Json) -> None:
        self.keys = keys_of(vector["bob"], vector["relay_id"])
        self.now_ms: int = vector["started_ms"]
        self.prekeys: dict[tuple[int, int], PrekeyPair] = {}
        for fields in vector["bob_prekeys"]:
            public = Prekey(
                PrekeyKind(fields["kind"]),
                fields["id"],
                fields["not_after_ms"],
                unhex(fields["key"]),
                unhex(fields["signature"]),
            )
            self.prekeys[fields["kind"], fields["id"]] = PrekeyPair(public, unhex(fields["secret"]))
        self.session: Session | None = None

    def of_kind(self, *kinds: int) -> PrekeyPair | None:
        found = [pair for (kind, _), pair in self.prekeys.items() if kind in kinds]
        return found[0] if found else None

    def bundle(self) -> Bundle:
        signed, kem, one_time = self.of_kind(1), self.of_kind(3, 4), self.of_kind(2)
        assert signed and kem
        return Bundle(
            self.keys.identity,
            self.keys.identity_signature,
            signed.public,
            kem.public,
            one_time.public if one_time else None,
        )

    def receive(self, envelope: bytes) -> bytes:
        opened = open_envelope(self.keys, envelope)
        if self.session is not None and self.session.id == opened.session_id:
            self.session, content = self.session.decrypt(opened, self.now_ms)
            return content
        signed, kem = self.of_kind(1), self.of_kind(3, 4)
        assert signed and kem
        session, content = Session.accept(
            self.keys, opened, signed, kem, self.of_kind(2), self.now_ms
        )
        self.session = session
        return content


def drawing(row: Json) -> tuple[Callable[[int], bytes], AbstractContextManager[None]]:
    """The vector's randomness: by size for what is passed in, substituted for what is not."""
    sizes = {"ratchet X25519": 32, "ratchet ML-KEM-768": 64, "nonce": 24}
    draws = {size: unhex(row["draws"][x]) for x, size in sizes.items() if x in row["draws"]}
    kem = row["encapsulation"]

    def encapsulate(size: primitives.Kem, public: bytes) -> tuple[bytes, bytes]:
        return unhex(kem["ss"]), unhex(kem["ct"])

    def seal(public: bytes, plaintext: bytes) -> bytes:
        return slow.sealed_box(public, unhex(row["draws"]["sealed box"]), plaintext)

    return draws.__getitem__, primitives.substituted(encapsulate=encapsulate, seal=seal)


def initiated(vector: Json, bob: Bob) -> Session:
    handshake = vector["handshake"]
    kem = unhex(handshake["ss"]), unhex(handshake["ct"])
    with primitives.substituted(encapsulate=lambda size, public: kem):
        return Session.initiate(
            keys_of(vector["alice"], vector["relay_id"]),
            bob.bundle(),
            vector["started_ms"],
            vector["started_ms"],
            lambda size: unhex(handshake["EK secret"]),
        )


@pytest.mark.parametrize("name", ["conversation_one_time", "conversation_last_resort"])
def test_a_conversation_byte_for_byte(name: str) -> None:
    vector = read(name)
    alice_keys, bob = keys_of(vector["alice"], vector["relay_id"]), Bob(vector)
    alice = initiated(vector, bob)
    assert alice.id.hex() == vector["handshake"]["sid"]
    sent: dict[str, Json] = {}
    delivered = 0
    for row in vector["rows"]:
        if row["do"] == "send":
            sent[row["digest"]] = row
            random, substituted = drawing(row)
            with substituted:
                if row["from"] == "alice":
                    alice, envelope = alice.encrypt(unhex(row["content"]), random)
                else:
                    assert bob.session is not None
                    bob.session, envelope = bob.session.encrypt(unhex(row["content"]), random)
            assert envelope.hex() == row["envelope"]
            root = row["values"].get("RK'")  # of a message that begins a chain
            sender = alice if row["from"] == "alice" else bob.session
            assert sender and root in (None, sender.ratchet.turn.root.hex())
            continue
        envelope = unhex(sent[row["digest"]]["envelope"])
        if row["to"] == "bob":
            content = bob.receive(envelope)
        else:
            opened = open_envelope(alice_keys, envelope)
            assert opened.digest.hex() == row["digest"]
            alice, content = alice.decrypt(opened, vector["started_ms"])
        assert content.hex() == sent[row["digest"]]["content"]
        delivered += 1
    assert delivered == len(sent) == 11


def refusals() -> list[Any]:
    """Each as (vector, case): under "cases" whole, under "patched" as a change of the valid one."""
    return [
        pytest.param(name, case, id=case["name"])
        for name in ("refused_first_messages", "refused_later_messages")
        for case in (*read(name)["cases"], *read(name).get("patched", ()))
    ]


def refused_envelope(vector: Json, case: Json) -> bytes:
    """As the vector has it; or the valid one, opened, changed and sealed again."""
    if "refused" in case:
        return unhex(case["refused"])
    device = vector["bob"]
    bob = literal_session.Device(
        "bob", unhex(device["iks_seed"]), unhex(device["ikd_secret"]), unhex(device["ID"])
    )
    opened = literal_session.open_envelope(bob, unhex(vector["valid"]))
    part, at = getattr(opened, case["part"]), case["offset"]
    changed = part[:at] + unhex(case["inserted"]) + part[at + case["removed"] :]
    setattr(opened, case["part"], changed)
    plaintext = envelope_plaintext(opened.setup, opened.header, opened.com, opened.inner)
    return slow.sealed_box(bob.ID[-32:], bytes(range(32)), plaintext)


@pytest.mark.parametrize(("name", "case"), refusals())
def test_refused_messages(name: str, case: Json) -> None:
    vector = read(name)
    refused = refused_envelope(vector, case)
    bob = Bob(vector)
    for envelope in case.get("accepted_before", ()):
        bob.receive(unhex(envelope))
    before = bob.session.to_bytes() if bob.session else None
    with pytest.raises(FAILURES[case["expected"]]):
        bob.receive(refused)
    assert (bob.session.to_bytes() if bob.session else None) == before
    if case["expected"] != "Consumed":
        bob.receive(unhex(vector["valid"]))  # what was meant to arrive still does
