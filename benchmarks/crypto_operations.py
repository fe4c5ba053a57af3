"""What the cryptography of one message costs, beside two peers in the same run.

    python -m benchmarks.crypto_operations [--rounds 5] [--messages 400]

Peers: vodozemac (Olm in Rust, through its Python package) and Syndace's DoubleRatchet (Python).
Neither seals the sender away, pads, nor mixes in ML-KEM: the table says what each row holds, so the
ratios are a price list and not a race. Figures are medians; compare ratios, not machines.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version

from saltline.crypto.bundles import Bundle, PrekeyKind
from saltline.crypto.envelope import open_envelope
from saltline.crypto.keys import IdentityKeys, PrekeyPair, generate_prekey
from saltline.crypto.primitives import system_random
from saltline.crypto.session import Session

NOW_MS = 1_790_000_000_000
TEXT = b"great, sending the log".ljust(200)


class Saltline:
    """Set-up and messages of Saltline, sealed and padded as they leave."""

    name = "saltline: PQXDH, ML-KEM every turn, padded, sender sealed"

    def __init__(self) -> None:
        self.alice = IdentityKeys.generate(bytes(32), "alice", 1, system_random)
        self.bob = IdentityKeys.generate(bytes(32), "bob", 1, system_random)
        self.signed = self._prekey(PrekeyKind.SIGNED)
        self.one_time = self._prekey(PrekeyKind.ONE_TIME)
        self.kem = self._prekey(PrekeyKind.ONE_TIME_KEM)

    def _prekey(self, kind: PrekeyKind) -> PrekeyPair:
        return generate_prekey(self.bob, kind, 1, NOW_MS, system_random)

    def setup(self) -> None:
        """Bundle checked, session made, first message out; accepted and read."""
        bundle = Bundle(
            self.bob.identity,
            self.bob.identity_signature,
            self.signed.public,
            self.kem.public,
            self.one_time.public,
        )
        session = Session.initiate(self.alice, bundle, NOW_MS, NOW_MS, system_random)
        self.ours, first = session.encrypt(TEXT, system_random)
        opened = open_envelope(self.bob, first)
        self.theirs, text = Session.accept(
            self.bob, opened, self.signed, self.kem, self.one_time, NOW_MS
        )
        assert text == TEXT

    def send(self) -> bytes:
        self.ours, envelope = self.ours.encrypt(TEXT, system_random)
        return envelope

    def receive(self, envelope: bytes) -> None:
        self.theirs, text = self.theirs.decrypt(open_envelope(self.bob, envelope), NOW_MS)
        assert text == TEXT

    def turn(self) -> None:
        """One message back, so that both have new ratchet keys."""
        self.theirs, envelope = self.theirs.encrypt(TEXT, system_random)
        self.ours, _ = self.ours.decrypt(open_envelope(self.alice, envelope), NOW_MS)
        self.receive(self.send())


class Vodozemac:
    """Olm: 3DH, Double Ratchet, AES-CBC with a shortened HMAC."""

    name = "vodozemac (Rust): 3DH, Olm ratchet"

    def __init__(self) -> None:
        import vodozemac

        self.types = vodozemac
        self.alice, self.bob = vodozemac.Account(), vodozemac.Account()

    def setup(self) -> None:
        self.bob.generate_one_time_keys(1)
        key = next(iter(self.bob.one_time_keys.values()))
        self.bob.mark_keys_as_published()
        self.ours = self.alice.create_outbound_session(self.bob.curve25519_key, key)
        first = self.ours.encrypt(TEXT).to_pre_key()
        self.theirs, text = self.bob.create_inbound_session(self.alice.curve25519_key, first)
        assert text == TEXT
        self.ours.decrypt(self.theirs.encrypt(TEXT))

    def send(self) -> object:
        return self.ours.encrypt(TEXT)

    def receive(self, message: object) -> None:
        assert self.theirs.decrypt(message) == TEXT

    def turn(self) -> None:
        self.ours.decrypt(self.theirs.encrypt(TEXT))
        self.receive(self.send())


class Syndace:
    """The Double Ratchet alone, with its recommended parts; its set-up is another package."""

    name = "DoubleRatchet (Python): Double Ratchet, AES-CBC and HMAC"

    def __init__(self) -> None:
        from doubleratchet import DoubleRatchet as Base
        from doubleratchet.recommended import (
            HashFunction,
            aead_aes_hmac,
            diffie_hellman_ratchet_curve25519,
            kdf_hkdf,
            kdf_separate_hmacs,
        )

        class Aead(aead_aes_hmac.AEAD):
            @staticmethod
            def _get_hash_function() -> HashFunction:
                return HashFunction.SHA_256

            @staticmethod
            def _get_info() -> bytes:
                return b"message"

        class Root(kdf_hkdf.KDF):
            @staticmethod
            def _get_hash_function() -> HashFunction:
                return HashFunction.SHA_256

            @staticmethod
            def _get_info() -> bytes:
                return b"root"

        class Chain(kdf_separate_hmacs.KDF):
            @staticmethod
            def _get_hash_function() -> HashFunction:
                return HashFunction.SHA_256

        class Ratchet(Base):
            @staticmethod
            def _build_associated_data(associated_data: bytes, header: object) -> bytes:
                return associated_data + header.ratchet_pub

        self.ratchet = Ratchet
        self.parts = {
            "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
            "root_chain_kdf": Root,
            "message_chain_kdf": Chain,
            "message_chain_constant": b"\x01\x02",
            "dos_protection_threshold": 1000,
            "max_num_skipped_message_keys": 2000,
            "aead": Aead,
        }
        self.loop = asyncio.new_event_loop()

    def setup(self) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        private = X25519PrivateKey.generate()
        secret = system_random(32)

        async def make() -> None:
            self.ours, first = await self.ratchet.encrypt_initial_message(
                **self.parts,
                shared_secret=secret,
                recipient_ratchet_pub=private.public_key().public_bytes_raw(),
                message=TEXT,
                associated_data=b"ad",
            )
            self.theirs, text = await self.ratchet.decrypt_initial_message(
                **self.parts,
                shared_secret=secret,
                own_ratchet_priv=private.private_bytes_raw(),
                message=first,
                associated_data=b"ad",
            )
            assert text == TEXT

        self.loop.run_until_complete(make())

    def send(self) -> object:
        return self.loop.run_until_complete(self.ours.encrypt_message(TEXT, b"ad"))

    def receive(self, message: object) -> None:
        text = self.loop.run_until_complete(self.theirs.decrypt_message(message, b"ad"))
        assert text == TEXT

    def turn(self) -> None:
        back = self.loop.run_until_complete(self.theirs.encrypt_message(TEXT, b"ad"))
        self.loop.run_until_complete(self.ours.decrypt_message(back, b"ad"))
        self.receive(self.send())


def microseconds(work: Callable[[], object], times: int) -> float:
    """The mean of `times` calls, by this process's CPU clock."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times * 1e6


def measure(make: Callable[[], object], messages: int) -> dict[str, float]:
    peer = make()
    found = {"set-up": microseconds(peer.setup, max(1, messages // 10))}
    envelopes: list[object] = []
    found["encrypt"] = microseconds(lambda: envelopes.append(peer.send()), messages)
    waiting = iter(envelopes)
    found["decrypt"] = microseconds(lambda: peer.receive(next(waiting)), messages)
    found["turn"] = microseconds(peer.turn, max(1, messages // 4))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--messages", type=int, default=400)
    options = arguments.parse_args()
    makers = [Saltline, Vodozemac, Syndace]
    results: dict[type, list[dict[str, float]]] = {make: [] for make in makers}
    for _ in range(options.rounds):  # in turns, so that a noisy minute hits all of them
        for make in makers:
            results[make].append(measure(make, options.messages))
    versions = ", ".join(f"{name} {version(name)}" for name in ("vodozemac", "DoubleRatchet"))
    print(f"CPU µs per operation, median of {options.rounds} runs, 200-byte texts; {versions}")
    print(f"{'':62}{'set-up':>9}{'encrypt':>9}{'decrypt':>9}{'turn':>9}")
    for make in makers:
        row = [
            statistics.median(run[key] for run in results[make])
            for key in ("set-up", "encrypt", "decrypt", "turn")
        ]
        print(f"{make.name:62}" + "".join(f"{value:9.0f}" for value in row))
    print("set-up: both sides, with the first message. turn: a reply and an answer, both sides.")


if __name__ == "__main__":
    main()
